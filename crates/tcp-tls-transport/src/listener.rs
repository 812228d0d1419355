//! `TcpTlsListener` and `TcpTlsIncomingRequest`: accepts connections.

use crate::connection::TcpTlsConnection;
use crate::context::{Context, Socket};
use crate::handshake::{self, is_gone};
use async_trait::async_trait;
use net_kit::admission::Place;
use net_kit::tls::TlsIdentity;
use net_traits::{
    AcceptError, ConnectError, ListenError, NetCredential, NetIncomingRequest, NetListener,
    TrustPolicy,
};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Delay before the next `accept` when the system is out of sockets.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// A listener of [`TcpTlsTransport`](crate::TcpTlsTransport).
#[derive(Debug)]
pub struct TcpTlsListener {
    pub(crate) socket: Arc<Socket>,
    pub(crate) local_addr: SocketAddr,
    pub(crate) acceptor: Arc<Acceptor>,
}

/// What a listener and its requests share.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) alpn: Vec<String>,
    pub(crate) identity: RwLock<TlsIdentity>,
    pub(crate) context: Context,
}

#[async_trait]
impl NetListener for TcpTlsListener {
    type Connection = TcpTlsConnection;
    type IncomingRequest = TcpTlsIncomingRequest;

    async fn accept(&self) -> Result<TcpTlsIncomingRequest, AcceptError> {
        let socket = self.socket.read().clone().ok_or(AcceptError::Closed)?;
        let registry = &self.acceptor.context.registry;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = registry.shut_down() => return Err(AcceptError::Closed),
            };
            let (stream, remote_addr) = match accepted {
                Ok(accepted) => accepted,
                // The peer has disconnected already.
                Err(error) if is_gone(&error) => continue,
                Err(_) => {
                    sleep(OUT_OF_SOCKETS).await;
                    continue;
                }
            };
            // Over a limit: close the socket. Before the handshake no code can be sent.
            let Ok(place) = registry.admission().admit(remote_addr) else { continue };
            let acceptor = self.acceptor.clone();
            return Ok(TcpTlsIncomingRequest { stream, remote_addr, place, acceptor });
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let identity = TlsIdentity::new(credential)?;
        *self.acceptor.identity.write() = identity;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut identity = self.acceptor.identity.write();
        *identity = identity.with_trust(trust);
    }
}

/// A connection attempt at a [`TcpTlsListener`].
#[derive(Debug)]
pub struct TcpTlsIncomingRequest {
    stream: TcpStream,
    remote_addr: SocketAddr,
    place: Place,
    acceptor: Arc<Acceptor>,
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
        let Self { stream, remote_addr, place, acceptor } = self;
        let Acceptor { alpn, identity, context } = &*acceptor;
        stream.set_nodelay(true).map_err(|_| ConnectError::Refused(remote_addr))?;
        // In this order: a revocation after the first line applies even if the credential is old.
        let revocations = context.registry.revocations();
        let identity = identity.read().clone();
        let handshake = context.handshake(&identity, remote_addr, alpn.clone());
        match handshake::accept(stream, &identity, &handshake, place).await {
            Ok((secured, place)) => {
                let shared = (&context.config, &context.registry);
                Ok(TcpTlsConnection::start(secured, handshake, shared, revocations, Some(place)))
            }
            Err(error) => {
                context.registry.telemetry().handshake_failed(remote_addr, &error);
                Err(error)
            }
        }
    }
}
