//! `MsQuicTransport`: listens and dials.

use crate::MsQuicTransportConfig;
use crate::certificate::Handshake;
use crate::connection::{MsQuicNetConnection, Origin};
use crate::listener::{Identity, MsQuicListener};
use crate::quic_settings::{ConfigCache, ConfigFactory, ConfigFailure, describe};
use crate::registry::{ConnectionLimits, Registry, TransportStatistics};
use async_trait::async_trait;
use futures_util::future::join_all;
use msquic_async::connection::StartError;
use msquic_async::{Configuration, Dial, Listener, Registration, Resumption, Status};
use net_traits::{
    CloseReason, ConnectError, ListenError, NetConnection, NetCredential, NetTransport, TrustPolicy,
};
use parking_lot::Mutex;
use std::fmt;
use std::mem::discriminant;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The code with which connections are closed whose peer is not trusted any more.
pub const CLOSE_CODE_REVOKED: u64 = 0x6e65_7405;

/// The code with which [`MsQuicTransport::shutdown`] closes connections.
pub const CLOSE_CODE_SHUTDOWN: u64 = 0x6e65_7406;

/// Messages over QUIC, see the [crate's documentation](crate).
///
/// Cloning is cheap. Listeners and connections live on when the transport is dropped.
#[derive(Clone, Debug)]
pub struct MsQuicTransport {
    /// What msquic said, if it could not be started: everything fails with that.
    context: Result<Context, Status>,
}

/// What the listeners and connections of a transport share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) registration: Arc<RegistrationWrapper>,
    pub(crate) config: Arc<MsQuicTransportConfig>,
    pub(crate) registry: Arc<Registry>,
    configurations: Arc<ConfigCache>,
    /// The tickets of all configurations, if sessions are resumed.
    resumption: Option<Resumption>,
    listeners: Arc<Mutex<Vec<Weak<Listener>>>>,
}

impl Context {
    /// Keeps nothing of a credential that is not shown any more.
    pub(crate) fn forget(&self, credential: &NetCredential) {
        self.configurations.forget(credential);
    }

    /// Ends all tickets: the trust in peers changes. They are judged again anyway when they come back; this spares
    /// having to rely on that alone.
    pub(crate) fn forget_tickets(&self) {
        if let Some(resumption) = &self.resumption {
            resumption.forget();
        }
    }

