//! A transport that violates one contract, selected by its [`Fault`], and keeps all others.

mod batch;
mod connection;
mod context;
mod datagrams;
mod fault;
mod guards;
mod polled;
mod question;
mod request;
mod shared;

pub(crate) use fault::Fault;

use crate::common::Memory;
use async_trait::async_trait;
use connection::{BrokenConnection, Shared};
use context::Context;
use futures_util::FutureExt;
use net_traits::{
    AcceptError, Cause, CertHash, CloseReason, ConnectError, Limit, ListenError, NetConnection,
    NetCredential, NetListener, NetTransport, TransportStatistics, TrustError, TrustPolicy,
    close_code,
};
use net_traits_test::memory::{MemoryConnection, MemoryListener, MemoryTransport};
use net_traits_test::{Harness, Limits, Path, RawPeer};
use parking_lot::Mutex;
use request::BrokenRequest;
use std::collections::HashSet;
use std::fmt;
use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

/// How many messages [`Fault::QueueCountsMessages`] accepts.
const QUEUE: usize = 250;

/// How many messages [`Fault::OnlyAFewAreKept`] keeps when the connection ends.
const FEW: usize = 12;

/// All codes of behaviours but the largest are below this.
const CODE_LIMIT: u64 = close_code::MAX;

/// Creates transports with one fault.
pub(crate) struct Broken {
    pub(crate) fault: Fault,
    memory: Memory,
    /// The addresses of existing listeners.
    listening: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Broken {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, memory: Memory::default(), listening: Arc::default() }
    }
}

#[async_trait]
impl Harness for Broken {
    type Transport = BrokenTransport;

    fn transport(&self, limits: &Limits) -> BrokenTransport {
        let mut limits = limits.clone();
        if self.fault == Fault::ConnectionsAreUnlimited && limits.max_connections == 2 {
            limits.max_connections = 1000;
        }
        let inner_limits = self.fault.inner_limits(&limits);
        BrokenTransport {
            inner: self.memory.transport(&inner_limits),
            context: Arc::new(Context {
                fault: self.fault,
                limits,
                listening: self.listening.clone(),
                connections: Mutex::default(),
                dropped_revocations: AtomicUsize::new(0),
                tried: AtomicU64::new(0),
            }),
        }
    }

    fn bind_addr(&self) -> SocketAddr {
        self.memory.bind_addr()
    }

    async fn raw_peer(
        &self,
        remote_addr: SocketAddr,
        alpn: &str,
        credential: NetCredential,
    ) -> Box<dyn RawPeer> {
        self.memory.raw_peer(remote_addr, alpn, credential).await
    }

    async fn anonymous_peer(&self, remote_addr: SocketAddr, alpn: &str) {
        self.memory.anonymous_peer(remote_addr, alpn).await;
    }

    async fn path(&self, listener: SocketAddr) -> Box<dyn Path> {
        self.memory.path(listener).await
    }
}

#[derive(Debug)]
pub(crate) struct BrokenTransport {
    inner: MemoryTransport,
    context: Arc<Context>,
}

impl Drop for BrokenTransport {
    fn drop(&mut self) {
        if self.context.fault == Fault::TransportsTakeConnectionsAlong {
            for shared in self.context.live() {
                shared.inner.close(0, "").now_or_never();
            }
        }
    }
}

