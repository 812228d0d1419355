//! `FallbackTransport`: a primary transport, and a secondary one where the primary is blocked.

use crate::judge::judge_again;
use async_trait::async_trait;
use bytes::Bytes;
use net_kit::options::TIMEOUT;
use net_kit::revocations::Revocations;
use net_kit::telemetry::{FallbackPath, FallbackTelemetry};
use net_traits::{
    AcceptError, CertHash, CertificateDer, CloseOutcome, CloseReason, ConfigError, ConnectError,
    DatagramError, ListenError, NetConnection, NetCredential, NetDatagrams, NetIncomingRequest,
    NetListener, NetQuestion, NetRequests, NetTransport, PeerIdentity, RecvError, RejectionBy,
    RequestError, SendAckedError, SendError, TransportStatistics, TrustPolicy,
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
        /// The head start of the primary transport, at most one day. Default: 250 ms.
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

/// How many ports are tried until one is free in both transports.
const PORTS: usize = 16;

/// Dials with a primary transport and, after a delay, with a secondary one too.
///
/// The first established connection is used, as with Happy Eyeballs (RFC 8305). The delay is the
/// 250 ms of that document unless [set](FallbackConfig::delay). A listener uses both transports, on the
/// same port.
///
/// A dial takes at most the delay plus the secondary transport's handshake timeout.
///
/// The secondary transport is for peers that the primary does not reach. No failure of one transport
/// is final: what answers over it may be another program on the same port, and a credential or an
/// address that one transport cannot use may suit the other.
///
/// # Errors of dials
///
/// If both transports fail, `connect` returns the error on which the caller can act most specifically;
/// the event of the dial has both:
///
/// 1. a certificate that the peer, or this side, rejects: change the trust of that side;
/// 2. a close by the peer: act by its code;
/// 3. no common protocol: offer another one;
/// 4. a refusal: the host answers, but nothing accepts at that address;
/// 5. no answer, such as a timeout: try again later;
/// 6. an argument or a credential that the transport cannot use, or its shutdown. It ranks last, because
///    the other transport may connect at the next attempt.
///
/// Between equal ones it is the error of the primary transport.
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
    /// The secondary transport dials later, and does not know those from before.
    revocations: Arc<Mutex<Revocations>>,
}

impl<P: NetTransport, S: NetTransport> FallbackTransport<P, S> {
    /// Dials with the secondary transport. The peer may have been revoked after the first `revocations`.
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
            judge_again(&connection, policy)?;
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

    /// Returns the secondary one.
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
                // Another socket uses that port. Hold ours until the end, so that the next port
                // differs.
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
            most_specific(primary, secondary)
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
        drop(forgotten); // unlocked: it is the application's
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

/// Returns the error on which the caller can act most specifically, otherwise that of the primary
/// transport.
fn most_specific(primary: ConnectError, secondary: ConnectError) -> ConnectError {
    if rank(&secondary) > rank(&primary) { secondary } else { primary }
}

/// How specifically the caller can act on an error, see [`FallbackTransport`].
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
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{Cause, CredentialError, Rejection};
    use net_traits_test::memory::{MemoryConnection, MemoryIncomingRequest};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[test]
    fn of_two_errors_the_caller_gets_the_one_to_act_on() {
        let remote_addr = SocketAddr::from(([192, 0, 2, 1], 443));
        let closed = |code| CloseReason::Peer { code, reason: String::new() };
        let local = CloseReason::Local { code: 0, reason: String::new() };
        let lost = CloseReason::Transport(Cause::new("lost"));
        let timed_out = ConnectError::TimedOut { remote_addr, after: Duration::from_secs(10) };
        let rejected = |by| ConnectError::Rejected(Rejection::new(by, remote_addr, ""));
        let descending: Vec<(usize, ConnectError)> = [
            vec![rejected(RejectionBy::Peer)],
            vec![rejected(RejectionBy::Us)],
            vec![ConnectError::Closed(closed(1))],
            vec![ConnectError::NoCommonAlpn { remote_addr, offered: Vec::new() }],
            vec![ConnectError::Refused(remote_addr)],
            vec![timed_out, ConnectError::Closed(lost)],
            vec![
                ConnectError::InvalidInput("port 0".to_owned()),
                ConnectError::Credential(CredentialError::NoCertificate),
                ConnectError::Closed(local),
            ],
        ]
        .into_iter()
        .enumerate()
        .flat_map(|(place, errors)| errors.into_iter().map(move |error| (place, error)))
        .collect();
        for (place, primary) in &descending {
            for (other, secondary) in &descending {
                let expected = if other < place { secondary } else { primary };
                let chosen = most_specific(primary.clone(), secondary.clone());
                assert_eq!(&chosen, expected, "{primary} and {secondary}");
            }
        }
    }

