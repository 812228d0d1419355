//! The conformance suite over a fallback whose primary transport reaches no peer, as QUIC behind a
//! firewall that drops UDP: its listeners work, and all connections use the secondary transport.

use async_trait::async_trait;
use bytes::Bytes;
use net_peers::{FallbackConfig, FallbackTransport};
use net_traits::{NetConnection, NetCredential, NetTransport, RequestError};
use net_traits_test::memory::{LinkPlan, MemoryConnection, MemoryNetwork, MemoryTransport};
use net_traits_test::{Harness, Limits, RawPeer};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The handshake timeout of the primary transport, short because a behaviour may dial many times.
const BLOCKED: Duration = Duration::from_millis(500);

struct OverSecondary {
    blocked: MemoryNetwork,
    open: MemoryNetwork,
}

impl OverSecondary {
    fn new() -> Self {
        let blocked = MemoryNetwork::new(1);
        let day = Duration::from_secs(24 * 60 * 60);
        blocked.set_links(LinkPlan::new().latency(day)); // longer than any handshake may take
        Self { blocked, open: MemoryNetwork::new(1) }
    }

    /// Adds a host that dials over the secondary transport only. Both networks count their hosts,
    /// so that a host has the same address in both.
    fn host(&self) -> MemoryTransport {
        self.blocked.transport();
        self.open.transport()
    }
}

/// A peer of the secondary transport's listener.
struct Raw(MemoryConnection);

#[async_trait]
impl RawPeer for Raw {
    async fn write(&mut self, bytes: &[u8]) {
        // The other side may have closed the connection because of a violation.
        let _ = self.0.send_raw(Bytes::copy_from_slice(bytes)).await;
    }

    async fn finish(&mut self) {
        self.0.end_raw();
    }

    async fn begin_question(&mut self, bytes: &[u8]) -> Option<u64> {
        match self.0.begin_question_raw(Bytes::copy_from_slice(bytes)).await {
            Err(RequestError::NoAnswer { code }) => Some(code),
            Err(_) => None,
        }
    }
}

#[async_trait]
impl Harness for OverSecondary {
    type Transport = FallbackTransport<MemoryTransport, MemoryTransport>;

    fn transport(&self, limits: &Limits) -> Self::Transport {
        let handshake_timeout = limits.handshake_timeout.min(BLOCKED);
        let primary = self.blocked.transport_with(Limits { handshake_timeout, ..limits.clone() });
        let secondary = self.open.transport_with(limits.clone());
        let config = FallbackConfig::new().delay(Duration::ZERO);
        FallbackTransport::with_config(primary, secondary, config).unwrap()
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        let transport = self.host();
        Box::new(Raw(transport.connect(remote_addr, &[alpn], credential).await.unwrap()))
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        let transport = self.host();
        if let Ok(connection) = transport.connect_without_certificate(remote_addr, &[alpn]).await {
            connection.watch_close().await;
        }
    }
}

net_traits_test::conformance!(OverSecondary::new(), without: [path]);
