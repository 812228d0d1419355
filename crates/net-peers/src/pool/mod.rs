//! `PeerPool`: connections by identity, dialled on demand and redialled when they break.

mod config;
mod peers;

pub use config::{DropError, PeerEvent, PeerPoolConfig, QueueError};

use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{
    Cause, CertHash, CertificateDer, CloseReason, ConnectError, NetConnection, NetCredential,
    NetTransport, PeerIdentity, PeerVerifier, Rejection, SendError, TrustPolicy, close_code,
};
use parking_lot::{Mutex, RwLock};
use peers::{AbortOnDrop, Dial, Peer, Peers, Pooled, Queue};
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, sleep_until, timeout};

/// Capacity of the event queue.
const EVENTS: usize = 1024;

/// How long an empty message queue is kept.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a redundant connection stays open, so that both sides can switch.
const LOSER_PATIENCE: Duration = Duration::from_secs(5);

/// Connections by identity, dialled on demand with backoff and redialled when they break.
///
/// Concurrent callers for the same peer share one dial. If two peers dial each other at the same
/// time, both send on the connection that the peer with the smaller identity dialled. Otherwise the
/// newer connection is used. The side that dialled the redundant connection closes it after 5 s
/// with [`DUPLICATE`](close_code::DUPLICATE); until then both sides should receive from it.
///
/// Cloning is cheap. When the last clone is dropped, the tasks end, the connections are closed at
/// once, and queued messages are dropped without a report.
pub struct PeerPool<T: NetTransport> {
    owner: Arc<Owner<T>>,
}

impl<T: NetTransport> Clone for PeerPool<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone() }
    }
}

/// Held by the handles only, so that dropping the last one ends the tasks.
struct Owner<T: NetTransport>(Arc<Inner<T>>);

impl<T: NetTransport> Drop for Owner<T> {
    fn drop(&mut self) {
        let peers = self.0.peers.lock().close();
        peers.into_values().for_each(close_all);
    }
}

struct Inner<T: NetTransport> {
    transport: T,
    alpn: Vec<String>,
    credential: RwLock<NetCredential>,
    config: PeerPoolConfig,
    events: mpsc::Sender<PeerEvent<T::Connection>>,
    peers: Mutex<Peers<T::Connection>>,
    /// Notified when a connection is inserted.
    inserted: Notify,
}

/// A connection and its id in the pool.
struct Found<C> {
    id: u64,
    connection: C,
}

impl<T: NetTransport> PeerPool<T> {
    /// Creates a pool that dials with `transport` and `credential`, and the receiver of its events.
    ///
    /// Receive the events or drop the receiver. Up to 1024 events are queued, with the connections
    /// that they contain; further ones are discarded.
    ///
    /// A peer must have the requested identity, and the policy of `credential` must trust it.
    /// Listeners whose connections are [inserted](Self::insert) must use the same certificate.
    pub fn new(
        transport: T,
        alpn: &[&str],
        credential: NetCredential,
        config: PeerPoolConfig,
    ) -> (Self, mpsc::Receiver<PeerEvent<T::Connection>>) {
        let (events, received) = mpsc::channel(EVENTS);
        let inner = Inner {
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            credential: RwLock::new(credential),
            config,
            events,
            peers: Mutex::new(Peers::new()),
            inserted: Notify::new(),
        };
        (Self { owner: Arc::new(Owner(Arc::new(inner))) }, received)
    }

    /// Replaces the certificate and the trust policy for dials that begin later.
    pub fn set_credential(&self, credential: NetCredential) {
        let before = std::mem::replace(&mut *self.owner.0.credential.write(), credential);
        drop(before);
    }

    /// Returns the connection with `peer`, dialling `address` once if there is none.
    ///
    /// There is no backoff before the attempt. The peer that answers must have the identity `peer`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`InvalidInput`](ConnectError::InvalidInput) if `peer` is this node.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the attempt continues and its connection is added to the pool.
    pub async fn connection(
        &self,
        peer: CertHash,
        address: SocketAddr,
    ) -> Result<T::Connection, ConnectError> {
        let inner = &self.owner.0;
        if inner.is_own(peer) {
            return Err(ConnectError::InvalidInput("the peer is this node".to_owned()));
        }
        inner.connection(peer, None, address).await.map(|found| found.connection)
    }