impl BrokenTransport {
    /// Dials, and keeps the connection open if the future is dropped.
    async fn dial_or_leak(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<MemoryConnection, ConnectError> {
        let (inner, (sender, receiver)) = (self.inner.clone(), oneshot::channel());
        let alpn: Vec<_> = alpn.iter().map(|it| (*it).to_owned()).collect();
        tokio::spawn(async move {
            let alpn: Vec<_> = alpn.iter().map(String::as_str).collect();
            let connected = inner.connect(remote_addr, &alpn, credential).await;
            sender.send(connected).unwrap_or_else(std::mem::forget);
        });
        receiver.await.expect("the task sends its result")
    }
}

#[async_trait]
impl NetTransport for BrokenTransport {
    type Connection = BrokenConnection;
    type Listener = BrokenListener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<BrokenListener, ListenError> {
        self.context.check(&credential)?;
        if self.context.fault == Fault::UnsupportedKeysAreFaultsOfListeners
            && !is_supported(&credential)
        {
            return Err(ListenError::Transport(Cause::new("the key is damaged")));
        }
        let key = credential.private_key().secret_der().to_vec();
        let credential = self.context.credential(credential);
        let inner = self.inner.create_listener(bind_addr, alpn, credential).await;
        let inner = ManuallyDrop::new(inner);
        if self.context.fault == Fault::DroppedListensLeak {
            yield_now().await; // a future that is dropped here leaves the listener open
        }
        let inner = ManuallyDrop::into_inner(inner);
        let inner = inner.map_err(|error| match (self.context.fault, error) {
            (Fault::TakenPortIsAnotherError, ListenError::AddressInUse(_)) => {
                ListenError::Transport(Cause::new("it does not work"))
            }
            (_, error) => error,
        })?;
        self.context.listening.lock().insert(inner.local_addr());
        let context = self.context.clone();
        Ok(BrokenListener { inner: Some(inner), context, turn: Arc::default(), key })
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<BrokenConnection, ConnectError> {
        self.context.check(&credential)?;
        let credential = self.context.credential(credential);
        let failed =
            |what: &'static str| ConnectError::Closed(CloseReason::Transport(Cause::new(what)));
        let is_there = self.context.listening.lock().contains(&remote_addr);
        match self.context.fault {
            Fault::AllAddressesAreIpv6
                if remote_addr.ip() == Ipv4Addr::LOCALHOST && remote_addr.port() > 0 =>
            {
                return Err(ConnectError::Refused(remote_addr));
            }
            Fault::TheUnspecifiedAddressIsRefused if remote_addr.ip().is_unspecified() => {
                return Err(ConnectError::Refused(remote_addr));
            }
            Fault::MulticastAddressesTimeOut if remote_addr.ip().is_multicast() => {
                let after = self.context.limits.handshake_timeout;
                return Err(ConnectError::TimedOut { remote_addr, after });
            }
            _ => {}
        }
        let connected = match self.context.fault {
            Fault::DroppedDialsLeak => self.dial_or_leak(remote_addr, alpn, credential).await,
            _ => self.inner.connect(remote_addr, alpn, credential).await,
        };
        let inner = connected.map_err(|error| match (self.context.fault, error) {
            (Fault::MissingListenerIsAnotherError, ConnectError::Refused(_)) if !is_there => {
                failed("no listener")
            }
            (Fault::NoCommonProtocolIsARefusal, ConnectError::NoCommonAlpn { .. }) => {
                ConnectError::Refused(remote_addr)
            }
            (Fault::NoProtocolIsAnotherError, ConnectError::InvalidInput(_)) if alpn.is_empty() => {
                failed("no")
            }
            (Fault::DiallerForgetsItRejected, ConnectError::Rejected(rejection))
                if matches!(rejection.cause.as_deref(), Some(TrustError::UntrustedIdentity(_))) =>
            {
                failed("not trusted")
            }
            (Fault::HandshakeTimeoutIsNotReported, ConnectError::TimedOut { remote_addr, .. }) => {
                ConnectError::TimedOut { remote_addr, after: Duration::ZERO }
            }
            (Fault::HandshakeTimeoutIsIgnored, ConnectError::TimedOut { remote_addr, .. }) => {
                let after = self.context.limits.handshake_timeout;
                ConnectError::TimedOut { remote_addr, after }
            }
            (_, error) => self.context.falsify(error),
        })?;
        if self.context.fault == Fault::EndedConnectionsAreNotReturned
            && let Some(reason) = inner.watch_close().now_or_never()
        {
            return Err(ConnectError::Closed(reason));
        }
        Ok(self.context.connection(inner))
    }

    fn connections(&self) -> Vec<BrokenConnection> {
        let fault = self.context.fault;
        if fault == Fault::ConnectionsAreNotListed {
            return Vec::new();
        }
        let known = self.context.live();
        let is_listed = |shared: &Arc<Shared>| {
            fault == Fault::EndedConnectionsAreListed
                || shared.inner.watch_close().now_or_never().is_none()
        };
        known.into_iter().filter(is_listed).map(BrokenConnection).collect()
    }

    fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        if self.context.fault == Fault::ClosingAPeerClosesAll {
            for connection in self.connections() {
                connection.abort(code, reason);
            }
        }
        if self.context.fault == Fault::LingeringConnectionsEscape && self.context.live().is_empty()
        {
            return 0;
        }
        self.inner.close_peer(identity, code, reason)
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        match self.context.fault {
            Fault::RevocationsAreIgnored if self.inner.connections().len() > 1 => 1,
            Fault::RevokedMessagesAreHandedOut
            | Fault::RevokedBatchesAreHandedOut
            | Fault::RevokedMessagesAreTried
            | Fault::RevokedDatagramsAreHandedOut
            | Fault::RevokedQuestionsAreHandedOut => {
                for shared in self.context.live() {
                    shared.keep_what_arrived();
                }
                self.inner.revoke(policy).await
            }
            Fault::RevocationsWaitForAClose
                if self.connections().iter().any(|it| it.0.closings.load(Ordering::SeqCst) > 0) =>
            {
                0
            }
            Fault::DroppedRevocationsEndLaterOnes => {
                let revoke = async {
                    yield_now().await;
                    self.inner.revoke(policy).await
                };
                polled::one_at_a_time(&self.context.dropped_revocations, revoke).await
            }
            _ => self.inner.revoke(policy).await,
        }
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        match self.context.fault {
            Fault::ShutdownForgetsListeners => {
                for connection in self.connections() {
                    connection.close(close_code::SHUTDOWN, reason).await;
                }
            }
            Fault::ShutdownClosesConnectionsFirst if reason == "later" => {
                for connection in self.connections() {
                    connection.close(close_code::SHUTDOWN, reason).await;
                }
                self.inner.shutdown(deadline, reason).await;
            }
            Fault::QueueCountsMessages => {
                for connection in self.connections() {
                    let all = u32::try_from(QUEUE).expect("it is small");
                    drop(timeout(deadline, connection.0.room.acquire_many(all)).await);
                }
                self.inner.shutdown(deadline, reason).await;
            }
            Fault::ShutdownForgetsTheReason if reason == "maintenance" => {
                self.inner.shutdown(deadline, "").await;
            }
            Fault::ShutdownIgnoresItsDeadline if reason == "now" => std::future::pending().await,
            Fault::ShutdownWaitsForDials if reason == "dialling" => {
                self.inner.shutdown(deadline, reason).await;
                sleep(Duration::from_secs(3)).await;
            }
            _ => self.inner.shutdown(deadline, reason).await,
        }
    }

