//! `FallbackTransport`: dials with a primary transport, and with a secondary one if the primary is
//! blocked.

mod connection;
mod listener;

pub use connection::{FallbackConnection, FallbackIncomingRequest, FallbackQuestion};
pub use listener::FallbackListener;

use crate::recheck::recheck_trust;
use async_trait::async_trait;
use net_kit::options::TIMEOUT;
use net_kit::revocations::Revocations;
use net_kit::telemetry::{FallbackPath, FallbackTelemetry};
use net_traits::{
    CertHash, CloseReason, ConfigError, ConnectError, ListenError, NetCredential, NetListener,
    NetTransport, RejectionBy, TransportStatistics, TrustPolicy,
};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

net_kit::options! {
    /// How a [`FallbackTransport`] dials.
    ///
    /// ```
    /// use net_peers::FallbackConfig;
    /// use std::time::Duration;
    ///
    /// let config = FallbackConfig::new().delay(Duration::from_millis(500));
    /// assert!(config.validate().is_ok());
    /// assert!(config.delay(Duration::MAX).validate().is_err());
    /// ```
    pub struct FallbackConfig {
        /// How long the primary transport dials before the secondary one does too, at most one day.
        /// Default: 250 ms.
        delay: Duration = Duration::from_millis(250), Duration::ZERO..=*TIMEOUT.end();
    }
}

impl FallbackConfig {
    /// Checks the values of all options, as [`FallbackTransport::with_config`] does.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()
    }
}

/// How many ports are tried to find one that is free in both transports.
const PORTS: usize = 16;

/// Dials with a primary transport and, after a delay, with a secondary one too.
///
/// The first established connection is used, as with Happy Eyeballs (RFC 8305). The default of the
/// [delay](FallbackConfig::delay) is that of RFC 8305, 250 ms. A listener uses both transports, on
/// the same port.
///
/// A dial takes at most the delay plus the secondary transport's handshake timeout, or the primary
/// transport's if that is longer.
///
/// No failure of one transport is final: another program may answer on the same port, and a
/// credential or an address that one transport cannot use may suit the other.
///
/// # Errors of dials
///
/// If both transports fail, `connect` returns the error that tells the caller most specifically
/// what to do, in this order. The telemetry of the dial has both errors.
///
/// 1. a certificate that the peer, or this side, rejects: change the trust of that side;
/// 2. a close by the peer: act by its code;
/// 3. no common protocol: offer another one;
/// 4. a refusal: the host answers, but nothing accepts at that address;
/// 5. no answer, such as a timeout: try again later;
/// 6. an argument or a credential that the transport cannot use, or its shutdown. It ranks last,
///    because the other transport may connect at the next attempt.
///
/// A dial is retryable if the transport with the less specific error may connect at the next
/// attempt, for instance because it was refused. A rejection then has
/// [`is_retryable`](net_traits::Rejection::is_retryable) set, and another final error is returned
/// together with the retryable one, as [`ConnectError::BothFailed`]. A timeout does not make the
/// dial retryable: the network may drop all packets of that transport, and the error of the other
/// one decides.
///
/// Of two errors of equal rank, that of the primary transport is returned.
///
/// ```no_run
/// use net_peers::{FallbackConnection, FallbackTransport};
/// use net_traits::{ConnectError, NetCredential, NetTransport};
/// use std::net::SocketAddr;
///
/// # async fn dial(
/// #     quic: impl NetTransport,
/// #     tcp: impl NetTransport,
/// #     peer: SocketAddr,
/// #     credential: NetCredential,
/// # ) -> Result<(), ConnectError> {
/// let transport = FallbackTransport::new(quic, tcp);
/// match transport.connect(peer, &["chat/1"], credential).await? {
///     FallbackConnection::Primary(_quic) => println!("over QUIC"),
///     FallbackConnection::Secondary(_tcp) => println!("over TCP: is UDP blocked?"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FallbackTransport<P, S> {
    primary: P,
    secondary: S,
    config: FallbackConfig,
    telemetry: Arc<FallbackTelemetry>,
    /// Revocations during a dial: the secondary transport dials later, and does not know earlier
    /// ones.
    revocations: Arc<Mutex<Revocations>>,
}

impl<P: NetTransport, S: NetTransport> FallbackTransport<P, S> {
    /// Dials with the secondary transport. The peer may have been revoked after the first
    /// `revocations`.
    async fn connect_secondary(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
        revocations: u64,
    ) -> Result<S::Connection, ConnectError> {
        let connection = self.secondary.connect(remote_addr, alpn, credential).await?;
        let revoked_by = self.revocations.lock().since(revocations);
        for policy in &revoked_by {
            recheck_trust(&connection, policy)?;
        }
        Ok(connection)
    }

    /// Creates a transport that prefers `primary`, with the default options.
    pub fn new(primary: P, secondary: S) -> Self {
        let telemetry = FallbackTelemetry::new().into();
        let (config, revocations) = (FallbackConfig::new(), Arc::default());
        Self { primary, secondary, config, telemetry, revocations }
    }

    /// Creates a transport that prefers `primary`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an option whose value cannot be used.
    pub fn with_config(
        primary: P,
        secondary: S,
        config: FallbackConfig,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config, ..Self::new(primary, secondary) })
    }

    /// Returns the transport that dials first.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// Returns the secondary transport.
    pub fn secondary(&self) -> &S {
        &self.secondary
    }
}

