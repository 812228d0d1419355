//! `MsQuicTransport`: listens and dials.

use crate::MsQuicTransportConfig;
use crate::certificate;
use crate::connection::MsQuicNetConnection;
use crate::context::{Context, Identity};
use crate::listener::MsQuicListener;
use async_trait::async_trait;
use futures_util::future::join_all;
use msquic_async::ConnectionStartError;
use msquic_async::{Dial, Status};
use net_kit::handshake::Handshake;
use net_kit::telemetry::Origin;
use net_traits::address::destination;
use net_traits::{
    Cause, CertHash, CloseReason, ConfigError, ConnectError, ListenError, NetCredential,
    NetTransport, TransportStatistics, TrustPolicy, close_code,
};
use std::mem::discriminant;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Messages over QUIC, see the [crate's documentation](crate).
///
/// Cloning is cheap. Listeners and connections remain usable after the transport is dropped.
#[derive(Clone, Debug)]
pub struct MsQuicTransport {
    /// If msquic could not be started, its status, with which all operations fail.
    context: Result<Context, Status>,
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
        Self { context: Context::new(config) }
    }

    /// Connects with the options of `dial`: to a host name, with another server name, or from
    /// another local address.
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
        let attempt = context.core.registry.telemetry().attempt(dial.address(), Origin::Dialled);
        attempt.watch(dial_in(context, dial, alpn, credential)).await
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

async fn dial_in(
    context: &Context,
    dial: &Dial,
    alpn: &[&str],
    credential: NetCredential,
) -> Result<MsQuicNetConnection, ConnectError> {
    let registry = &context.core.registry;
    registry.check_open().map_err(ConnectError::Closed)?;
    let revocations = registry.revocations(); // before any operation that waits
    let configuration = context.client(alpn, &credential)?;
    let timeout = context.core.config.handshake_timeout;
    let handshake = |remote_addr| {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        Handshake::new(credential.identity(), remote_addr, alpn, timeout)
    };
    let failed_at = |at, error: &ConnectionStartError| certificate::failed(&handshake(at), error);
    let registration = context.core.registration.registration();
    let connect = dial.connect(registration, &configuration, &credential);
    let connection = registry
        .unless_shut_down(tokio::time::timeout(timeout, connect))
        .await
        .map_err(ConnectError::Closed)?
        .map_err(|_| match dial.address() {
            Some(remote_addr) => handshake(remote_addr).timed_out(),
            None => ConnectError::Closed(CloseReason::TimedOut),
        })?
        .map_err(|error| match (dial.address(), &error) {
            (Some(remote_addr), error) => failed_at(remote_addr, error),
            (None, ConnectionStartError::NoAddress { errors, .. }) => {
                let causes = errors.iter().map(|(it, error)| failed_at(*it, error));
                same_kind(causes).unwrap_or_else(|| failed(Cause::new(error.clone())))
            }
            (None, ConnectionStartError::InvalidInput(what)) => {
                ConnectError::InvalidInput(what.clone())
            }
            (None, error) => failed(Cause::new(error.clone())),
        })?;
    let remote_addr = connection.get_remote_addr().map_err(|error| failed(Cause::new(error)))?;
    let (handshake, ended) = (handshake(remote_addr), connection.clone());
    MsQuicNetConnection::new(connection, &handshake, &context.core, revocations, None)
        .ok_or_else(|| certificate::lost(&handshake, &ended))
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
        let registry = context.core.registry.clone();
        let check_open =
            || registry.check_open().map_err(|reason| ListenError::Transport(Cause::new(reason)));
        check_open()?;
        let configuration = context.server(alpn, &credential)?;
        let identity = Identity { credential, configuration };
        let listener = MsQuicListener::start(context, identity, bind_addr, alpn)?;
        check_open()?; // a shutdown may have begun before the listener was registered
        Ok(listener)
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MsQuicNetConnection, ConnectError> {
        let context = self.context().map_err(failed)?;
        let attempt = context.core.registry.telemetry().attempt(remote_addr, Origin::Dialled);
        let dial = async {
            let remote_addr = destination(remote_addr).map_err(ConnectError::InvalidInput)?;
            dial_in(context, &context.dial(remote_addr), alpn, credential).await
        };
        attempt.watch(dial).await
    }

    fn connections(&self) -> Vec<MsQuicNetConnection> {
        let handles = self.context.iter().flat_map(|context| context.core.registry.handles());
        handles.map(MsQuicNetConnection::of).collect()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        let Ok(context) = &self.context else { return 0 };
        context.core.registry.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        let Ok(context) = &self.context else { return 0 };
        context.forget_tickets();
        context.core.registry.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        let Ok(context) = &self.context else { return };
        let begin = Instant::now();
        let stop = async {
            let listeners = context.listeners();
            join_all(listeners.iter().map(|listener| listener.stop())).await;
        };
        context.core.registry.shutdown(deadline, reason, stop).await;
        let registration = context.core.registration.registration();
        registration.shutdown(close_code::SHUTDOWN);
        // Closing a handshake that the peer does not answer takes seconds.
        let rest = deadline.saturating_sub(begin.elapsed());
        let _ = timeout(rest, registration.wait_idle()).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.context.as_ref().map(|context| context.core.registry.statistics()).unwrap_or_default()
    }
}
