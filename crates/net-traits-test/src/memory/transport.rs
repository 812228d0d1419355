//! `MemoryTransport`: one host of a virtual network.

use super::connection::{MemoryConnection, Shared};
use super::listener::{Backlog, Knock, MemoryListener};
use super::network::MemoryNetwork;
use crate::Limits;
use async_trait::async_trait;
use net_kit::alpn::protocol_names;
use net_traits::{
    CertHash, CertificateDer, ConnectError, ListenError, NetCredential, NetTransport, TrustPolicy,
};
use parking_lot::{Mutex, RwLock};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// A host of a [`MemoryNetwork`]. Clones share the host.
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    host: Arc<Host>,
}

/// State that the connections of a host share.
pub(super) struct Host {
    pub(super) network: MemoryNetwork,
    pub(super) ip: IpAddr,
    pub(super) limits: Limits,
    /// For accepted connections.
    pub(super) places: Arc<Semaphore>,
    connections: Mutex<Vec<Weak<Shared>>>,
}

impl Host {
    pub(super) fn know(&self, connection: &Arc<Shared>) {
        let mut connections = self.connections.lock();
        connections.retain(|it| it.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("ip", &self.ip).finish_non_exhaustive()
    }
}

/// The dialling side.
struct Dialler {
    certificate: Option<CertificateDer<'static>>,
    identity: Option<CertHash>,
    trust: TrustPolicy,
}

impl MemoryTransport {
    pub(super) fn new(network: MemoryNetwork, ip: IpAddr, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let connections = Mutex::default();
        Self { host: Arc::new(Host { network, ip, limits, places, connections }) }
    }

    /// Returns the address of the host.
    pub fn ip(&self) -> IpAddr {
        self.host.ip
    }

    /// Closes the connections whose peer `policy` does not trust with [`REVOKED`](net_traits::close_code::REVOKED), and
    /// returns their number.
    pub fn revoke(&self, policy: &TrustPolicy) -> usize {
        let connections = self.host.connections.lock().clone();
        let live = connections.iter().filter_map(Weak::upgrade);
        live.filter(|connection| connection.revoke(policy)).count()
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
        if remote_addr.port() == 0 {
            return Err(ConnectError::InvalidInput("cannot connect to port 0".to_owned()));
        }
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        let Host { network, ip, limits, .. } = &*self.host;
        let there = network.link(*ip, remote_addr.ip());
        let back = network.link(remote_addr.ip(), *ip);
        let Dialler { certificate, identity, trust } = dialler;
        let dial = async {
            there.pass().await;
            let (answer, answered) = oneshot::channel();
            match network.listener(remote_addr) {
                Some(backlog) => {
                    let from = SocketAddr::new(*ip, network.port());
                    let host = self.host.clone();
                    backlog.knock(Knock { host, from, certificate, identity, trust, alpn, answer });
                }
                None => drop(answer),
            }
            let answer = answered.await;
            back.pass().await;
            answer.unwrap_or(Err(ConnectError::Refused(remote_addr)))
        };
        let after = limits.handshake_timeout;
        timeout(after, dial).await.unwrap_or(Err(ConnectError::TimedOut { remote_addr, after }))
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
        let Host { network, ip, .. } = &*self.host;
        if !bind_addr.ip().is_unspecified() && bind_addr.ip() != *ip {
            let what = format!("{} is not an address of this host, which has {ip}", bind_addr.ip());
            return Err(ListenError::InvalidInput(what));
        }
        let backlog = Backlog::new(&self.host);
        let bind_addr = SocketAddr::new(*ip, bind_addr.port());
        let local_addr = network.listen(bind_addr, &backlog);
        let local_addr = local_addr.ok_or(ListenError::AddressInUse(bind_addr))?;
        let credential = Arc::new(RwLock::new(credential));
        Ok(MemoryListener { host: self.host.clone(), backlog, local_addr, alpn, credential })
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
        self.dial(remote_addr, alpn, dialler).await
    }
}
