//! The conformance suite over a fallback whose primary transport reaches no peer: its listeners work, as
//! those of QUIC behind a firewall that blocks UDP, and the secondary transport carries everything.

use async_trait::async_trait;
use net_peers::{FallbackConfig, FallbackTransport};
use net_traits::{
    ConnectError, ListenError, NetCredential, NetTransport, TransportStatistics, TrustPolicy,
};
use net_traits_test::memory::{MemoryConnection, MemoryListener, MemoryNetwork, MemoryTransport};
use net_traits_test::{Harness, Limits};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

struct OverSecondary {
    blocked: MemoryNetwork,
    open: MemoryNetwork,
}

impl OverSecondary {
    fn new() -> Self {
        Self { blocked: MemoryNetwork::new(1), open: MemoryNetwork::new(1) }
    }
}

impl Harness for OverSecondary {
    type Transport = FallbackTransport<Blocked, MemoryTransport>;

    fn transport(&self, limits: &Limits) -> Self::Transport {
        let primary = Blocked {
            listens: self.blocked.transport_with(limits.clone()),
            dials: MemoryNetwork::new(1).transport_with(limits.clone()),
        };
        let secondary = self.open.transport_with(limits.clone());
        let config = FallbackConfig::new().delay(Duration::ZERO);
        FallbackTransport::with_config(primary, secondary, config).unwrap()
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }
}

/// A transport whose dials end in a network without listeners.
#[derive(Debug)]
struct Blocked {
    listens: MemoryTransport,
    dials: MemoryTransport,
}

#[async_trait]
impl NetTransport for Blocked {
    type Connection = MemoryConnection;
    type Listener = MemoryListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MemoryListener, ListenError> {
        self.listens.create_listener(bind_addr, alpn, credential).await
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MemoryConnection, ConnectError> {
        self.dials.connect(remote_addr, alpn, credential).await
    }

    fn connections(&self) -> Vec<MemoryConnection> {
        self.dials.connections()
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.dials.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        self.listens.shutdown(deadline, reason).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.dials.statistics()
    }
}

net_traits_test::conformance!(
    OverSecondary::new(),
    // A timeout of the secondary transport says no more than the refusal by the primary.
    without: [raw_peer, anonymous_peer, timeouts],
);