    /// The msquic configuration of a listener.
    pub(crate) fn server(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ListenError> {
        self.factory(alpn, credential).server().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ListenError::InvalidInput(what),
            ConfigFailure::Credential(error) => ListenError::Credential(error),
            ConfigFailure::Transport(what) => ListenError::Transport(what),
        })
    }

    /// The msquic configuration of a dialler.
    fn client(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ConnectError> {
        self.factory(alpn, credential).client().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ConnectError::InvalidInput(what),
            ConfigFailure::Credential(error) => ConnectError::Credential(error),
            ConfigFailure::Transport(what) => failed(what),
        })
    }

    /// How connections to that address are dialled.
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
        let limits = ConnectionLimits {
            connections: config.max_connections,
            per_ip: config.max_connections_per_ip,
            per_identity: config.max_connections_per_identity,
            handshakes: config.max_handshakes,
        };
        let context = Registration::new("msquic-transport").map(|registration| Context {
            registration: Arc::new(RegistrationWrapper(registration)),
            resumption: config.resumption.then(Resumption::new),
            config: Arc::new(config),
            registry: Registry::new(limits),
            configurations: Arc::default(),
            listeners: Arc::default(),
        });
        Self { context }
    }

    /// What the transport did so far, all listeners and connections together.
    pub fn statistics(&self) -> TransportStatistics {
        self.context.as_ref().map(|context| context.registry.statistics()).unwrap_or_default()
    }

    /// Closes the connections whose peer `policy` does not trust with [`CLOSE_CODE_REVOKED`], also those that are in
    /// their handshake, and tells how many were up. What is queued on them is not sent any more. Certificates are judged as of now, so one
    /// that has expired meanwhile is not trusted either. Their signatures are verified again, on this thread.
    ///
    /// It concerns all connections of the transport, whichever listener accepted them; where listeners are to trust
    /// different peers, give each a transport.
    ///
    /// To keep such peers out as well, give the listeners a credential with that policy first, see
    /// [`MsQuicListener::set_credential`], and dial with it, see also
    /// [`PeerPool::set_credential`](crate::PeerPool::set_credential).
    pub fn revoke(&self, policy: &TrustPolicy) -> usize {
        let Ok(context) = &self.context else { return 0 };
        context.registry.revoke(policy);
        context.forget_tickets();
        context.registry.live().iter().filter(|connection| connection.revoke(policy)).count()
    }

    /// Ends everything in order: listeners stop, connections send what is queued, messages and answers to requests,
    /// and close with [`CLOSE_CODE_SHUTDOWN`] and `reason`. What is not done after `deadline` is closed at once. Returns
    /// when nothing is open any more; the transport cannot be used afterwards.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes at once the connections that were sending what is queued, and leaves others as they are.
    pub async fn shutdown(&self, deadline: Duration, reason: &str) {
        let Ok(context) = &self.context else { return };
        let listeners: Vec<_> = context.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        let drained = async {
            join_all(listeners.iter().map(|listener| listener.stop())).await;
            let live = context.registry.live().into_iter();
            let live: Vec<_> = live.map(|shared| MsQuicNetConnection { shared }).collect();
            join_all(live.iter().map(|it| it.close(CLOSE_CODE_SHUTDOWN, reason))).await;
        };
        let _ = tokio::time::timeout(deadline, drained).await; // whoever is late is closed below
        let registration = context.registration.registration();
        registration.shutdown(CLOSE_CODE_SHUTDOWN);
        registration.wait_idle().await;
    }

    /// [`connect`](NetTransport::connect) with a name, whose addresses are all tried, another server name, or another
    /// local address than the configuration of the transport says, which does not count here: see [`Dial`].
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
    /// [`ConnectError`]. When the addresses of a name fail for several reasons, it is [`ConnectError::Closed`] with all of
    /// them.
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
        let revocations = context.registry.revocations(); // before anything that takes time
        let configuration = context.client(alpn, &credential)?;
        let local_hash = credential.identity();
        let timeout = context.config.handshake_timeout;
        let handshake =
            |remote_addr| Handshake { remote_addr, local_identity: local_hash, alpn, timeout };
        let registration = context.registration.registration();
        let connect = dial.connect(registration, &configuration, &credential);
        let connection = tokio::time::timeout(timeout, connect)
            .await
            .map_err(|_| match dial.address() {
                Some(remote_addr) => handshake(remote_addr).timed_out(),
                None => ConnectError::Closed(CloseReason::TimedOut),
            })?
            .map_err(|error| match (dial.address(), &error) {
                (Some(remote_addr), error) => handshake(remote_addr).failed(error),
                (None, StartError::NoAddress { errors, .. }) => {
                    let causes = errors.iter().map(|(it, error)| handshake(*it).failed(error));
                    same_kind(causes).unwrap_or_else(|| failed(error.to_string()))
                }
                (None, StartError::InvalidInput(what)) => ConnectError::InvalidInput(what.clone()),
                (None, error) => failed(describe(error)),
            })?;
        let origin = Origin {
            local_hash,
            config: context.config.clone(),
            registry: context.registry.clone(),
            registration: context.registration.clone(),
            place: None,
            revocations,
        };
        let lost = connection.clone();
        MsQuicNetConnection::new(connection, origin).ok_or_else(|| match lost.get_remote_addr() {
            Ok(remote_addr) => handshake(remote_addr).lost(&lost),
            Err(error) => failed(error.to_string()),
        })
    }

    fn context(&self) -> Result<&Context, String> {
        self.context.as_ref().map_err(|status| format!("msquic cannot be started: {status}"))
    }
}

impl Default for MsQuicTransport {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a socket with the address `local` may send to `remote`.
fn reaches(local: SocketAddr, remote: SocketAddr) -> bool {
    let takes_both = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    takes_both || local.is_ipv4() == remote.is_ipv4()
}

/// The first of several errors that are all of one kind.
fn same_kind(mut errors: impl Iterator<Item = ConnectError>) -> Option<ConnectError> {
    let first = errors.next()?;
    errors.all(|error| discriminant(&error) == discriminant(&first)).then_some(first)
}

fn failed(what: String) -> ConnectError {
    ConnectError::Closed(CloseReason::Transport(what))
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
}
