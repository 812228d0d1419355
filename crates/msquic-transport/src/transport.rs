//! `MsQuicTransport`: listens and dials.

use crate::MsQuicTransportConfig;
use crate::certificate::Handshake;
use crate::connection::MsQuicNetConnection;
use crate::listener::MsQuicListener;
use crate::quic_settings::{ConfigFactory, ConfigFailure};
use async_trait::async_trait;
use msquic_async::{Connection, Registration, Status};
use net_traits::{CloseReason, ConnectError, ListenError, NetCredential, NetTransport};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Messages over QUIC, see the [crate's documentation](crate).
///
/// Cloning is cheap. Listeners and connections live on when the transport is dropped.
#[derive(Clone, Debug)]
pub struct MsQuicTransport {
    /// What msquic said, if it could not be started: everything fails with that.
    registration: Result<Arc<RegistrationWrapper>, Status>,
    config: Arc<MsQuicTransportConfig>,
}

/// An msquic registration that is shut down when it is dropped, without waiting.
pub struct RegistrationWrapper(Registration);

impl RegistrationWrapper {
    pub(crate) fn registration(&self) -> &Registration {
        &self.0
    }
}

impl Drop for RegistrationWrapper {
    fn drop(&mut self) {
        self.0.shutdown(0);
    }
}

impl fmt::Debug for RegistrationWrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MsQuicTransport {
    /// A transport with the default configuration.
    pub fn new() -> Self {
        Self::with_config(MsQuicTransportConfig::default())
    }

    /// A transport with these limits and timeouts.
    pub fn with_config(config: MsQuicTransportConfig) -> Self {
        let registration = Registration::new("msquic-transport");
        let registration = registration.map(|it| Arc::new(RegistrationWrapper(it)));
        Self { registration, config: Arc::new(config) }
    }

    fn registration(&self) -> Result<&Arc<RegistrationWrapper>, String> {
        self.registration.as_ref().map_err(|status| format!("msquic cannot be started: {status}"))
    }
}

impl Default for MsQuicTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl NetTransport for MsQuicTransport {
    type Connection = MsQuicNetConnection;
    type Listener = MsQuicListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MsQuicListener, ListenError> {
        let registration = self.registration().map_err(ListenError::Transport)?;
        let factory = ConfigFactory {
            registration: &registration.0,
            config: &self.config,
            alpn,
            credential: &credential,
        };
        let configuration = factory.server().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ListenError::InvalidInput(what),
            ConfigFailure::Credential(error) => ListenError::Credential(error),
            ConfigFailure::Transport(what) => ListenError::Transport(what),
        })?;
        let config = self.config.clone();
        MsQuicListener::start(registration, configuration, bind_addr, alpn, credential, config)
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MsQuicNetConnection, ConnectError> {
        let transport = |what| ConnectError::Closed(CloseReason::Transport(what));
        let registration = self.registration().map_err(transport)?;
        let factory = ConfigFactory {
            registration: &registration.0,
            config: &self.config,
            alpn,
            credential: &credential,
        };
        let configuration = factory.client().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ConnectError::InvalidInput(what),
            ConfigFailure::Credential(error) => ConnectError::Credential(error),
            ConfigFailure::Transport(what) => transport(what),
        })?;
        let local_hash = credential.identity();
        let handshake = Handshake {
            remote_addr,
            local_identity: local_hash,
            alpn,
            timeout: self.config.handshake_timeout,
        };
        let connection = Connection::new(&registration.0, credential)
            .map_err(|error| transport(error.to_string()))?;
        let host = remote_addr.ip().to_string();
        let start = connection.start(&configuration, &host, remote_addr.port());
        tokio::time::timeout(handshake.timeout, start)
            .await
            .map_err(|_| handshake.timed_out())?
            .map_err(|error| handshake.failed(&error))?;
        let config = self.config.clone();
        MsQuicNetConnection::new(connection, local_hash, config, registration.clone())
            .ok_or_else(|| transport("the connection lacks a certificate or an address".to_owned()))
    }
}
