//! The conformance suite over a fallback whose primary transport reaches no peer, as QUIC behind a
//! firewall that drops UDP: its listeners work, and all connections use the secondary transport.

use net_peers::{FallbackConfig, FallbackTransport};
use net_traits_test::memory::{LinkPlan, MemoryNetwork, MemoryTransport};
use net_traits_test::{Harness, Limits};
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
}

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
}

net_traits_test::conformance!(OverSecondary::new(), without: [raw_peer, anonymous_peer]);
