//! `TcpTlsListener` and `TcpTlsIncomingRequest`: accepts connections.

use crate::connection::TcpTlsConnection;
use crate::handshake::{self, Parties, TlsIdentity, is_gone};
use crate::places::Place;
use crate::transport::Context;
use async_trait::async_trait;
use net_traits::{
    AcceptError, ConnectError, ListenError, NetCredential, NetIncomingRequest, NetListener,
};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Delay before the next `accept` when the system is out of sockets.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// A listener of [`TcpTlsTransport`](crate::TcpTlsTransport).
#[derive(Debug)]
pub struct TcpTlsListener {
    socket: TcpListener,
    local_addr: SocketAddr,
    alpn: Vec<String>,
    identity: Arc<RwLock<TlsIdentity>>,
    context: Context,
}

impl TcpTlsListener {
    pub(crate) fn new(
        socket: TcpListener,
        local_addr: SocketAddr,
        alpn: Vec<String>,
        identity: TlsIdentity,
        context: Context,
    ) -> Self {
        Self { socket, local_addr, alpn, identity: Arc::new(RwLock::new(identity)), context }
    }

    /// Replaces the certificate and the trust policy for handshakes that begin later.
    ///
    /// Established connections remain open. To close those that are no longer trusted, call
    /// [`TcpTlsTransport::revoke`](crate::TcpTlsTransport::revoke).
    ///
    /// # Errors
    ///
    /// [`ListenError::Credential`] if the credential cannot be used. The listener keeps its
    /// previous one.
    pub fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let identity = TlsIdentity::new(credential)?;
        *self.identity.write() = identity;
        Ok(())
    }
}

#[async_trait]
impl NetListener for TcpTlsListener {
    type Connection = TcpTlsConnection;
    type IncomingRequest = TcpTlsIncomingRequest;

    async fn accept(&self) -> Result<TcpTlsIncomingRequest, AcceptError> {
        loop {
            let (stream, remote_addr) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                // The peer has disconnected already.
                Err(error) if is_gone(&error) => continue,
                Err(_) => {
                    sleep(OUT_OF_SOCKETS).await;
                    continue;
                }
            };
            // Over a limit: close the socket.
            let Some(place) = self.context.places.take(remote_addr.ip()) else { continue };
            return Ok(TcpTlsIncomingRequest {
                stream,
                remote_addr,
                place,
                alpn: self.alpn.clone(),
                identity: self.identity.clone(),
                context: self.context.clone(),
            });
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

/// A connection attempt at a [`TcpTlsListener`].
#[derive(Debug)]
pub struct TcpTlsIncomingRequest {
    stream: TcpStream,
    remote_addr: SocketAddr,
    place: Place,
    alpn: Vec<String>,
    identity: Arc<RwLock<TlsIdentity>>,
    context: Context,
}

#[async_trait]
impl NetIncomingRequest for TcpTlsIncomingRequest {
    type Connection = TcpTlsConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    /// Closes the socket. Before the handshake the code cannot be sent.
    fn refuse(self, _code: u64) {}

    async fn accept(self) -> Result<TcpTlsConnection, ConnectError> {
        let Self { stream, remote_addr, place, alpn, identity, context } = self;
        let lost = |_| ConnectError::Refused(remote_addr);
        stream.set_nodelay(true).map_err(lost)?;
        let local_addr = stream.local_addr().map_err(lost)?;
        // In this order: a revocation after the first line applies even if the credential is old.
        let revocations = context.revocations();
        let identity = identity.read().clone();
        let local_identity = identity.credential.identity();
        let parties = Parties { local_identity, remote_addr, alpn };
        let after = context.config.handshake_timeout;
        let secured = timeout(after, handshake::accept(stream, &identity, &parties, place))
            .await
            .unwrap_or(Err(ConnectError::TimedOut { remote_addr, after }))?;
        Ok(TcpTlsConnection::start(secured, local_addr, parties, &context, revocations))
    }
}