    /// Adds an accepted connection to the pool, which then sends on it.
    ///
    /// The caller continues to receive from it. Insert it immediately: which of two connections is
    /// used depends on their order.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn insert(&self, connection: T::Connection) {
        let inner = &self.owner.0;
        let peer = connection.peer_identity().hash;
        if !inner.is_own(peer) {
            let _ = inner.insert(connection, None); // if it has ended, its receiver learns that
        }
    }

    /// Queues `message` for `peer` and dials the most recent `address` as often as needed.
    ///
    /// A message is sent at most once: those that a broken connection had queued may be lost, see
    /// [`PeerEvent::Disconnected`]. Messages of one connection keep their order.
    ///
    /// # Errors
    ///
    /// [`QueueError`]: nothing was queued.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn send(
        &self,
        peer: CertHash,
        address: SocketAddr,
        message: Bytes,
    ) -> Result<(), QueueError> {
        let inner = &self.owner.0;
        let (size, limit) = (message.len(), inner.config.max_queued_bytes);
        if size > limit {
            return Err(QueueError::TooLarge { size, limit });
        }
        if inner.is_own(peer) {
            return Err(QueueError::OwnIdentity);
        }
        // Locked until the message is queued, because an idle queue is removed.
        let mut peers = inner.peers.lock();
        let Some(entry) = peers.entry(peer) else { return Err(QueueError::Full) };
        entry.address = Some(address);
        let id = entry.id;
        let start = || {
            let places = inner.config.max_queued_messages.clamp(1, Semaphore::MAX_PERMITS);
            let (messages, received) = mpsc::channel(places);
            let bytes = Arc::new(AtomicUsize::new(0));
            let task = deliver(inner.clone(), peer, id, received, bytes.clone());
            let task = AbortOnDrop(tokio::spawn(task).abort_handle());
            Queue { messages, bytes, _task: task }
        };
        let queue = match &mut entry.queue {
            Some(queue) if !queue.messages.is_closed() => queue,
            queue => queue.insert(start()),
        };
        let add = |bytes: usize| bytes.checked_add(size).filter(|sum| *sum <= limit);
        queue
            .bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add)
            .map_err(|_| QueueError::Full)?;
        queue.messages.try_send(message).map_err(|_| {
            queue.bytes.fetch_sub(size, Ordering::SeqCst);
            QueueError::Full
        })
    }

    /// Removes `peer`: drops its queued messages, cancels its dial, and closes its connections at
    /// once.
    pub fn remove(&self, peer: CertHash) {
        let removed = self.owner.0.peers.lock().remove(peer);
        removed.into_iter().for_each(close_all);
    }
}

impl<T: NetTransport> Inner<T> {
    fn is_own(&self, peer: CertHash) -> bool {
        self.credential.read().identity() == peer
    }

    /// Returns the connection with a peer, dialling once if there is none. With `id`, only while
    /// the entry has that id.
    async fn connection(
        self: &Arc<Self>,
        peer: CertHash,
        id: Option<u64>,
        address: SocketAddr,
    ) -> Result<Found<T::Connection>, ConnectError> {
        let mut dialled = None;
        loop {
            let mut inserted = pin!(self.inserted.notified());
            inserted.as_mut().enable();
            let (current, dial) = {
                let mut peers = self.peers.lock();
                let entry = match id {
                    Some(id) => peers.same(peer, id),
                    None => peers.entry(peer),
                };
                let entry = entry.ok_or_else(gone)?;
                match &entry.current {
                    Some(it) => {
                        (Some(Found { id: it.id, connection: it.connection.clone() }), None)
                    }
                    None if dialled.is_some() => (None, None),
                    None => (None, Some(self.dial(entry, peer, address))),
                }
            };
            match (current, dial) {
                (Some(found), _) => match found.connection.watch_close().now_or_never() {
                    None => return Ok(found),
                    Some(reason) => self.ended(peer, found.id, reason),
                },
                (None, Some(dial)) => tokio::select! {
                    result = dial => match result {
                        Ok(connection) => dialled = Some(connection),
                        // The peer may have connected meanwhile.
                        Err(_) if self.has_current(peer) => {}
                        Err(error) => return Err(error),
                    },
                    () = inserted => {}
                },
                // The dialled connection has left the pool. If it has ended, report its reason.
                (None, None) => {
                    let over =
                        dialled.and_then(|connection| connection.watch_close().now_or_never());
                    return Err(over.map_or_else(gone, closed));
                }
            }
        }
    }

    fn has_current(&self, peer: CertHash) -> bool {
        self.peers.lock().get(peer).is_some_and(|entry| entry.current.is_some())
    }

    /// Returns the attempt in progress, or starts one.
    fn dial(
        self: &Arc<Self>,
        entry: &mut Peer<T::Connection>,
        peer: CertHash,
        address: SocketAddr,
    ) -> Dial<T::Connection> {
        match &entry.dial {
            // A finished attempt belongs to a runtime that was shut down.
            Some((going, _)) if going.peek().is_none() => going.clone(),
            _ => {
                // A separate task, so that the attempt continues if its waiters are dropped.
                let attempt = tokio::spawn(attempt(self.clone(), peer, entry.id, address));
                let task = AbortOnDrop(attempt.abort_handle());
                let result = attempt.map(|result| result.unwrap_or_else(|_| Err(gone())));
                let dial = result.boxed().shared();
                entry.dial = Some((dial.clone(), task));
                dial
            }
        }
    }

