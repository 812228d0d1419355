//! `MemoryTransport`: one host of a virtual network.

use super::connection::MemoryConnection;
use super::host::Host;
use super::listener::{Attempt, Backlog, MemoryListener};
use super::network::{MemoryNetwork, NetworkListener};
use crate::Limits;
use async_trait::async_trait;
use net_kit::alpn::protocol_names;
use net_kit::telemetry::Origin;
use net_traits::address::destination;
use net_traits::{
    Cause, CertHash, CertificateDer, ConnectError, ListenError, NetCredential, NetTransport,
    TransportStatistics, TrustPolicy,
};
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// A host of a [`MemoryNetwork`]. Clones share the host.
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    host: Arc<Host>,
}

/// The dialling side.
struct Dialler {
    certificate: Option<CertificateDer<'static>>,
    identity: Option<CertHash>,
    trust: TrustPolicy,
}

impl MemoryNetwork {
    /// Adds a host with the default limits. Hosts are 10.0.0.1, 10.0.0.2 and so on.
    pub fn transport(&self) -> MemoryTransport {
        self.transport_with(Limits::default())
    }

    /// Adds a host with these limits.
    pub fn transport_with(&self, limits: Limits) -> MemoryTransport {
        MemoryTransport::new(self.clone(), self.add_host(), limits)
    }
}

impl MemoryTransport {
    fn new(network: MemoryNetwork, ip: IpAddr, limits: Limits) -> Self {
        Self { host: Arc::new(Host::new(network, ip, limits)) }
    }

    /// Returns the address of the host.
    pub fn ip(&self) -> IpAddr {
        self.host.ip
    }

    /// Dials without a certificate and trusts every peer, for tests of the listener.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_without_certificate(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
    ) -> Result<MemoryConnection, ConnectError> {
        let dialler = Dialler { certificate: None, identity: None, trust: TrustPolicy::Any };
        self.dial(remote_addr, alpn, dialler).await
    }

    async fn dial(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        dialler: Dialler,
    ) -> Result<MemoryConnection, ConnectError> {
        let mut remote_addr = destination(remote_addr).map_err(ConnectError::InvalidInput)?;
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        let Host { network, ip, limits, registry, .. } = &*self.host;
        registry.check_open().map_err(ConnectError::Closed)?;
        let revocations = registry.revocations();
        if remote_addr.ip().is_loopback() {
            remote_addr.set_ip(*ip);
        }
        let there = network.link(*ip, remote_addr.ip());
        let back = network.link(remote_addr.ip(), *ip);
        let Dialler { certificate, identity, trust } = dialler;
        let dial = async {
            there.pass().await;
            let (answer, answered) = oneshot::channel();
            match network.listener::<Backlog>(remote_addr) {
                Some(backlog) => {
                    let from = SocketAddr::new(*ip, network.port());
                    let host = self.host.clone();
                    backlog.push(Attempt {
                        host,
                        revocations,
                        from,
                        certificate,
                        identity,
                        trust,
                        alpn,
                        answer,
                    });
                }
                None => drop(answer),
            }
            let answer = answered.await;
            back.pass().await;
            answer.unwrap_or(Err(ConnectError::Refused(remote_addr)))
        };
        registry.dial(remote_addr, limits.handshake_timeout, dial).await
    }
}

#[async_trait]
impl NetTransport for MemoryTransport {
    type Connection = MemoryConnection;
    type Listener = MemoryListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MemoryListener, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let Host { network, ip, registry, listeners, .. } = &*self.host;
        let check_open =
            || registry.check_open().map_err(|reason| ListenError::Transport(Cause::new(reason)));
        check_open()?;
        if !bind_addr.ip().is_unspecified() && bind_addr.ip() != *ip {
            let what = format!("{} is not an address of this host, which has {ip}", bind_addr.ip());
            return Err(ListenError::InvalidInput(what));
        }
        let backlog = Backlog::new(&self.host);
        let door: Arc<dyn NetworkListener> = backlog.clone();
        let bind_addr = SocketAddr::new(*ip, bind_addr.port());
        let local_addr = network.listen(bind_addr, door.clone());
        let local_addr = local_addr.ok_or(ListenError::AddressInUse(bind_addr))?;
        {
            let mut listeners = listeners.lock();
            listeners.retain(|backlog| backlog.strong_count() > 0);
            listeners.push(Arc::downgrade(&door));
        }
        let credential = Arc::new(RwLock::new(credential));
        let host = self.host.clone();
        let listener = MemoryListener { host, backlog, local_addr, alpn, credential };
        check_open()?; // a shutdown may have begun before the listener was registered
        Ok(listener)
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MemoryConnection, ConnectError> {
        let dialler = Dialler {
            certificate: credential.certificate_chain().first().cloned(),
            identity: Some(credential.identity()),
            trust: credential.trust().clone(),
        };
        let telemetry = self.host.registry.telemetry().attempt(remote_addr, Origin::Dialled);
        telemetry.watch(self.dial(remote_addr, alpn, dialler)).await
    }

    fn connections(&self) -> Vec<MemoryConnection> {
        self.host.registry.handles().into_iter().map(MemoryConnection::from_shared).collect()
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.host.registry.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let stop = async {
            let listeners = std::mem::take(&mut *self.host.listeners.lock());
            listeners.iter().filter_map(Weak::upgrade).for_each(|backlog| backlog.close());
        };
        self.host.registry.shutdown(deadline, reason, stop).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.host.registry.statistics()
    }
}
