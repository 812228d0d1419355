//! `TcpTlsTransport`: listens and dials.

use crate::config::TcpTlsConfig;
use crate::connection::{Shared, TcpTlsConnection};
use crate::handshake::{self, Parties, TlsIdentity};
use crate::listener::TcpTlsListener;
use crate::places::Places;
use async_trait::async_trait;
use net_kit::Revocations;
use net_kit::alpn::protocol_names;
use net_traits::{
    Cause, CloseReason, ConnectError, ListenError, NetCredential, NetTransport, TrustPolicy,
};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Messages over TCP and TLS 1.3. Clones share the transport.
#[derive(Debug, Clone)]
pub struct TcpTlsTransport {
    context: Context,
}

/// State that the connections and listeners of a transport share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<TcpTlsConfig>,
    /// For accepted connections.
    pub(crate) places: Arc<Places>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    connections: Vec<Weak<Shared>>,
    /// Number of entries at which those of dropped connections are removed.
    tidy_at: usize,
    revocations: Revocations,
}

impl Context {
    /// Registers a connection, and closes it if its peer was revoked after the first `revocations`.
    pub(crate) fn know(&self, connection: &Arc<Shared>, revocations: u64) {
        let revoked_by = {
            let known = &mut *self.known.lock();
            if known.connections.len() >= known.tidy_at {
                known.connections.retain(|it| it.strong_count() > 0);
                known.tidy_at = 2 * known.connections.len() + 16;
            }
            known.connections.push(Arc::downgrade(connection));
            known.revocations.since(revocations)
        };
        for policy in revoked_by {
            connection.revoke(&policy);
        }
    }

    /// Returns the number of revocations so far.
    pub(crate) fn revocations(&self) -> u64 {
        self.known.lock().revocations.count()
    }
}

impl TcpTlsTransport {
    /// Creates a transport with the default configuration.
    pub fn new() -> Self {
        Self::with_config(TcpTlsConfig::default())
    }

    /// Creates a transport with the given limits and timeouts.
    pub fn with_config(config: TcpTlsConfig) -> Self {
        let config = Arc::new(config);
        let places = Places::new(config.clone());
        let context = Context { config, places, known: Arc::default() };
        Self { context }
    }

    /// Closes all connections whose peer `policy` does not trust, including those in their
    /// handshake.
    ///
    /// Their close code is [`REVOKED`](net_traits::close_code::REVOKED); queued messages are dropped. Returns how many of
    /// them were established. Signatures are verified again, on the calling thread.
    ///
    /// To reject such peers in the future too, first give the listeners a credential with that
    /// policy, see [`TcpTlsListener::set_credential`], and use it to dial.
    pub fn revoke(&self, policy: &TrustPolicy) -> usize {
        let connections = {
            let known = &mut *self.context.known.lock();
            known.revocations.record(policy.clone());
            known.connections.clone()
        };
        let live = connections.iter().filter_map(Weak::upgrade);
        live.filter(|connection| connection.revoke(policy)).count()
    }
}

impl Default for TcpTlsTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl NetTransport for TcpTlsTransport {
    type Connection = TcpTlsConnection;
    type Listener = TcpTlsListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<TcpTlsListener, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let identity = TlsIdentity::new(credential)?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse(bind_addr),
            _ => ListenError::Transport(Cause::new(error)),
        };
        let socket = TcpListener::bind(bind_addr).await.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok(TcpTlsListener::new(socket, local_addr, alpn, identity, self.context.clone()))
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<TcpTlsConnection, ConnectError> {
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        if remote_addr.port() == 0 {
            return Err(ConnectError::InvalidInput("cannot connect to port 0".to_owned()));
        }
        let revocations = self.context.revocations();
        let identity = TlsIdentity::new(credential)?;
        let local_identity = identity.credential.identity();
        let parties = Parties { local_identity, remote_addr, alpn };
        let dial = async {
            let stream = TcpStream::connect(remote_addr)
                .await
                .map_err(|error| unreachable(error, remote_addr))?;
            let failed =
                |error: io::Error| ConnectError::Closed(CloseReason::Transport(Cause::new(error)));
            stream.set_nodelay(true).map_err(failed)?;
            let local_addr = stream.local_addr().map_err(failed)?;
            Ok((handshake::dial(stream, &identity, &parties).await?, local_addr))
        };
        let after = self.context.config.handshake_timeout;
        let (secured, local_addr) = timeout(after, dial)
            .await
            .unwrap_or(Err(ConnectError::TimedOut { remote_addr, after }))?;
        Ok(TcpTlsConnection::start(secured, local_addr, parties, &self.context, revocations))
    }
}

/// Maps the error of a failed TCP connection attempt.
fn unreachable(error: io::Error, remote_addr: SocketAddr) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            ConnectError::Refused(remote_addr)
        }
        _ => ConnectError::Closed(CloseReason::Transport(Cause::new(error))),
    }
}