    /// Inserts a connection unless it has ended, so that it does not replace an open one. A
    /// connection of an attempt is inserted only while its entry has the id `attempt`, and is
    /// reported.
    fn insert(
        self: &Arc<Self>,
        connection: T::Connection,
        attempt: Option<u64>,
    ) -> Result<(), CloseReason> {
        if let Some(reason) = connection.watch_close().now_or_never() {
            return Err(reason);
        }
        let peer = connection.peer_identity().hash;
        let ours_stays = self.credential.read().identity() < peer;
        let (left, dial) = {
            let mut peers = self.peers.lock();
            let id = peers.next_id();
            let entry = match attempt {
                None => peers.entry(peer),
                Some(id) => peers.same(peer, id),
            };
            let Some(entry) = entry else { return Ok(()) };
            if attempt.is_some() {
                // Report it before its end can be reported.
                self.tell(PeerEvent::Connected { peer, connection: connection.clone() });
            }
            let watch = tokio::spawn(watch(self.clone(), peer, id, connection.clone()));
            let watch = AbortOnDrop(watch.abort_handle());
            let new = Pooled::new(id, connection, attempt.is_some(), watch);
            let (retired, left) = entry.take_in(new, ours_stays);
            if let Some(loser) = retired {
                // If both sides retire a connection, they must not do so at the same time. The
                // later side finds that its connection is the only one left, and keeps it.
                let patience = if ours_stays { 2 * LOSER_PATIENCE } else { LOSER_PATIENCE };
                tokio::spawn(retire(Arc::downgrade(self), peer, loser, patience));
            }
            // Clear `dial` while inserting, so that later callers do not join a finished attempt.
            (left, attempt.and_then(|_| entry.dial.take()))
        };
        drop(dial); // the attempt's own task, which has nothing left to await
        if let Some(left) = left {
            tokio::spawn(close_loser(self.events.clone(), peer, left));
        }
        self.inserted.notify_waiters();
        Ok(())
    }

    /// The peer may have been revoked by a change of the credential during the handshake.
    fn judge_again(&self, connection: &T::Connection) -> Result<(), ConnectError> {
        let trust = self.credential.read().trust().clone();
        let Some(certificate) = connection.remote_certificate() else { return Ok(()) };
        trust.verify(Some(&certificate)).map(|_| ()).map_err(|error| {
            let _ = connection.close(close_code::REVOKED, "no longer trusted").now_or_never();
            Rejection::by_policy(connection.remote_addr(), error).into()
        })
    }

    /// Removes a connection that has ended.
    fn ended(&self, peer: CertHash, id: u64, reason: CloseReason) {
        let ended = {
            let mut peers = self.peers.lock();
            let Some(entry) = peers.get(peer) else { return };
            let Some(ended) = entry.take_out(id) else { return };
            let by_peer = !matches!(reason, CloseReason::Local { .. });
            entry.ended(&ended, by_peer, |failed| self.config.delay(failed));
            peers.tidy(peer);
            ended
        };
        self.tell(PeerEvent::Disconnected { peer, reason });
        drop(ended); // last: this may abort the current task
    }

    fn tell(&self, event: PeerEvent<T::Connection>) {
        let _ = self.events.try_send(event); // the receiver may be dropped or full
    }
}

/// Removes a connection from the pool when it ends.
async fn watch<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    connection: T::Connection,
) {
    let reason = connection.watch_close().await;
    tracing::debug!(%reason, "a connection of the pool ended");
    inner.ended(peer, id, reason);
}

/// Closes a redundant connection after a delay, unless it is then the only one.
async fn retire<T: NetTransport>(
    inner: Weak<Inner<T>>,
    peer: CertHash,
    loser: u64,
    patience: Duration,
) {
    sleep(patience).await;
    let Some(inner) = inner.upgrade() else { return };
    let loser = {
        let mut peers = inner.peers.lock();
        peers.get(peer).and_then(|entry| entry.take_spare(loser))
    };
    let events = inner.events.clone();
    drop(inner);
    if let Some(loser) = loser {
        close_loser(events, peer, loser).await;
    }
}

/// Closes a connection that is no longer used, and reports its end.
async fn close_loser<C: NetConnection>(
    events: mpsc::Sender<PeerEvent<C>>,
    peer: CertHash,
    loser: Pooled<C>,
) {
    let close = loser.connection.close(close_code::DUPLICATE, "another connection is used");
    let _ = timeout(LOSER_PATIENCE, close).await; // after that it closes at once
    let reason = loser.connection.watch_close().await;
    let _ = events.try_send(PeerEvent::Disconnected { peer, reason });
}

