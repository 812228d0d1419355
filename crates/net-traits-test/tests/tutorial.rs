//! The transport of `docs/implementing-a-transport.md`: peers in one process over channels.

use async_trait::async_trait;
use bytes::Bytes;
use net_kit::admission::{Admission, ConnectionLimits, Place, close_reason};
use net_kit::alpn::protocol_names;
use net_kit::coop;
use net_kit::facts::ConnectionFacts;
use net_kit::registry::{Entry, Handle, Member, Registry};
use net_kit::telemetry::Telemetry;
use net_traits::address::destination;
use net_traits::close_code::{self, sent_reason};
use net_traits::{
    AcceptError, Cause, CloseOutcome, CloseReason, ConnectError, ListenError, NetConnection,
    NetCredential, NetIncomingRequest, NetListener, NetRequests, NetTransport, NoQuestion,
    RecvError, Rejection, RejectionBy, RequestError, SendError, TransportStatistics, TrustError,
    TrustPolicy,
};
use net_traits_test::{Harness, Limits};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Capacity of the message queue.
const QUEUE: usize = 64;

/// Capacity of the accept queue.
const BACKLOG: usize = 64;

/// The listeners, by port, with the registries of their transports.
type Ports = Arc<Mutex<HashMap<u16, (Arc<Registry<End>>, mpsc::Sender<Attempt>)>>>;

#[derive(Debug, Clone)]
struct Local {
    ports: Ports,
    limits: Limits,
    registry: Arc<Registry<End>>,
}

/// What a dialler sends to a listener instead of packets.
struct Attempt {
    from: SocketAddr,
    credential: NetCredential,
    alpn: Vec<String>,
    answer: oneshot::Sender<Result<Half, ConnectError>>,
}

/// One half of a new connection.
type Half = (Wire, ConnectionFacts);

/// One end of the channels between two peers.
struct Wire {
    limit: usize,
    outgoing: mpsc::Sender<Bytes>,
    /// Locked by the receiving task; other receivers wait.
    incoming: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
    /// The reason of the end as seen by this end, and by the other end.
    close_reason: watch::Sender<Option<CloseReason>>,
    peer_close_reason: watch::Sender<Option<CloseReason>>,
}

/// One end of a connection. Clones share the end.
#[derive(Clone)]
struct Connection(Handle<End>);

struct End {
    wire: Wire,
    entry: Entry<Self>,
    _place: Option<Place>,
}

#[derive(Debug)]
struct Listener {
    local: Local,
    address: SocketAddr,
    alpn: Vec<String>,
    credential: Arc<Mutex<NetCredential>>,
    attempts: tokio::sync::Mutex<mpsc::Receiver<Attempt>>,
}

struct Request {
    attempt: Attempt,
    place: Place,
    local: Local,
    address: SocketAddr,
    alpn: Vec<String>,
    credential: Arc<Mutex<NetCredential>>,
}

impl Local {
    fn new(ports: Ports, limits: Limits) -> Self {
        let connections = ConnectionLimits {
            connections: limits.max_connections,
            per_ip: 1000,
            per_identity: limits.max_connections_per_identity,
            handshakes: 1000,
            handshakes_per_ip: 1000,
        };
        let telemetry = Telemetry::new("local");
        let registry = Registry::new(Admission::new(connections, telemetry.clone()), telemetry);
        Self { ports, limits, registry }
    }

    /// Wraps a half. `place` is that of an accepted connection.
    fn connection(
        &self,
        (wire, facts): Half,
        place: Option<Place>,
        revocations: u64,
    ) -> Connection {
        let mut close_reason = wire.close_reason.subscribe();
        let handshake = place.as_ref().map(Place::number);
        let make = |entry| End { wire, entry, _place: place };
        let end = self.registry.register(facts, handshake, revocations, make);
        let telemetry = end.entry.telemetry().clone();
        tokio::spawn(async move {
            let reason = close_reason.wait_for(Option::is_some).await;
            if let Some(reason) = reason.ok().and_then(|reason| reason.clone()) {
                telemetry.closed(&reason);
            }
        });
        Connection(end)
    }
}

