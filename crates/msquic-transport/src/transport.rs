//! `MsQuicTransport`: listens and dials.

use crate::MsQuicTransportConfig;
use crate::address_validation::under_pressure;
use crate::certificate;
use crate::connection::{MsQuicNetConnection, Shared};
use crate::listener::{Identity, MsQuicListener};
use crate::quic_settings::{ConfigCache, ConfigFactory, ConfigFailure};
use async_trait::async_trait;
use futures_util::future::join_all;
use msquic_async::connection::StartError;
use msquic_async::{Configuration, Dial, Listener, Registration, Resumption, Status};
use net_kit::admission::{Admission, ConnectionLimits};
use net_kit::handshake::Handshake;
use net_kit::registry::Registry;
use net_kit::telemetry::Telemetry;
use net_traits::{
    Cause, CloseReason, ConfigError, ConnectError, ListenError, NetCredential, NetTransport,
    TransportStatistics, TrustPolicy, close_code,
};
use parking_lot::Mutex;
use std::fmt;
use std::mem::discriminant;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Messages over QUIC, see the [crate's documentation](crate).
///
/// Cloning is cheap. Listeners and connections remain usable after the transport is dropped.
#[derive(Clone, Debug)]
pub struct MsQuicTransport {
    /// If msquic could not be started, its status, with which all operations fail.
    context: Result<Context, Status>,
}

/// State that the listeners and connections of a transport share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) registration: Arc<RegistrationWrapper>,
    pub(crate) config: Arc<MsQuicTransportConfig>,
    pub(crate) registry: Arc<Registry<Shared>>,
    configurations: Arc<ConfigCache>,
    /// The tickets of all configurations, if resumption is enabled.
    resumption: Option<Resumption>,
    listeners: Arc<Mutex<Vec<Weak<Listener>>>>,
}

impl Context {
    /// Removes the configurations of a credential that is no longer in use.
    pub(crate) fn forget(&self, credential: &NetCredential) {
        self.configurations.forget(credential);
    }

    /// Invalidates all tickets after a change of trust. Resuming peers are verified anyway; this is
    /// a second safeguard.
    pub(crate) fn forget_tickets(&self) {
        if let Some(resumption) = &self.resumption {
            resumption.forget();
        }
    }

    /// Returns the msquic configuration of a listener.
    pub(crate) fn server(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ListenError> {
        self.factory(alpn, credential).server().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ListenError::InvalidInput(what),
            ConfigFailure::Credential(error) => ListenError::Credential(error),
            ConfigFailure::Transport(cause) => ListenError::Transport(cause),
        })
    }

    /// Returns the msquic configuration of a dialler.
    fn client(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ConnectError> {
        self.factory(alpn, credential).client().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ConnectError::InvalidInput(what),
            ConfigFailure::Credential(error) => ConnectError::Credential(error),
            ConfigFailure::Transport(cause) => failed(cause),
        })
    }

    /// Returns the settings for dialling `remote_addr`.
    fn dial(&self, remote_addr: SocketAddr) -> Dial {
        let dial = Dial::from(remote_addr).share_binding(self.config.share_sockets);
        let of_listener = || {
            let listeners = self.listeners.lock();
            let mut live = listeners.iter().filter_map(Weak::upgrade);
            live.find_map(|it| it.local_addr().ok().filter(|local| reaches(*local, remote_addr)))
        };
        let from_listener = self.config.dial_from_listener.then(of_listener).flatten();
        let from_config = || self.config.local_addr.filter(|local| reaches(*local, remote_addr));
        match from_listener.or_else(from_config) {
            Some(local_addr) => dial.local_addr(local_addr),
            None => dial,
        }
    }

    fn factory<'a>(
        &'a self,
        alpn: &'a [&'a str],
        credential: &'a NetCredential,
    ) -> ConfigFactory<'a> {
        ConfigFactory {
            registration: self.registration.registration(),
            config: &self.config,
            cache: &self.configurations,
            resumption: self.resumption.as_ref(),
            alpn,
            credential,
        }
    }

    pub(crate) fn add_listener(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }
}

