//! `DynTransport`: any transport behind one type, for programs that choose the transport at run
//! time.

use crate::{
    AcceptError, CertHash, CloseOutcome, CloseReason, ConnectError, DatagramError, ListenError,
    NetConnection, NetCredential, NetDatagrams, NetIncomingRequest, NetListener, NetQuestion,
    NetRequests, NetTransport, PeerIdentity, RecvError, RequestError, SendAckedError, SendError,
    TransportStatistics, TrustPolicy,
};
use async_trait::async_trait;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
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

/// The connection of a [`DynTransport`].
#[derive(Clone)]
pub struct DynConnection(Arc<dyn ErasedConnection>);

/// The question of a [`DynConnection`].
pub struct DynQuestion(Box<dyn ErasedQuestion>);

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

impl DynConnection {
    /// Erases the type of `connection`.
    pub fn new(connection: impl NetRequests) -> Self {
        Self(Arc::new(connection))
    }

    /// Returns the connection if it is a `C`, for methods that only its transport has.
    pub fn downcast_ref<C: NetConnection>(&self) -> Option<&C> {
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

/// A [`NetConnection`] without `Clone`, which trait objects cannot have.
#[async_trait]
trait ErasedConnection: Any + Send + Sync {
    fn local_addr(&self) -> SocketAddr;
    fn remote_addr(&self) -> SocketAddr;
    fn local_identity(&self) -> &str;
    fn remote_identity(&self) -> &str;
    fn peer_identity(&self) -> &PeerIdentity;
    fn is_trusted(&self) -> bool;
    fn remote_certificate(&self) -> Option<CertificateDer<'static>>;
    fn alpn_negotiated(&self) -> &str;
    async fn send(&self, message: &[u8]) -> Result<(), SendError>;
    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError>;
    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError>;
    fn try_send(&self, message: Bytes) -> Result<(), SendError>;
    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError>;
    async fn flush(&self) -> Result<(), SendError>;
    async fn recv(&self) -> Result<(Bytes, Duration), RecvError>;
    async fn close(&self, code: u64, reason: &str) -> CloseOutcome;
    fn abort(&self, code: u64, reason: &str);
    async fn watch_close(&self) -> CloseReason;
    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError>;
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;
    async fn accept_request(&self) -> Result<DynQuestion, RequestError>;
}

/// Implements a connection trait by delegating to another one.
macro_rules! forward {
    ([$($header:tt)*] $self:ident => [$($inner:tt)*] $target:expr; $($more:tt)*) => {
        #[async_trait]
        impl $($header)* {
            fn local_addr(&$self) -> SocketAddr {
                <$($inner)*>::local_addr($target)
            }

            fn remote_addr(&$self) -> SocketAddr {
                <$($inner)*>::remote_addr($target)
            }

            fn local_identity(&$self) -> &str {
                <$($inner)*>::local_identity($target)
            }

            fn remote_identity(&$self) -> &str {
                <$($inner)*>::remote_identity($target)
            }

            fn peer_identity(&$self) -> &PeerIdentity {
                <$($inner)*>::peer_identity($target)
            }

            fn is_trusted(&$self) -> bool {
                <$($inner)*>::is_trusted($target)
            }

            fn remote_certificate(&$self) -> Option<CertificateDer<'static>> {
                <$($inner)*>::remote_certificate($target)
            }

            fn alpn_negotiated(&$self) -> &str {
                <$($inner)*>::alpn_negotiated($target)
            }

            async fn send(&$self, message: &[u8]) -> Result<(), SendError> {
                <$($inner)*>::send($target, message).await
            }

            async fn send_bytes(&$self, message: Bytes) -> Result<(), SendError> {
                <$($inner)*>::send_bytes($target, message).await
            }

            async fn send_parts(&$self, parts: &[Bytes]) -> Result<(), SendError> {
                <$($inner)*>::send_parts($target, parts).await
            }

            fn try_send(&$self, message: Bytes) -> Result<(), SendError> {
                <$($inner)*>::try_send($target, message)
            }

            async fn send_acked(&$self, message: Bytes) -> Result<(), SendAckedError> {
                <$($inner)*>::send_acked($target, message).await
            }

            async fn flush(&$self) -> Result<(), SendError> {
                <$($inner)*>::flush($target).await
            }

            async fn recv(&$self) -> Result<(Bytes, Duration), RecvError> {
                <$($inner)*>::recv($target).await
            }

            async fn close(&$self, code: u64, reason: &str) -> CloseOutcome {
                <$($inner)*>::close($target, code, reason).await
            }

            fn abort(&$self, code: u64, reason: &str) {
                <$($inner)*>::abort($target, code, reason);
            }

            async fn watch_close(&$self) -> CloseReason {
                <$($inner)*>::watch_close($target).await
            }

            fn datagrams(&$self) -> Result<&dyn NetDatagrams, DatagramError> {
                <$($inner)*>::datagrams($target)
            }

            $($more)*
        }
    };
}

forward!([<C: NetRequests> ErasedConnection for C] self => [C as NetConnection] self;
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        NetRequests::request(self, question, deadline).await
    }

    async fn accept_request(&self) -> Result<DynQuestion, RequestError> {
        Ok(DynQuestion(Box::new(NetRequests::accept_request(self).await?)))
    }
);
forward!([NetConnection for DynConnection] self => [dyn ErasedConnection] &*self.0;);

#[async_trait]
impl NetRequests for DynConnection {
    type Question = DynQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        self.0.request(question, deadline).await
    }

    async fn accept_request(&self) -> Result<DynQuestion, RequestError> {
        self.0.accept_request().await
    }
}

#[async_trait]
trait ErasedQuestion: Send + Sync {
    async fn question(&mut self) -> Result<Bytes, RequestError>;
    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), RequestError>;
    fn refuse(self: Box<Self>, code: u64);
    async fn canceled(&self);
}

#[async_trait]
impl<Q: NetQuestion> ErasedQuestion for Q {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        NetQuestion::question(self).await
    }

    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), RequestError> {
        NetQuestion::answer(*self, answer).await
    }

    fn refuse(self: Box<Self>, code: u64) {
        NetQuestion::refuse(*self, code);
    }

    async fn canceled(&self) {
        NetQuestion::canceled(self).await;
    }
}

#[async_trait]
impl NetQuestion for DynQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        self.0.question().await
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        self.0.answer(answer).await
    }

    fn refuse(self, code: u64) {
        self.0.refuse(code);
    }

    async fn canceled(&self) {
        self.0.canceled().await;
    }
}

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

impl fmt::Debug for DynQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynQuestion").finish_non_exhaustive()
    }
}

impl fmt::Debug for DynConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynConnection")
            .field("remote_addr", &self.0.remote_addr())
            .field("remote_identity", &self.0.remote_identity())
            .finish()
    }
}