#[async_trait]
impl NetTransport for Local {
    type Connection = Connection;
    type Listener = Listener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Listener, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let is_open = self.registry.check_open();
        is_open.map_err(|reason| ListenError::Transport(Cause::new(reason)))?;
        let (sender, attempts) = mpsc::channel(BACKLOG);
        let mut ports = self.ports.lock().unwrap();
        let free = || (1..=u16::MAX).find(|port| !ports.contains_key(port));
        let port = match bind_addr.port() {
            0 => free().ok_or(ListenError::AddressInUse(bind_addr))?,
            port if ports.contains_key(&port) => return Err(ListenError::AddressInUse(bind_addr)),
            port => port,
        };
        ports.insert(port, (self.registry.clone(), sender));
        Ok(Listener {
            local: self.clone(),
            address: SocketAddr::new(bind_addr.ip(), port),
            alpn,
            credential: Arc::new(Mutex::new(credential)),
            attempts: attempts.into(),
        })
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Connection, ConnectError> {
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        let remote_addr = destination(remote_addr).map_err(ConnectError::InvalidInput)?;
        self.registry.check_open().map_err(ConnectError::Closed)?;
        let revocations = self.registry.revocations(); // before the handshake
        let refused = || ConnectError::Refused(remote_addr);
        let listener = self.ports.lock().unwrap().get(&remote_addr.port()).cloned();
        let (there, listener) = listener.ok_or_else(refused)?;
        there.check_open().map_err(|_| refused())?;
        let (answer, answered) = oneshot::channel();
        let from = SocketAddr::new(remote_addr.ip(), 0);
        let attempt = Attempt { from, credential, alpn, answer };
        listener.try_send(attempt).map_err(|_| refused())?;
        let after = self.limits.handshake_timeout;
        let answer = async { answered.await.unwrap_or_else(|_| Err(refused())) };
        let half = self.registry.dial(remote_addr, after, answer).await?;
        Ok(self.connection(half, None, revocations))
    }

    fn connections(&self) -> Vec<Connection> {
        self.registry.handles().into_iter().map(Connection).collect()
    }

    async fn revoke(&self, policy: &TrustPolicy) -> usize {
        self.registry.revoke(policy).await
    }

    async fn shutdown(&self, deadline: Duration, reason: &str) {
        // `accept` watches the registry, so there is nothing else to stop.
        self.registry.shutdown(deadline, reason, async {}).await;
    }

    fn statistics(&self) -> TransportStatistics {
        self.registry.statistics()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.local.ports.lock().unwrap().remove(&self.address.port());
    }
}

#[async_trait]
impl NetListener for Listener {
    type Connection = Connection;
    type IncomingRequest = Request;

