//! `QuinnTransport`: listens and dials.

use crate::config::QuinnConfig;
use crate::connection::QuinnConnection;
use crate::context::{Context, bind, local_ip};
use crate::handshake;
use crate::listener::{Acceptor, QuinnListener};
use async_trait::async_trait;
use futures_util::future::join_all;
use net_kit::alpn::protocol_names;
use net_kit::tls::TlsIdentity;
use net_traits::{
    Cause, CloseReason, ConfigError, ConnectError, ListenError, NetCredential, NetTransport,
    TransportStatistics, TrustPolicy,
};
use parking_lot::RwLock;
use quinn::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// How many bytes of early packets quinn keeps for an attempt that waits for `accept`.
const EARLY_BYTES: u64 = 16 * 1024;

/// Messages over QUIC by quinn. Clones share the transport.
///
/// Listeners and connections remain usable after the transport is dropped.
#[derive(Debug, Clone)]
pub struct QuinnTransport {
    context: Context,
}

impl QuinnTransport {
    /// Creates a transport with the default configuration.
    pub fn new() -> Self {
        Self { context: Context::new(QuinnConfig::default()) }
    }

    /// Creates a transport with the given limits and timeouts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if an option has a value that cannot be used.
    pub fn with_config(config: QuinnConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { context: Context::new(config) })
    }
}

impl Default for QuinnTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl NetTransport for QuinnTransport {
    type Connection = QuinnConnection;
    type Listener = QuinnListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<QuinnListener, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let identity = TlsIdentity::new(credential)?;
        let context = self.context.clone();
        let is_open = context.registry.check_open();
        is_open.map_err(|reason| ListenError::Transport(Cause::new(reason)))?;
        let (crypto, _) = handshake::server(&identity, &alpn)?;
        let mut config = ServerConfig::with_crypto(crypto);
        config
            .transport_config(context.transport.clone())
            .max_incoming(context.config.backlog)
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES * context.config.backlog as u64);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse(bind_addr),
            _ => ListenError::Transport(Cause::new(error)),
        };
        let endpoint = bind(bind_addr, Some(config.clone())).map_err(failed)?;
        let local_addr = endpoint.local_addr().map_err(failed)?;
        let (socket, identity) = (context.add_listener(endpoint), RwLock::new(identity));
        let acceptor = Arc::new(Acceptor { local_addr, alpn, config, identity, context });
        Ok(QuinnListener { socket, acceptor })
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<QuinnConnection, ConnectError> {
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        if remote_addr.port() == 0 {
            return Err(ConnectError::InvalidInput("cannot connect to port 0".to_owned()));
        }
        let Context { registry, transport, .. } = &self.context;
        registry.check_open().map_err(ConnectError::Closed)?;
        let revocations = registry.revocations();
        let identity = TlsIdentity::new(credential)?;
        let handshake = self.context.handshake(&identity, remote_addr, alpn);
        let (mut config, verifier) = handshake::client(&identity, &handshake.alpn)?;
        config.transport_config(transport.clone());
        let unreachable =
            |error: io::Error| ConnectError::Closed(CloseReason::Transport(Cause::new(error)));
        let local_ip = local_ip(remote_addr).map_err(unreachable)?;
        let (connecting, local_addr) =
            self.context.dial(config, remote_addr).map_err(unreachable)?;
        let local_addr = |_: &_| (local_ip, local_addr.port()).into();
        let complete = handshake::complete(connecting, &handshake, &verifier, local_addr);
        let completed = timeout(handshake.timeout, complete).await;
        let secured = completed.map_err(|_| handshake.timed_out())??;
        Ok(QuinnConnection::start(secured, handshake, self.context.parts(), revocations, None))
    }

    fn connections(&self) -> Vec<QuinnConnection> {
        self.context.registry.live().into_iter().map(QuinnConnection::from).collect()
    }

    fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.context.registry.revoke(policy)
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let Context { registry, listeners, .. } = &self.context;
        let stop = async {
            let listeners = std::mem::take(&mut *listeners.lock());
            listeners.iter().filter_map(Weak::upgrade).for_each(|it| it.stop());
        };
        registry.shutdown(deadline, reason, stop).await;
        join_all(registry.live().iter().map(|it| it.core.over())).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.context.registry.statistics()
    }
}
