//! `Host`: what the listeners and connections of one host share.

use super::connection::Shared;
use super::network::{MemoryNetwork, NetworkListener};
use crate::Limits;
use net_kit::admission::{Admission, ConnectionLimits};
use net_kit::memory_budget::MemoryLimits;
use net_kit::registry::Registry;
use net_kit::telemetry::Telemetry;
use parking_lot::Mutex;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// State that the connections of a host share.
pub(super) struct Host {
    pub(super) network: MemoryNetwork,
    pub(super) ip: IpAddr,
    pub(super) limits: Limits,
    pub(super) registry: Arc<Registry<Shared>>,
    pub(super) listeners: Mutex<Vec<Weak<dyn NetworkListener>>>,
}

impl Host {
    pub(super) fn new(network: MemoryNetwork, ip: IpAddr, limits: Limits) -> Self {
        let connection_limits = ConnectionLimits {
            connections: limits.max_connections,
            per_ip: limits.max_connections_per_ip,
            per_identity: limits.max_connections_per_identity,
            handshakes: limits.max_handshakes,
            handshakes_per_ip: limits.max_handshakes_per_ip,
        };
        let telemetry = Telemetry::new("memory");
        let memory = MemoryLimits {
            total: limits.max_memory,
            unfinished: usize::MAX, // each connection has one stream
            timeout: limits.message_timeout,
        };
        let admission = Admission::new(connection_limits, telemetry.clone());
        let registry = Registry::with_memory(admission, telemetry, memory);
        let listeners = Mutex::default();
        Self { network, ip, limits, registry, listeners }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("ip", &self.ip).finish_non_exhaustive()
    }
}