    async fn accept(&self) -> Result<Request, AcceptError> {
        let registry = &self.local.registry;
        let mut attempts = self.attempts.lock().await;
        loop {
            let attempt = tokio::select! {
                () = registry.shut_down() => return Err(AcceptError::Closed),
                attempt = attempts.recv() => attempt.ok_or(AcceptError::Closed)?,
            };
            // Beyond a limit the attempt is dropped, which refuses it.
            if let Ok(place) = registry.admission().admit(attempt.from) {
                return Ok(Request {
                    attempt,
                    place,
                    local: self.local.clone(),
                    address: self.address,
                    alpn: self.alpn.clone(),
                    credential: self.credential.clone(),
                });
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        *self.credential.lock().unwrap() = credential;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut credential = self.credential.lock().unwrap();
        *credential = credential.with_trust(trust);
    }
}

#[async_trait]
impl NetIncomingRequest for Request {
    type Connection = Connection;

    fn remote_addr(&self) -> SocketAddr {
        self.attempt.from
    }

    fn refuse(self, _code: u64) {}

    async fn accept(mut self) -> Result<Connection, ConnectError> {
        // In this order: a revocation that this misses changed the credential before.
        let revocations = self.local.registry.revocations();
        let credential = self.credential.lock().unwrap().clone();
        let (answer, result) = match self.handshake(&credential) {
            Ok([dialled, accepted]) => (Ok(dialled), Ok(accepted)),
            Err([answer, error]) => (Err(answer), Err(error)),
        };
        // The dialler may have cancelled; then its half is dropped here, and closes.
        let _ = self.attempt.answer.send(answer);
        let half = result?;
        self.place.complete().map_err(|limit| ConnectError::Closed(close_reason(limit)))?;
        Ok(self.local.connection(half, Some(self.place), revocations))
    }
}

impl Request {
    /// Returns the halves of a new connection, or the errors of the dialler and the listener.
    #[expect(clippy::result_large_err, reason = "it is created once")]
    fn handshake(&self, credential: &NetCredential) -> Result<[Half; 2], [ConnectError; 2]> {
        let Self { attempt, address, alpn, local, .. } = self;
        // The listener may have the unspecified address.
        let both = [SocketAddr::new(attempt.from.ip(), address.port()), attempt.from];
        let Some(alpn) = alpn.iter().find(|name| attempt.alpn.contains(name)) else {
            let none = |remote_addr, offered: &[String]| ConnectError::NoCommonAlpn {
                remote_addr,
                offered: offered.to_vec(),
            };
            return Err([none(both[0], &attempt.alpn), none(both[1], alpn)]);
        };
        let judge = |judge: &NetCredential, shown: &NetCredential| {
            judge.trust().verify(shown.certificate_chain().first())
        };
        let listener = judge(&attempt.credential, credential).map_err(|error| {
            [
                rejection(RejectionBy::Us, both[0], &error),
                rejection(RejectionBy::Peer, both[1], &error),
            ]
        })?;
        let dialler = judge(credential, &attempt.credential).map_err(|error| {
            [
                rejection(RejectionBy::Peer, both[0], &error),
                rejection(RejectionBy::Us, both[1], &error),
            ]
        })?;

        let (there, from_dialler) = mpsc::channel(QUEUE);
        let (back, from_listener) = mpsc::channel(QUEUE);
        let (over_at_dialler, over_at_listener) =
            (watch::Sender::default(), watch::Sender::default());
        let wire = |outgoing, incoming: mpsc::Receiver<Bytes>, ends: [&watch::Sender<_>; 2]| Wire {
            limit: local.limits.max_message_size,
            outgoing,
            incoming: incoming.into(),
            close_reason: ends[0].clone(),
            peer_close_reason: ends[1].clone(),
        };
        let facts =
            |addresses: [SocketAddr; 2], own: &NetCredential, other: &NetCredential, peer| {
                let (identity, certificate) =
                    (own.identity(), other.certificate_chain()[0].clone());
                let [from, to] = addresses;
                ConnectionFacts::new(from, to, identity, peer, Some(certificate), alpn.clone())
            };
        Ok([
            (
                wire(there, from_listener, [&over_at_dialler, &over_at_listener]),
                facts([both[1], both[0]], &attempt.credential, credential, listener),
            ),
            (
                wire(back, from_dialler, [&over_at_listener, &over_at_dialler]),
                facts(both, credential, &attempt.credential, dialler),
            ),
        ])
    }
}

fn rejection(by: RejectionBy, remote_addr: SocketAddr, error: &TrustError) -> ConnectError {
    match by {
        RejectionBy::Us => Rejection::by_policy(remote_addr, error.clone()).into(),
        RejectionBy::Peer => {
            let rejection = Rejection::new(by, remote_addr, error.to_string());
            rejection.with_identity(error.identity()).into()
        }
    }
}

impl Wire {
    /// Ends the connection on both sides, and returns whether it did; the first end counts.
    fn end(&self, code: u64, reason: &str) -> bool {
        let set = |end: &watch::Sender<Option<CloseReason>>, reason: CloseReason| {
            end.send_if_modified(|before| before.is_none() && before.replace(reason).is_none())
        };
        let is_first =
            set(&self.close_reason, CloseReason::Local { code, reason: reason.to_owned() });
        if is_first {
            let (code, reason) = (code.min(close_code::MAX), sent_reason(reason));
            set(&self.peer_close_reason, CloseReason::Peer { code, reason });
        }
        is_first
    }

    async fn ended(&self) -> CloseReason {
        let mut close_reason = self.close_reason.subscribe();
        let reason = close_reason.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or(CloseReason::TimedOut) // the sender lives as long as `self`
    }

    fn check(&self, message: &Bytes) -> Result<(), SendError> {
        if let Some(reason) = &*self.close_reason.borrow() {
            return Err(SendError::Closed(reason.clone()));
        }
        let (size, limit) = (message.len(), self.limit);
        if size > limit { Err(SendError::TooLarge { size, limit }) } else { Ok(()) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end(0, "");
    }
}

impl Member for End {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn has_ended(&self) -> bool {
        self.wire.close_reason.borrow().is_some()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.wire.end(code, reason);
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        self.wire.end(code, reason); // queued messages are already at the peer
        CloseOutcome::Delivered
    }
}

#[async_trait]
impl NetConnection for Connection {
    net_kit::facts_getters!(0.entry.facts());

    fn is_trusted(&self) -> bool {
        self.0.entry.is_trusted()
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        coop::spend().await;
        self.0.wire.check(&message)?;
        tokio::select! {
            biased;
            reason = self.0.wire.ended() => Err(SendError::Closed(reason)),
            // Cancel-safe: wait for a slot first, then send without waiting.
            place = self.0.wire.outgoing.reserve() => match place {
                Ok(place) => {
                    self.0.entry.sent(message.len());
                    place.send(message);
                    Ok(())
                }
                Err(_) => Err(SendError::Closed(self.0.wire.ended().await)),
            },
        }
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        self.0.wire.check(&message)?;
        let place = self.0.wire.outgoing.try_reserve().map_err(|_| SendError::WouldBlock)?;
        self.0.entry.sent(message.len());
        place.send(message);
        Ok(())
    }

    async fn flush(&self) -> Result<(), SendError> {
        coop::spend().await;
        Ok(()) // queued messages are already at the peer
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let mut incoming = self.0.wire.incoming.lock().await;
        let received = tokio::select! {
            biased;
            // First received messages, then the end. Dropping the other end closes the channel.
            Some(message) = incoming.recv() => Ok((message, Duration::ZERO)),
            // Both may have arrived after the first check.
            reason = self.0.wire.ended() => match incoming.try_recv() {
                Ok(message) => Ok((message, Duration::ZERO)),
                Err(_) => Err(RecvError::Closed(reason)),
            },
        };
        self.0.entry.hand_out(received)
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        match self.0.wire.end(code, reason) {
            true => CloseOutcome::Delivered,
            false => CloseOutcome::AlreadyClosed(self.0.wire.ended().await),
        }
    }

    fn abort(&self, code: u64, reason: &str) {
        self.0.wire.end(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        self.0.wire.ended().await
    }
}

#[async_trait]
impl NetRequests for Connection {
    type Question = NoQuestion;

    async fn request(&self, _: Bytes, _: Duration) -> Result<Bytes, RequestError> {
        Err(RequestError::Unsupported)
    }

    async fn accept_request(&self) -> Result<NoQuestion, RequestError> {
        Err(RequestError::Unsupported)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.entry.facts().debug("Connection", f)
    }
}

#[derive(Default)]
struct InOneProcess(Ports);

impl Harness for InOneProcess {
    type Transport = Local;

    fn transport(&self, limits: &Limits) -> Local {
        Local::new(self.0.clone(), limits.clone())
    }
}

net_traits_test::conformance!(
    InOneProcess::default(),
    without: [raw_peer, anonymous_peer, requests, receipts, timeouts, datagrams, path],
);