/// An msquic registration that is shut down on drop, without waiting.
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
    /// Creates a transport with the default configuration.
    pub fn new() -> Self {
        Self::make(MsQuicTransportConfig::default())
    }

    /// Creates a transport with the given limits and timeouts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if an option has a value that cannot be used.
    pub fn with_config(config: MsQuicTransportConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::make(config))
    }

    fn make(config: MsQuicTransportConfig) -> Self {
        let limits = ConnectionLimits {
            connections: config.max_connections,
            per_ip: config.max_connections_per_ip,
            per_identity: config.max_connections_per_identity,
            handshakes: config.max_handshakes,
        };
        let telemetry = Telemetry::new("quic");
        let admission = under_pressure(Admission::new(limits, telemetry.clone()));
        let context = Registration::new("msquic-transport").map(|registration| Context {
            registration: Arc::new(RegistrationWrapper(registration)),
            resumption: config.resumption.then(Resumption::new),
            config: Arc::new(config),
            registry: Registry::new(admission, telemetry),
            configurations: Arc::default(),
            listeners: Arc::default(),
        });
        Self { context }
    }

    /// Connects as `dial` says: by host name, with another server name, or from another local
    /// address.
    ///
    /// All addresses of a name are tried. The address settings of the transport's configuration are
    /// ignored; see [`Dial`].
    ///
    /// ```no_run
    /// # use msquic_transport::MsQuicTransport;
    /// # use net_traits::NetCredential;
    /// # async fn example(
    /// #     transport: MsQuicTransport,
    /// #     credential: NetCredential,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_transport::Dial;
    ///
    /// let dial = Dial::new("node.example", 4433);
    /// let connection = transport.connect_with(&dial, &["chat/1"], credential).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectError`]. If the addresses of a name fail for different reasons, it is
    /// [`ConnectError::Closed`] with all reasons.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes the attempt.
    pub async fn connect_with(
        &self,
        dial: &Dial,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MsQuicNetConnection, ConnectError> {
        let context = self.context().map_err(failed)?;
        let revocations = context.registry.revocations(); // before any operation that takes time
        let configuration = context.client(alpn, &credential)?;
        let timeout = context.config.handshake_timeout;
        let handshake = |remote_addr| Handshake {
            remote_addr,
            local_identity: credential.identity(),
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            timeout,
        };
        let failed_at = |at, error: &StartError| certificate::failed(&handshake(at), error);
        let registration = context.registration.registration();
        let connect = dial.connect(registration, &configuration, &credential);
        let connection = tokio::time::timeout(timeout, connect)
            .await
            .map_err(|_| match dial.address() {
                Some(remote_addr) => handshake(remote_addr).timed_out(),
                None => ConnectError::Closed(CloseReason::TimedOut),
            })?
            .map_err(|error| match (dial.address(), &error) {
                (Some(remote_addr), error) => failed_at(remote_addr, error),
                (None, StartError::NoAddress { errors, .. }) => {
                    let causes = errors.iter().map(|(it, error)| failed_at(*it, error));
                    same_kind(causes).unwrap_or_else(|| failed(Cause::new(error.clone())))
                }
                (None, StartError::InvalidInput(what)) => ConnectError::InvalidInput(what.clone()),
                (None, error) => failed(Cause::new(error.clone())),
            })?;
        let remote_addr =
            connection.get_remote_addr().map_err(|error| failed(Cause::new(error)))?;
        let (handshake, ended) = (handshake(remote_addr), connection.clone());
        MsQuicNetConnection::new(connection, &handshake, context, revocations, None)
            .ok_or_else(|| certificate::lost(&handshake, &ended))
    }

    fn context(&self) -> Result<&Context, Cause> {
        let failed = |status| Cause::new(format!("msquic cannot be started: {status}"));
        self.context.as_ref().map_err(failed)
    }
}

impl Default for MsQuicTransport {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a socket with the address `local` can send to `remote`.
fn reaches(local: SocketAddr, remote: SocketAddr) -> bool {
    let takes_both = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    takes_both || local.is_ipv4() == remote.is_ipv4()
}

/// Returns the first of several errors if all are of one kind.
fn same_kind(mut errors: impl Iterator<Item = ConnectError>) -> Option<ConnectError> {
    let first = errors.next()?;
    errors.all(|error| discriminant(&error) == discriminant(&first)).then_some(first)
}

fn failed(cause: Cause) -> ConnectError {
    ConnectError::Closed(CloseReason::Transport(cause))
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
        let context = self.context().map_err(ListenError::Transport)?.clone();
        let configuration = context.server(alpn, &credential)?;
        MsQuicListener::start(context, Identity { credential, configuration }, bind_addr, alpn)
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MsQuicNetConnection, ConnectError> {
        let dial = self.context().map_err(failed)?.dial(remote_addr);
        self.connect_with(&dial, alpn, credential).await
    }

    fn connections(&self) -> Vec<MsQuicNetConnection> {
        let live = self.context.iter().flat_map(|context| context.registry.live());
        live.map(|shared| MsQuicNetConnection { shared }).collect()
    }

    fn revoke(&self, policy: &TrustPolicy) -> usize {
        let Ok(context) = &self.context else { return 0 };
        context.forget_tickets();
        context.registry.revoke(policy)
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let Ok(context) = &self.context else { return };
        let listeners: Vec<_> = context.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        let stop = async {
            join_all(listeners.iter().map(|listener| listener.stop())).await;
        };
        context.registry.shutdown(deadline, reason, stop).await;
        let registration = context.registration.registration();
        registration.shutdown(close_code::SHUTDOWN);
        registration.wait_idle().await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.context.as_ref().map(|context| context.registry.statistics()).unwrap_or_default()
    }
}
