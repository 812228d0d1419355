//! `Transport`: listens and dials with a backend.

use super::inner::{Acceptor, TransportInner};
use super::{Backend, Connection, Listener};
use crate::admission::Admission;
use crate::alpn::protocol_names;
use crate::options::TransportOptions;
use crate::registry::Registry;
use crate::telemetry::{Origin, Telemetry};
use async_trait::async_trait;
use futures_util::future::join_all;
use net_traits::address::destination;
use net_traits::{
    Cause, CertHash, ConfigError, ConnectError, ListenError, NetCredential, NetTransport,
    TransportStatistics, TrustPolicy,
};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A transport with a backend. Clones share the transport.
///
/// Listeners and connections remain usable after the transport is dropped.
pub struct Transport<B: Backend> {
    inner: Arc<TransportInner<B>>,
}

impl<B: Backend> Transport<B> {
    /// Creates a transport with the default configuration.
    pub fn new() -> Self {
        Self::make(B::Config::default())
    }

    /// Creates a transport with the given limits and timeouts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if an option has a value that cannot be used.
    pub fn with_config(config: B::Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::make(config))
    }

    fn make(config: B::Config) -> Self {
        let telemetry = Telemetry::new(B::NAME);
        let options = config.common();
        let admission = Admission::new(options.connections, telemetry.clone());
        let registry = Registry::with_memory(admission, telemetry, options.memory);
        let backend = B::new(&config);
        let inner = TransportInner {
            config: config.into(),
            registry,
            backend,
            listeners: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    async fn dial(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Connection<B>, ConnectError> {
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        let remote_addr = destination(remote_addr).map_err(ConnectError::InvalidInput)?;
        let TransportInner { config, registry, backend, .. } = &*self.inner;
        registry.check_open().map_err(ConnectError::Closed)?;
        let revocations = registry.revocations();
        let identity = self.inner.identity(credential)?;
        let handshake = self.inner.handshake(&identity, remote_addr, alpn);
        let dial = backend.dial(&identity, &handshake);
        let secured = registry.dial(remote_addr, handshake.timeout, dial).await?;
        Ok(Connection::start(secured, handshake, config, registry, revocations, None))
    }
}

#[async_trait]
impl<B: Backend> NetTransport for Transport<B> {
    type Connection = Connection<B>;
    type Listener = Listener<B>;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Listener<B>, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let identity = self.inner.identity(credential)?;
        let inner = self.inner.clone();
        let check_open = || {
            let is_open = self.inner.registry.check_open();
            is_open.map_err(|reason| ListenError::Transport(Cause::new(reason)))
        };
        check_open()?;
        let (socket, local_addr) = inner.backend.listen(bind_addr, &alpn, &identity).await?;
        let (socket, identity) = (inner.add(socket), RwLock::new(identity));
        check_open()?; // a shutdown may have begun before the socket was registered
        let acceptor = Arc::new(Acceptor { local_addr, alpn, identity, transport: inner });
        Ok(Listener::new(socket, acceptor))
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Connection<B>, ConnectError> {
        let telemetry = self.inner.registry.telemetry().attempt(remote_addr, Origin::Dialled);
        telemetry.watch(self.dial(remote_addr, alpn, credential)).await
    }

    fn connections(&self) -> Vec<Connection<B>> {
        let handles = self.inner.registry.handles().into_iter();
        handles.map(Connection::new).collect()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        self.inner.registry.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.inner.registry.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let TransportInner { registry, listeners, .. } = &*self.inner;
        let stop = async {
            let listeners = std::mem::take(&mut *listeners.lock());
            listeners.iter().filter_map(Weak::upgrade).for_each(|socket| socket.stop());
        };
        registry.shutdown(deadline, reason, stop).await;
        join_all(registry.live().iter().map(|shared| shared.session.ended())).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.inner.registry.statistics()
    }
}

impl<B: Backend> Clone for Transport<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<B: Backend> Default for Transport<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Backend> fmt::Debug for Transport<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut transport = f.debug_struct("Transport");
        transport
            .field("name", &B::NAME)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}