#[async_trait]
impl<P: NetTransport, S: NetTransport> NetTransport for FallbackTransport<P, S> {
    type Connection = FallbackConnection<P::Connection, S::Connection>;
    type Listener = FallbackListener<P::Listener, S::Listener>;

    /// Listens with both transports, or fails.
    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Listener, ListenError> {
        let mut taken = Vec::new();
        loop {
            let primary = self.primary.create_listener(bind_addr, alpn, credential.clone()).await?;
            let mut address = bind_addr; // an IPv6 address may have a scope
            address.set_port(primary.local_addr().port());
            match self.secondary.create_listener(address, alpn, credential.clone()).await {
                Ok(secondary) => {
                    let credential = Mutex::new(credential);
                    return Ok(FallbackListener { primary, secondary, credential });
                }
                // Another socket uses that port. Keep this listener until the end, so that the
                // system assigns another port next time.
                Err(ListenError::AddressInUse(_))
                    if bind_addr.port() == 0 && taken.len() < PORTS =>
                {
                    taken.push(primary);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Self::Connection, ConnectError> {
        let dialled = |path, primary: Option<&_>, secondary: Option<&_>| {
            self.telemetry.dialled(remote_addr, path, primary, secondary);
        };
        let neither = |primary: ConnectError, secondary: ConnectError| {
            dialled(FallbackPath::Neither, Some(&primary), Some(&secondary));
            combined(primary, secondary)
        };
        let revocations = self.revocations.lock().count();
        let mut primary = pin!(self.primary.connect(remote_addr, alpn, credential.clone()));
        let failed = match timeout(self.config.delay, &mut primary).await {
            Ok(Ok(connection)) => {
                dialled(FallbackPath::Primary, None, None);
                return Ok(FallbackConnection::Primary(connection));
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let mut secondary =
            pin!(self.connect_secondary(remote_addr, alpn, credential, revocations));
        let first = match failed {
            Some(first) => first,
            None => tokio::select! {
                biased;
                connected = &mut primary => match connected {
                    Ok(connection) => {
                        dialled(FallbackPath::PrimaryLate, None, None);
                        return Ok(FallbackConnection::Primary(connection));
                    }
                    Err(first) => first,
                },
                connected = &mut secondary => {
                    let second = match connected {
                        Ok(connection) => {
                            dialled(FallbackPath::SecondaryFirst, None, None);
                            return Ok(FallbackConnection::Secondary(connection));
                        }
                        Err(second) => second,
                    };
                    return match primary.await {
                        Ok(connection) => {
                            dialled(FallbackPath::PrimaryLate, None, Some(&second));
                            Ok(FallbackConnection::Primary(connection))
                        }
                        Err(first) => Err(neither(first, second)),
                    };
                }
            },
        };
        match secondary.await {
            Ok(connection) => {
                dialled(FallbackPath::SecondaryOnly, Some(&first), None);
                Ok(FallbackConnection::Secondary(connection))
            }
            Err(second) => Err(neither(first, second)),
        }
    }

    fn connections(&self) -> Vec<Self::Connection> {
        let primary = self.primary.connections().into_iter().map(FallbackConnection::Primary);
        let secondary = self.secondary.connections().into_iter();
        primary.chain(secondary.map(FallbackConnection::Secondary)).collect()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        self.primary.close_peer(identity, code, reason)
            + self.secondary.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        let forgotten = self.revocations.lock().record(policy.clone());
        drop(forgotten); // after unlocking, since it may contain a verifier of the application
        let (primary, secondary) =
            tokio::join!(self.primary.revoke(policy), self.secondary.revoke(policy));
        primary + secondary
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        tokio::join!(
            self.primary.shutdown(deadline, reason),
            self.secondary.shutdown(deadline, reason),
        );
    }

    /// Returns the sum of both transports.
    fn statistics(&self) -> TransportStatistics {
        self.primary.statistics() + self.secondary.statistics()
    }
}

/// Returns the error of a dial that failed over both transports, see [`FallbackTransport`].
fn combined(primary: ConnectError, secondary: ConnectError) -> ConnectError {
    let (specific, other) =
        if rank(&secondary) > rank(&primary) { (secondary, primary) } else { (primary, secondary) };
    if specific.is_retryable() || !may_connect_later(&other) {
        return specific;
    }
    match specific {
        ConnectError::Rejected(rejection) => rejection.with_retryable(true).into(),
        _ => ConnectError::BothFailed { specific: specific.into(), retryable: other.into() },
    }
}

/// Returns whether the transport may connect at the next attempt. A timeout does not tell.
fn may_connect_later(error: &ConnectError) -> bool {
    let timed_out = matches!(
        error,
        ConnectError::TimedOut { .. } | ConnectError::Closed(CloseReason::TimedOut)
    );
    error.is_retryable() && !timed_out
}

/// Returns how specifically an error tells the caller what to do, see [`FallbackTransport`].
fn rank(error: &ConnectError) -> u8 {
    match error {
        ConnectError::Rejected(rejection) if rejection.by == RejectionBy::Peer => 6,
        ConnectError::Rejected(_) => 5,
        ConnectError::Closed(CloseReason::Peer { .. }) => 4,
        ConnectError::NoCommonAlpn { .. } => 3,
        ConnectError::Refused(_) => 2,
        ConnectError::InvalidInput(_)
        | ConnectError::Credential(_)
        | ConnectError::Closed(CloseReason::Local { .. }) => 0,
        ConnectError::BothFailed { specific, .. } => rank(specific),
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
