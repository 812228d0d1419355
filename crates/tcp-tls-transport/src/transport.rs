//! `TcpTlsTransport`: listens and dials.

use crate::config::TcpTlsConfig;
use crate::connection::TcpTlsConnection;
use crate::context::Context;
use crate::handshake;
use crate::listener::{Acceptor, TcpTlsListener};
use async_trait::async_trait;
use net_kit::alpn::protocol_names;
use net_kit::tls::TlsIdentity;
use net_traits::{
    Cause, CloseReason, ConfigError, ConnectError, ListenError, NetCredential, NetTransport,
    TransportStatistics, TrustPolicy,
};
use parking_lot::RwLock;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Messages over TCP and TLS 1.3. Clones share the transport.
#[derive(Debug, Clone)]
pub struct TcpTlsTransport {
    context: Context,
}

impl TcpTlsTransport {
    /// Creates a transport with the default configuration.
    pub fn new() -> Self {
        Self::make(TcpTlsConfig::default())
    }

    /// Creates a transport with the given limits and timeouts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if an option has a value that cannot be used.
    pub fn with_config(config: TcpTlsConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::make(config))
    }

    fn make(config: TcpTlsConfig) -> Self {
        Self { context: Context::new(config) }
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
        let context = self.context.clone();
        context
            .registry
            .check_open()
            .map_err(|reason| ListenError::Transport(Cause::new(reason)))?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse(bind_addr),
            _ => ListenError::Transport(Cause::new(error)),
        };
        let socket = TcpListener::bind(bind_addr).await.map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        let (socket, identity) = (context.add_socket(socket), RwLock::new(identity));
        let acceptor = Arc::new(Acceptor { alpn, identity, context });
        Ok(TcpTlsListener { socket, local_addr, acceptor })
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
        let Context { config, registry, .. } = &self.context;
        registry.check_open().map_err(ConnectError::Closed)?;
        let revocations = registry.revocations();
        let identity = TlsIdentity::new(credential)?;
        let handshake = self.context.handshake(&identity, remote_addr, alpn);
        let dial = async {
            let stream = TcpStream::connect(remote_addr).await?;
            stream.set_nodelay(true)?;
            Ok(handshake::dial(stream, &identity, &handshake).await)
        };
        let dialled = timeout(handshake.timeout, dial).await;
        let secured = dialled
            .map_err(|_| handshake.timed_out())?
            .map_err(|error| unreachable(error, remote_addr))??;
        Ok(TcpTlsConnection::start(secured, handshake, (config, registry), revocations, None))
    }

    fn connections(&self) -> Vec<TcpTlsConnection> {
        self.context.registry.live().into_iter().map(TcpTlsConnection::from_shared).collect()
    }

    fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.context.registry.revoke(policy)
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let stop = async { self.context.close_sockets() };
        self.context.registry.shutdown(deadline, reason, stop).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.context.registry.statistics()
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
