//! `QuinnListener` and `QuinnIncomingRequest`: accepts connections.

use crate::connection::QuinnConnection;
use crate::context::{Context, Socket};
use crate::handshake;

use async_trait::async_trait;
use net_kit::admission::{self, Place};
use net_kit::tls::TlsIdentity;
use net_traits::{
    AcceptError, ConnectError, ListenError, NetCredential, NetIncomingRequest, NetListener,
    TrustPolicy,
};
use parking_lot::RwLock;
use quinn::{Incoming, ServerConfig, VarInt};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::timeout;

/// A listener of [`QuinnTransport`](crate::QuinnTransport).
#[derive(Debug)]
pub struct QuinnListener {
    pub(crate) socket: Arc<Socket>,
    pub(crate) acceptor: Arc<Acceptor>,
}

/// What a listener and its requests share.
pub(crate) struct Acceptor {
    pub(crate) local_addr: SocketAddr,
    pub(crate) alpn: Vec<String>,
    /// The configuration of handshakes, apart from TLS.
    pub(crate) config: ServerConfig,
    pub(crate) identity: RwLock<TlsIdentity>,
    pub(crate) context: Context,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

#[async_trait]
impl NetListener for QuinnListener {
    type Connection = QuinnConnection;
    type IncomingRequest = QuinnIncomingRequest;

    async fn accept(&self) -> Result<QuinnIncomingRequest, AcceptError> {
        let registry = &self.acceptor.context.registry;
        loop {
            let endpoint = self.socket.0.lock().clone().ok_or(AcceptError::Closed)?;
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming.ok_or(AcceptError::Closed)?,
                () = registry.shut_down() => return Err(AcceptError::Closed),
            };
            if registry.admission().is_under_pressure() && incoming.may_retry() {
                let _ = incoming.retry(); // it may retry
                continue;
            }
            match registry.admission().admit(incoming.remote_address()) {
                Ok(place) => {
                    let acceptor = self.acceptor.clone();
                    return Ok(QuinnIncomingRequest { incoming, place, acceptor });
                }
                Err(_) => incoming.refuse(), // before the handshake no code can be sent
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.acceptor.local_addr
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

/// A connection attempt at a [`QuinnListener`].
#[derive(Debug)]
pub struct QuinnIncomingRequest {
    incoming: Incoming,
    place: Place,
    acceptor: Arc<Acceptor>,
}

#[async_trait]
impl NetIncomingRequest for QuinnIncomingRequest {
    type Connection = QuinnConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Refuses the attempt. Before the handshake the code cannot be sent.
    fn refuse(self, _code: u64) {
        self.incoming.refuse();
    }

    async fn accept(self) -> Result<QuinnConnection, ConnectError> {
        let Self { incoming, place, acceptor } = self;
        let remote_addr = incoming.remote_address();
        let accepted = acceptor.accept(incoming, place).await;
        if let Err(error) = &accepted {
            acceptor.context.registry.telemetry().handshake_failed(remote_addr, error);
        }
        accepted
    }
}

impl Acceptor {
    async fn accept(
        &self,
        incoming: Incoming,
        mut place: Place,
    ) -> Result<QuinnConnection, ConnectError> {
        // In this order: a revocation after the first line applies even if the credential is old.
        let revocations = self.context.registry.revocations();
        let identity = self.identity.read().clone();
        let remote_addr = incoming.remote_address();
        let handshake = self.context.handshake(&identity, remote_addr, self.alpn.clone());
        let mut config = self.config.clone();
        let (crypto, verifier) = handshake::server(&identity, &self.alpn)?;
        config.crypto = crypto;
        let connecting = incoming
            .accept_with(Arc::new(config))
            .map_err(|error| handshake::failed(&handshake, error, &verifier))?;
        let local_addr = |connection: &quinn::Connection| {
            let ip = connection.local_ip().unwrap_or(self.local_addr.ip());
            (ip, self.local_addr.port()).into()
        };
        let complete = handshake::complete(connecting, &handshake, &verifier, local_addr);
        let Ok(completed) = timeout(handshake.timeout, complete).await else {
            place.timed_out();
            return Err(handshake.timed_out());
        };
        let (connection, facts) = completed?;
        if let Err(limit) = place.identify(facts.peer().hash) {
            let code = VarInt::from_u64(limit.code()).unwrap_or(VarInt::MAX);
            connection.close(code, admission::reason(limit).as_bytes());
            return Err(ConnectError::Closed(admission::close_reason(limit)));
        }
        let secured = (connection, facts);
        Ok(QuinnConnection::start(
            secured,
            handshake,
            self.context.parts(),
            revocations,
            Some(place),
        ))
    }
}
