//! `FallbackTransport`: one transport first, and another one where the first does not get through.

use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{
    AcceptError, CertificateDer, CloseReason, ConnectError, ListenError, NetConnection,
    NetCredential, NetIncomingRequest, NetListener, NetTransport, PeerIdentity, RecvError,
    RejectionBy, SendError,
};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// How long the first transport is alone.
const DELAY: Duration = Duration::from_millis(250);

/// How many ports are tried until one is free with both transports.
const PORTS: usize = 16;

/// Dials with one transport, and a moment later with another one too; who is connected first wins, as with Happy
/// Eyeballs (RFC 8305). Listens with both, on the same port. The moment is the 250 ms of that document, unless
/// [set](Self::with_delay).
///
/// A dial takes the moment and the second transport's handshake timeout at the most.
///
/// The second transport is for peers that the first one does not reach. What the first one hears from the peer, such as
/// that it does not trust this side, is final.
///
/// ```no_run
/// use net_traits::{ConnectError, NetCredential, NetTransport};
/// use std::net::SocketAddr;
/// use tcp_tls_transport::{FallbackConnection, FallbackTransport, TcpTlsTransport};
///
/// # async fn dial(
/// #     quic: impl NetTransport,
/// #     peer: SocketAddr,
/// #     credential: NetCredential,
/// # ) -> Result<(), ConnectError> {
/// let transport = FallbackTransport::new(quic, TcpTlsTransport::new());
/// match transport.connect(peer, &["chat/1"], credential).await? {
///     FallbackConnection::Primary(_quic) => println!("over QUIC"),
///     FallbackConnection::Secondary(_tcp) => println!("over TCP: is UDP blocked?"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FallbackTransport<P, S> {
    primary: P,
    secondary: S,
    delay: Duration,
}

impl<P: NetTransport, S: NetTransport> FallbackTransport<P, S> {
    /// Prefers `primary`.
    pub fn new(primary: P, secondary: S) -> Self {
        Self { primary, secondary, delay: DELAY }
    }

    /// How long the first transport is alone. Default: 250 ms.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The transport that is tried first.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// The other one.
    pub fn secondary(&self) -> &S {
        &self.secondary
    }
}

#[async_trait]
impl<P: NetTransport, S: NetTransport> NetTransport for FallbackTransport<P, S> {
    type Connection = FallbackConnection<P::Connection, S::Connection>;
    type Listener = FallbackListener<P::Listener, S::Listener>;

    /// Listens with both transports, or with none.
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Listener, ListenError> {
        let mut taken = Vec::new();
        loop {
            let primary = self.primary.create_listener(bind_addr, alpn, credential.clone()).await?;
            let mut address = bind_addr; // an IPv6 address may have a scope
            address.set_port(primary.local_addr().port());
            match self.secondary.create_listener(address, alpn, credential.clone()).await {
                Ok(secondary) => return Ok(FallbackListener { primary, secondary }),
                // Somebody else has that port; held until the end, so that the next is another one.
                Err(ListenError::AddressInUse(_))
                    if bind_addr.port() == 0 && taken.len() < PORTS =>
                {
                    taken.push(primary);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Connection, ConnectError> {
        let mut primary = pin!(self.primary.connect(remote_addr, alpn, credential.clone()));
        let failed = match timeout(self.delay, &mut primary).await {
            Ok(Ok(connection)) => return Ok(FallbackConnection::Primary(connection)),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if let Some(error) = failed.clone().filter(is_final) {
            return Err(error);
        }
        let mut secondary = pin!(self.secondary.connect(remote_addr, alpn, credential));
        if let Some(first) = failed {
            let connected = secondary.await.map(FallbackConnection::Secondary);
            return connected.map_err(|second| worse(first, second));
        }
        tokio::select! {
            biased;
            connected = &mut primary => match connected {
                Ok(connection) => Ok(FallbackConnection::Primary(connection)),
                Err(error) if is_final(&error) => Err(error),
                Err(first) => {
                    let connected = secondary.await.map(FallbackConnection::Secondary);
                    connected.map_err(|second| worse(first, second))
                }
            },
            connected = &mut secondary => match connected {
                Ok(connection) => Ok(FallbackConnection::Secondary(connection)),
                // Whoever said that may be another one than the first transport is about to reach.
                Err(second) => {
                    let connected = primary.await.map(FallbackConnection::Primary);
                    connected.map_err(|first| worse(first, second))
                }
            },
        }
    }
}

/// Whether the peer was reached, or nothing can be: the other transport would hear the same. Somebody whom this side does
/// not trust is not the peer.
fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::TimedOut { .. } | ConnectError::Refused(_) => false,
        ConnectError::Closed(reason) => {
            use CloseReason::{ProtocolViolation, TimedOut, Transport};
            !matches!(reason, Transport(_) | ProtocolViolation(_) | TimedOut)
        }
        ConnectError::Rejected(rejection) => rejection.by == RejectionBy::Peer,
        _ => true,
    }
}

/// The error that says more: what the peer said, or else that of the transport that is preferred.
fn worse(first: ConnectError, second: ConnectError) -> ConnectError {
    if is_final(&second) && !is_final(&first) { second } else { first }
}

/// Listens with two transports.
#[derive(Debug)]
pub struct FallbackListener<P, S> {
    primary: P,
    secondary: S,
}

impl<P: NetListener, S: NetListener> FallbackListener<P, S> {
    /// The listener of the transport that is preferred.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// The other one.
    pub fn secondary(&self) -> &S {
        &self.secondary
    }
}

#[async_trait]
impl<P: NetListener, S: NetListener> NetListener for FallbackListener<P, S> {
    type Connection = FallbackConnection<P::Connection, S::Connection>;
    type IncomingRequest = FallbackIncomingRequest<P::IncomingRequest, S::IncomingRequest>;

    async fn accept(&self) -> Result<Self::IncomingRequest, AcceptError> {
        tokio::select! {
            request = self.primary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Primary(request)),
                Err(_) => self.secondary.accept().await.map(FallbackIncomingRequest::Secondary),
            },
            request = self.secondary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Secondary(request)),
                Err(_) => self.primary.accept().await.map(FallbackIncomingRequest::Primary),
            },
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.primary.local_addr()
    }
}

