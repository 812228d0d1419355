//! `Network`: what the nodes run on, a virtual network or the loopback interface.

use anyhow::Result;
use net_traits::NetTransport;
use net_traits_test::memory::{MemoryNetwork, MemoryTransport};
use std::net::{Ipv4Addr, SocketAddr};

/// Supplies the hosts of the nodes.
pub trait Network: Send + Sync {
    /// The transport of a host.
    type Transport: NetTransport + Clone;

    /// Adds a host.
    ///
    /// # Errors
    ///
    /// What the transport needs is missing.
    fn add_host(&self) -> Result<Self::Transport>;

    /// Returns where listeners of a host are bound.
    fn bind_addr(&self) -> SocketAddr;

    /// Returns the network whose links can fail, if they can.
    fn links(&self) -> Option<&MemoryNetwork> {
        None
    }
}

impl Network for MemoryNetwork {
    type Transport = MemoryTransport;

    fn add_host(&self) -> Result<MemoryTransport> {
        Ok(self.transport())
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }

    fn links(&self) -> Option<&MemoryNetwork> {
        Some(self)
    }
}

/// The loopback interface, with a function that creates a transport.
pub struct Loopback<T>(pub fn() -> Result<T>);

impl<T: NetTransport + Clone> Network for Loopback<T> {
    type Transport = T;

    fn add_host(&self) -> Result<T> {
        (self.0)()
    }

    fn bind_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }
}
