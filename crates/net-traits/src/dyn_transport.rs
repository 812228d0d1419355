//! `DynTransport`: any transport behind one type, for programs that choose the transport at run
//! time.

mod connection;

pub use connection::{DynConnection, DynQuestion};

use crate::{
    AcceptError, CertHash, ConnectError, ListenError, NetCredential, NetIncomingRequest,
    NetListener, NetRequests, NetTransport, TransportStatistics, TrustPolicy,
};
use async_trait::async_trait;
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A type-erased [`NetTransport`] that implements [`NetTransport`] itself.
///
/// Clones share the transport. Each asynchronous call costs two additional allocations.
///
/// ```
/// use net_traits::{DynTransport, NetRequests, NetTransport};
///
/// fn choose<Q, T>(quic: Q, tcp: T, is_udp_blocked: bool) -> DynTransport
/// where
///     Q: NetTransport<Connection: NetRequests>,
///     T: NetTransport<Connection: NetRequests>,
/// {
///     if is_udp_blocked { DynTransport::new(tcp) } else { DynTransport::new(quic) }
/// }
/// ```
#[derive(Clone)]
pub struct DynTransport(Arc<dyn ErasedTransport>);

/// The listener of a [`DynTransport`].
pub struct DynListener(Box<dyn ErasedListener>);

/// The incoming request of a [`DynListener`].
pub struct DynIncomingRequest(Box<dyn ErasedIncomingRequest>);

impl DynTransport {
    /// Erases the type of `transport`.
    pub fn new(transport: impl NetTransport<Connection: NetRequests>) -> Self {
        Self(Arc::new(transport))
    }

    /// Returns the transport if it is a `T`.
    pub fn downcast_ref<T: NetTransport>(&self) -> Option<&T> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

impl DynListener {
    /// Returns the listener if it is an `L`.
    pub fn downcast_ref<L: NetListener>(&self) -> Option<&L> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

#[async_trait]
trait ErasedTransport: Any + Send + Sync {
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynListener, ListenError>;

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynConnection, ConnectError>;

    fn connections(&self) -> Vec<DynConnection>;
    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize;
    async fn revoke(&self, policy: &TrustPolicy) -> usize;
    async fn shutdown(&self, deadline: Duration, reason: &str);
    fn statistics(&self) -> TransportStatistics;
}

#[async_trait]
impl<T: NetTransport<Connection: NetRequests>> ErasedTransport for T {
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynListener, ListenError> {
        let listener = NetTransport::create_listener(self, bind_addr, alpn, credential).await?;
        Ok(DynListener(Box::new(listener)))
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynConnection, ConnectError> {
        let connection = NetTransport::connect(self, remote_addr, alpn, credential).await?;
        Ok(DynConnection::new(connection))
    }

    fn connections(&self) -> Vec<DynConnection> {
        NetTransport::connections(self).into_iter().map(DynConnection::new).collect()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        NetTransport::close_peer(self, identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        NetTransport::revoke(self, policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        NetTransport::shutdown(self, deadline, reason).await;
    }

    fn statistics(&self) -> TransportStatistics {
        NetTransport::statistics(self)
    }
}

#[async_trait]
impl NetTransport for DynTransport {
    type Connection = DynConnection;
    type Listener = DynListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynListener, ListenError> {
        self.0.create_listener(bind_addr, alpn, credential).await
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<DynConnection, ConnectError> {
        self.0.connect(remote_addr, alpn, credential).await
    }

    fn connections(&self) -> Vec<DynConnection> {
        self.0.connections()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        self.0.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.0.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        self.0.shutdown(deadline, reason).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.0.statistics()
    }
}

#[async_trait]
trait ErasedListener: Any + Send + Sync {
    async fn accept(&self) -> Result<DynIncomingRequest, AcceptError>;
    fn local_addr(&self) -> SocketAddr;
    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError>;
    fn set_trust(&self, trust: TrustPolicy);
}

#[async_trait]
impl<L: NetListener<Connection: NetRequests>> ErasedListener for L {
    async fn accept(&self) -> Result<DynIncomingRequest, AcceptError> {
        Ok(DynIncomingRequest(Box::new(NetListener::accept(self).await?)))
    }

    fn local_addr(&self) -> SocketAddr {
        NetListener::local_addr(self)
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        NetListener::set_credential(self, credential)
    }

    fn set_trust(&self, trust: TrustPolicy) {
        NetListener::set_trust(self, trust);
    }
}

#[async_trait]
impl NetListener for DynListener {
    type Connection = DynConnection;
    type IncomingRequest = DynIncomingRequest;

    async fn accept(&self) -> Result<DynIncomingRequest, AcceptError> {
        self.0.accept().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        self.0.set_credential(credential)
    }

    fn set_trust(&self, trust: TrustPolicy) {
        self.0.set_trust(trust);
    }
}

#[async_trait]
trait ErasedIncomingRequest: Send {
    fn remote_addr(&self) -> SocketAddr;
    fn refuse(self: Box<Self>, code: u64);
    async fn accept(self: Box<Self>) -> Result<DynConnection, ConnectError>;
}

#[async_trait]
impl<I: NetIncomingRequest<Connection: NetRequests>> ErasedIncomingRequest for I {
    fn remote_addr(&self) -> SocketAddr {
        NetIncomingRequest::remote_addr(self)
    }

    fn refuse(self: Box<Self>, code: u64) {
        NetIncomingRequest::refuse(*self, code);
    }

    async fn accept(self: Box<Self>) -> Result<DynConnection, ConnectError> {
        Ok(DynConnection::new(NetIncomingRequest::accept(*self).await?))
    }
}

#[async_trait]
impl NetIncomingRequest for DynIncomingRequest {
    type Connection = DynConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.0.remote_addr()
    }

    fn refuse(self, code: u64) {
        self.0.refuse(code);
    }

    async fn accept(self) -> Result<DynConnection, ConnectError> {
        self.0.accept().await
    }
}

/// A [`NetConnection`](crate::NetConnection) without `Clone`, which trait objects cannot have.
impl fmt::Debug for DynTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynTransport").finish_non_exhaustive()
    }
}

impl fmt::Debug for DynListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynListener").field("local_addr", &self.0.local_addr()).finish()
    }
}

impl fmt::Debug for DynIncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynIncomingRequest").field("remote_addr", &self.0.remote_addr()).finish()
    }
}