/// The same of both variants.
macro_rules! each {
    ($self:expr, $it:ident => $output:expr) => {
        match $self {
            Self::Primary($it) => $output,
            Self::Secondary($it) => $output,
        }
    };
}

/// A connection attempt over one of two transports.
#[derive(Debug)]
pub enum FallbackIncomingRequest<P, S> {
    /// Over that which is preferred.
    Primary(P),
    /// Over the other one.
    Secondary(S),
}

#[async_trait]
impl<P: NetIncomingRequest, S: NetIncomingRequest> NetIncomingRequest
    for FallbackIncomingRequest<P, S>
{
    type Connection = FallbackConnection<P::Connection, S::Connection>;

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn refuse(self, code: u64) {
        each!(self, it => it.refuse(code));
    }

    async fn accept(self) -> Result<Self::Connection, ConnectError> {
        match self {
            Self::Primary(it) => it.accept().await.map(FallbackConnection::Primary),
            Self::Secondary(it) => it.accept().await.map(FallbackConnection::Secondary),
        }
    }
}

/// A connection over one of two transports; which one, is the variant.
#[derive(Debug, Clone)]
pub enum FallbackConnection<P, S> {
    /// Over that which is preferred.
    Primary(P),
    /// Over the other one.
    Secondary(S),
}

#[async_trait]
impl<P: NetConnection, S: NetConnection> NetConnection for FallbackConnection<P, S> {
    fn local_addr(&self) -> SocketAddr {
        each!(self, it => it.local_addr())
    }

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn local_identity(&self) -> &str {
        each!(self, it => it.local_identity())
    }

    fn remote_identity(&self) -> &str {
        each!(self, it => it.remote_identity())
    }

    fn peer_identity(&self) -> &PeerIdentity {
        each!(self, it => it.peer_identity())
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        each!(self, it => it.remote_certificate())
    }

    fn alpn_negotiated(&self) -> &str {
        each!(self, it => it.alpn_negotiated())
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        each!(self, it => it.send(message).await)
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.send_bytes(message).await)
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        each!(self, it => it.send_parts(parts).await)
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.try_send(message))
    }

    async fn flush(&self) -> Result<(), SendError> {
        each!(self, it => it.flush().await)
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        each!(self, it => it.recv().await)
    }

    async fn close(&self, code: u64, reason: &str) {
        each!(self, it => it.close(code, reason).await)
    }

    async fn watch_close(&self) -> CloseReason {
        each!(self, it => it.watch_close().await)
    }
}