    /// A listener that is slow to replace its credential: a change of trust can overtake it.
    #[derive(Debug, Default)]
    struct Slow {
        has_credential: AtomicBool,
        rejects_all: AtomicBool,
    }

    #[async_trait]
    impl NetListener for Slow {
        type Connection = MemoryConnection;
        type IncomingRequest = MemoryIncomingRequest;

        async fn accept(&self) -> Result<MemoryIncomingRequest, AcceptError> {
            Err(AcceptError::Closed)
        }

        fn local_addr(&self) -> SocketAddr {
            ([10, 0, 0, 1], 1).into()
        }

        fn set_credential(&self, _trusts_all: NetCredential) -> Result<(), ListenError> {
            self.has_credential.store(true, Ordering::SeqCst);
            for _ in 0..2_000 {
                if self.rejects_all.load(Ordering::SeqCst) {
                    break;
                }
                thread::yield_now();
            }
            self.rejects_all.store(false, Ordering::SeqCst);
            Ok(())
        }

        fn set_trust(&self, _rejects_all: TrustPolicy) {
            self.rejects_all.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn both_listeners_have_the_same_trust() {
        let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        for _ in 0..5 {
            let (primary, secondary) = Default::default();
            let of_listener = Mutex::new(credential.clone());
            let listener: FallbackListener<Slow, Slow> =
                FallbackListener { primary, secondary, credential: of_listener };
            thread::scope(|scope| {
                scope.spawn(|| listener.set_credential(credential.clone()).unwrap());
                while !listener.secondary.has_credential.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                listener.set_trust(TrustPolicy::reject_all());
            });
            for transport in [&listener.primary, &listener.secondary] {
                assert!(transport.rejects_all.load(Ordering::SeqCst), "the last one to change it");
            }
        }
    }
}

/// A listener over two transports.
#[derive(Debug)]
pub struct FallbackListener<P, S> {
    primary: P,
    secondary: S,
    credential: Mutex<NetCredential>,
}

impl<P: NetListener, S: NetListener> FallbackListener<P, S> {
    /// Returns the listener of the primary transport.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// Returns the secondary one.
    pub fn secondary(&self) -> &S {
        &self.secondary
    }
}

#[async_trait]
impl<P: NetListener, S: NetListener> NetListener for FallbackListener<P, S> {
    type Connection = FallbackConnection<P::Connection, S::Connection>;
    type IncomingRequest = FallbackIncomingRequest<P::IncomingRequest, S::IncomingRequest>;

    async fn accept(&self) -> Result<Self::IncomingRequest, AcceptError> {
        tokio::select! {
            request = self.primary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Primary(request)),
                Err(_) => self.secondary.accept().await.map(FallbackIncomingRequest::Secondary),
            },
            request = self.secondary.accept() => match request {
                Ok(request) => Ok(FallbackIncomingRequest::Secondary(request)),
                Err(_) => self.primary.accept().await.map(FallbackIncomingRequest::Primary),
            },
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.primary.local_addr()
    }