    fn statistics(&self) -> TransportStatistics {
        let mut statistics = self.inner.statistics();
        match self.context.fault {
            Fault::TriedMessagesAreNotCounted => {
                let tried = self.context.tried.load(Ordering::SeqCst);
                statistics.messages.messages_sent -= tried;
            }
            Fault::RefusalsAreNotCounted => statistics.refused_connections = 0,
            Fault::EndedConnectionsAreCounted => {
                let known = self.context.connections.lock();
                statistics.connections = known.iter().filter(|it| it.strong_count() > 0).count();
            }
            Fault::EndedConnectionsHoldMemory if self.context.live().is_empty() => {
                statistics.held_bytes += 1;
            }
            Fault::OverlongMessagesAreNotCounted => statistics.refused_messages = 0,
            Fault::UnfinishedMessagesAreNotCounted => statistics.refused_message_timeout = 0,
            Fault::MemoryEndsTheNewest
                if statistics.held_bytes > self.context.limits.max_memory =>
            {
                let (newest, code) = (self.context.live().pop(), Limit::Memory.code());
                let reason = close_code::name(code).unwrap_or_default();
                newest.iter().for_each(|newest| newest.inner.abort(code, reason));
                statistics.refused_memory = 1;
            }
            _ => {}
        }
        statistics
    }
}

pub(crate) struct BrokenListener {
    inner: Option<MemoryListener>,
    context: Arc<Context>,
    /// The handshake in progress, if only one is allowed at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    key: Vec<u8>,
}

impl BrokenListener {
    fn inner(&self) -> &MemoryListener {
        self.inner.as_ref().expect("it exists until the listener is dropped")
    }
}

impl Drop for BrokenListener {
    fn drop(&mut self) {
        let address = self.local_addr();
        self.context.listening.lock().remove(&address);
        if self.context.fault == Fault::ListenersLeak {
            std::mem::forget(self.inner.take());
        }
    }
}

impl fmt::Debug for BrokenListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.context.fault {
            Fault::DebugShowsTheKey => write!(f, "BrokenListener({:?})", self.key),
            _ => f.write_str("BrokenListener"),
        }
    }
}

#[async_trait]
impl NetListener for BrokenListener {
    type Connection = BrokenConnection;
    type IncomingRequest = BrokenRequest;

    async fn accept(&self) -> Result<BrokenRequest, AcceptError> {
        let turn = match self.context.fault {
            Fault::OneHandshakeAtATime => Some(self.turn.clone().lock_owned().await),
            _ => None,
        };
        let accept = self.inner().accept();
        let inner = match self.context.fault {
            Fault::AcceptNeverPauses => unconstrained(accept).await?,
            _ => accept.await?,
        };
        if self.context.fault == Fault::AcceptLosesRequests {
            yield_now().await;
        }
        Ok(BrokenRequest { inner: Some(inner), context: self.context.clone(), _turn: turn })
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner().local_addr()
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        match self.context.fault {
            // An unsupported key belongs to another behaviour.
            Fault::NewCredentialsAreIgnored if is_supported(&credential) => Ok(()),
            _ => self.inner().set_credential(credential),
        }
    }

    fn set_trust(&self, trust: TrustPolicy) {
        if self.context.fault != Fault::NewTrustIsIgnored {
            self.inner().set_trust(trust);
        }
    }
}

fn is_supported(credential: &NetCredential) -> bool {
    let verdict = TrustPolicy::Any.verify(credential.certificate_chain().first());
    !matches!(verdict, Err(TrustError::Unsupported { .. }))
}