/// Closes the connections of a removed peer.
fn close_all<C: NetConnection>(peer: Peer<C>) {
    for connection in peer.connections() {
        // Dropping the future closes at once.
        let _ = connection.close(0, "removed from the pool").now_or_never();
    }
}

fn closed(reason: CloseReason) -> ConnectError {
    match reason {
        CloseReason::Rejected(rejection) => rejection.into(),
        reason => ConnectError::Closed(reason),
    }
}

fn gone() -> ConnectError {
    ConnectError::Closed(CloseReason::Transport(Cause::new("the peer was removed from the pool")))
}

/// Performs one dial attempt.
async fn attempt<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    address: SocketAddr,
) -> Result<T::Connection, ConnectError> {
    let alpn: Vec<_> = inner.alpn.iter().map(String::as_str).collect();
    let credential = inner.credential.read().clone();
    let expecting = TrustPolicy::custom(Expecting { peer, policy: credential.trust().clone() });
    let credential = credential.with_trust(expecting);
    let connected = inner.transport.connect(address, &alpn, credential).await;
    let result = connected.and_then(|connection| {
        inner.judge_again(&connection)?;
        inner.insert(connection.clone(), Some(id)).map_err(closed)?;
        Ok(connection)
    });
    if result.is_err() {
        let mut peers = inner.peers.lock();
        let dial = peers.same(peer, id).and_then(|entry| {
            entry.failed(|failed| inner.config.delay(failed));
            entry.dial.take()
        });
        peers.tidy(peer);
        drop(peers);
        drop(dial); // this task's own, which ends here
    }
    result
}

/// Trusts one peer, if the pool's policy trusts it too.
struct Expecting {
    peer: CertHash,
    policy: TrustPolicy,
}

impl PeerVerifier for Expecting {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash != self.peer {
            return Err(format!("identity {} was expected", self.peer));
        }
        self.policy.verify(Some(certificate)).map(|_| ()).map_err(|error| error.to_string())
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }
}

/// Sends the queued messages of a peer, one after the other.
async fn deliver<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    mut messages: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
) {
    loop {
        let message = match timeout(QUEUE_PATIENCE, messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return, // the peer was removed, or the pool was dropped
            Err(_) => {
                let mut peers = inner.peers.lock();
                if messages.is_empty() {
                    let queue = peers.same(peer, id).and_then(|entry| entry.queue.take());
                    peers.tidy(peer);
                    drop(peers);
                    return drop(queue); // this task's own, which ends here
                }
                continue;
            }
        };
        let size = message.len();
        let sent = send_insistently(&inner, peer, id, message).await;
        bytes.fetch_sub(size, Ordering::SeqCst);
        let Err(error) = sent else { continue };
        let mut dropped = 1;
        // A message that is too long is dropped alone; if the peer is unreachable, all are dropped.
        if !matches!(error, DropError::Send(SendError::TooLarge { .. })) {
            while let Ok(message) = messages.try_recv() {
                bytes.fetch_sub(message.len(), Ordering::SeqCst);
                dropped += 1;
            }
        }
        inner.tell(PeerEvent::Dropped { peer, messages: dropped, error });
    }
}

async fn send_insistently<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    message: Bytes,
) -> Result<(), DropError> {
    let mut failed = 0;
    loop {
        let mut inserted = pin!(inner.inserted.notified());
        inserted.as_mut().enable();
        let (address, pause) = {
            let mut peers = inner.peers.lock();
            let entry = peers.same(peer, id).ok_or_else(gone)?;
            (entry.address.ok_or_else(gone)?, entry.pause())
        };
        if let Some(until) = pause {
            tokio::select! {
                () = sleep_until(until) => {}
                () = inserted => {} // possibly of this peer
            }
            continue;
        }
        let (is_retryable, error) = match inner.connection(peer, Some(id), address).await {
            Err(error) => (error.is_retryable(), DropError::from(error)),
            Ok(Found { id, connection }) => match connection.send_bytes(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ SendError::TooLarge { .. }) => return Err(error.into()),
                Err(error) => {
                    if let SendError::Closed(reason) = &error {
                        inner.ended(peer, id, reason.clone());
                    }
                    (may_go_elsewhere(&error), error.into())
                }
            },
        };
        failed += 1;
        if !is_retryable || failed >= inner.config.max_attempts {
            return Err(error);
        }
    }
}

/// Whether sending may succeed on another connection. A local close says nothing about the peer,
/// unless it was a revocation or a shutdown.
fn may_go_elsewhere(error: &SendError) -> bool {
    match error {
        SendError::Closed(CloseReason::Local { code, .. }) => {
            ![close_code::REVOKED, close_code::SHUTDOWN].contains(code)
        }
        error => error.is_retryable(),
    }
}

impl<T: NetTransport> fmt::Debug for PeerPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool").field("peers", &self.owner.0.peers.lock().len()).finish()
    }
}