    /// Replaces the credential of both listeners. If the second cannot use it, the first returns to
    /// the one before.
    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let mut current = self.credential.lock(); // until both have it
        self.primary.set_credential(credential.clone())?;
        if let Err(error) = self.secondary.set_credential(credential.clone()) {
            self.primary.set_credential(current.clone())?;
            return Err(error);
        }
        *current = credential;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut credential = self.credential.lock(); // until both have it
        *credential = credential.with_trust(trust.clone());
        self.primary.set_trust(trust.clone());
        self.secondary.set_trust(trust);
    }
}

/// Applies the same expression to both variants.
macro_rules! each {
    ($self:expr, $it:ident => $output:expr) => {
        match $self {
            Self::Primary($it) => $output,
            Self::Secondary($it) => $output,
        }
    };
}

/// A connection attempt over one of two transports.
#[derive(Debug)]
pub enum FallbackIncomingRequest<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetIncomingRequest, S: NetIncomingRequest> NetIncomingRequest
    for FallbackIncomingRequest<P, S>
{
    type Connection = FallbackConnection<P::Connection, S::Connection>;

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn refuse(self, code: u64) {
        each!(self, it => it.refuse(code));
    }

    async fn accept(self) -> Result<Self::Connection, ConnectError> {
        match self {
            Self::Primary(it) => it.accept().await.map(FallbackConnection::Primary),
            Self::Secondary(it) => it.accept().await.map(FallbackConnection::Secondary),
        }
    }
}

/// A connection over one of two transports.
#[derive(Debug, Clone)]
pub enum FallbackConnection<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetConnection, S: NetConnection> NetConnection for FallbackConnection<P, S> {
    fn local_addr(&self) -> SocketAddr {
        each!(self, it => it.local_addr())
    }

    fn remote_addr(&self) -> SocketAddr {
        each!(self, it => it.remote_addr())
    }

    fn local_identity(&self) -> &str {
        each!(self, it => it.local_identity())
    }

    fn remote_identity(&self) -> &str {
        each!(self, it => it.remote_identity())
    }

    fn peer_identity(&self) -> &PeerIdentity {
        each!(self, it => it.peer_identity())
    }

    fn is_trusted(&self) -> bool {
        each!(self, it => it.is_trusted())
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        each!(self, it => it.remote_certificate())
    }

    fn alpn_negotiated(&self) -> &str {
        each!(self, it => it.alpn_negotiated())
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        each!(self, it => it.send(message).await)
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.send_bytes(message).await)
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        each!(self, it => it.send_parts(parts).await)
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        each!(self, it => it.try_send(message))
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        each!(self, it => it.send_acked(message).await)
    }

    async fn flush(&self) -> Result<(), SendError> {
        each!(self, it => it.flush().await)
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        each!(self, it => it.recv().await)
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        each!(self, it => it.close(code, reason).await)
    }

    fn abort(&self, code: u64, reason: &str) {
        each!(self, it => it.abort(code, reason));
    }

    async fn watch_close(&self) -> CloseReason {
        each!(self, it => it.watch_close().await)
    }

    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        each!(self, it => it.datagrams())
    }
}

#[async_trait]
impl<P: NetRequests, S: NetRequests> NetRequests for FallbackConnection<P, S> {
    type Question = FallbackQuestion<P::Question, S::Question>;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        each!(self, it => it.request(question, deadline).await)
    }

    async fn accept_request(&self) -> Result<Self::Question, RequestError> {
        match self {
            Self::Primary(it) => it.accept_request().await.map(FallbackQuestion::Primary),
            Self::Secondary(it) => it.accept_request().await.map(FallbackQuestion::Secondary),
        }
    }
}

/// A question over one of two transports.
#[derive(Debug)]
pub enum FallbackQuestion<P, S> {
    /// Over the primary transport.
    Primary(P),
    /// Over the secondary transport.
    Secondary(S),
}

#[async_trait]
impl<P: NetQuestion, S: NetQuestion> NetQuestion for FallbackQuestion<P, S> {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        each!(self, it => it.question().await)
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        each!(self, it => it.answer(answer).await)
    }

    fn refuse(self, code: u64) {
        each!(self, it => it.refuse(code));
    }

    async fn canceled(&self) {
        each!(self, it => it.canceled().await);
    }
}
