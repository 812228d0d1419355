//! `PeerPool`: connections by identity, dialled when needed and again when they break.

mod config;
mod peers;

pub use config::{DropError, PeerEvent, PeerPoolConfig, QueueError};

use crate::transport::{CLOSE_CODE_REVOKED, CLOSE_CODE_SHUTDOWN};
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{
    CertHash, CertificateDer, CloseReason, ConnectError, NetConnection, NetCredential,
    NetTransport, PeerIdentity, PeerVerifier, Rejection, SendError, TrustPolicy,
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

/// The code that closes the loser of two connections between the same two peers.
pub const CLOSE_CODE_DUPLICATE: u64 = 0x6e65_7407;

/// How many events wait to be looked at.
const EVENTS: usize = 1024;

/// How long an empty queue is kept.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// How long the loser of two stays open, until both sides use the other one.
const LOSER_PATIENCE: Duration = Duration::from_secs(5);

/// Connections by identity: dialled when needed, with growing pauses, and again when they break.
///
/// Callers that want the same peer at the same time share one dial. When two peers dial each other at the same time, both
/// send on the same one of the two connections: that which the peer with the smaller identity dialled. Otherwise the newer
/// one is used. Whoever dialled the loser closes it after 5 s with [`CLOSE_CODE_DUPLICATE`], and both sides should take
/// messages from it until then.
///
/// Cloning is cheap. When the last clone is dropped, its tasks end, its connections are closed at once, and messages that
/// still wait are dropped without a report.
pub struct PeerPool<T: NetTransport> {
    owner: Arc<Owner<T>>,
}

impl<T: NetTransport> Clone for PeerPool<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone() }
    }
}

/// Held by the handles alone: the tasks end with it.
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
    /// Notified when there is another connection.
    inserted: Notify,
}

/// A connection, and what the pool calls it.
struct Found<C> {
    id: u64,
    connection: C,
}

impl<T: NetTransport> PeerPool<T> {
    /// A pool that dials with `transport` and `credential`, and what happens to its peers. Take the events or drop the
    /// receiver: 1024 events wait, with the connections that they carry, and further ones are not told.
    ///
    /// A peer has to have the identity that is asked for, and the policy of `credential` has to trust it. Listeners
    /// whose connections are [inserted](Self::insert) have to show the same certificate.
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

    /// Shows another certificate and trusts others from now on, in dials that begin after this.
    pub fn set_credential(&self, credential: NetCredential) {
        let before = std::mem::replace(&mut *self.owner.0.credential.write(), credential);
        drop(before);
    }

    /// The connection with `peer`, dialled at `address` if there is none: one attempt, without a pause. Whoever answers
    /// has to have that identity.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`InvalidInput`](ConnectError::InvalidInput) when it is the identity of this node.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the attempt goes on, and its connection is in the pool then.
    pub async fn connection(
        &self,
        peer: CertHash,
        address: SocketAddr,
    ) -> Result<T::Connection, ConnectError> {
        let inner = &self.owner.0;
        if inner.is_own(peer) {
            return Err(ConnectError::InvalidInput("that is this node itself".to_owned()));
        }
        inner.connection(peer, None, address).await.map(|found| found.connection)
    }

    /// Takes a connection that the peer dialled into the pool, to send on it. The caller goes on receiving from it. Do it
    /// at once: which of two connections is used depends on when they came.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio.
    pub fn insert(&self, connection: T::Connection) {
        let inner = &self.owner.0;
        let peer = connection.peer_identity().hash;
        if !inner.is_own(peer) {
            let _ = inner.insert(connection, None); // one that is over tells its receiver so
        }
    }

    /// Queues `message` for `peer`, who is dialled as often as needed, at the address that was named
    /// last. It is sent at most once: what a connection had taken over when it broke may be lost, see
    /// [`PeerEvent::Disconnected`]. Messages of one connection keep their order.
    ///
    /// # Errors
    ///
    /// [`QueueError`]: nothing was queued.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio.
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
        // Locked until the message is in the queue, which ends when it is empty for a while.
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

    /// Forgets `peer`: what is queued for it is dropped, a dial is given up, its connections are closed at once.
    pub fn remove(&self, peer: CertHash) {
        let removed = self.owner.0.peers.lock().remove(peer);
        removed.into_iter().for_each(close_all);
    }
}

impl<T: NetTransport> Inner<T> {
    fn is_own(&self, peer: CertHash) -> bool {
        self.credential.read().identity() == peer
    }

    /// The connection with a peer, dialled if there is none: one attempt. If an `id` is given, only while the entry is
    /// the one that is called so.
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
                        // The peer may have come meanwhile.
                        Err(_) if self.has_current(peer) => {}
                        Err(error) => return Err(error),
                    },
                    () = inserted => {}
                },
                // What was dialled is not in the pool any more. Most likely it is over, and that says why.
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

    /// The attempt that is going on, or a new one.
    fn dial(
        self: &Arc<Self>,
        entry: &mut Peer<T::Connection>,
        peer: CertHash,
        address: SocketAddr,
    ) -> Dial<T::Connection> {
        match &entry.dial {
            // One that is done belongs to a runtime that is gone.
            Some((going, _)) if going.peek().is_none() => going.clone(),
            _ => {
                // On its own, so that it goes on when those who wait for it are gone.
                let attempt = tokio::spawn(attempt(self.clone(), peer, entry.id, address));
                let task = AbortOnDrop(attempt.abort_handle());
                let result = attempt.map(|result| result.unwrap_or_else(|_| Err(gone())));
                let dial = result.boxed().shared();
                entry.dial = Some((dial.clone(), task));
                dial
            }
        }
    }

    /// Takes a connection in, unless it is over: it must not take the place of one that is alive. That of an attempt
    /// counts only while its entry is the one called `attempt`, and is told.
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
                // Before its end can be told.
                self.tell(PeerEvent::Connected { peer, connection: connection.clone() });
            }
            let watch = tokio::spawn(watch(self.clone(), peer, id, connection.clone()));
            let watch = AbortOnDrop(watch.abort_handle());
            let new = Pooled::new(id, connection, attempt.is_some(), watch);
            let (retired, left) = entry.take_in(new, ours_stays);
            if let Some(loser) = retired {
                // If both sides should ever retire a connection, then not at the same time: who is later finds that
                // its loser is the only one left.
                let patience = if ours_stays { 2 * LOSER_PATIENCE } else { LOSER_PATIENCE };
                tokio::spawn(retire(Arc::downgrade(self), peer, loser, patience));
            }
            // An attempt is done in the moment in which its connection is there: whoever comes later must not join it.
            (left, attempt.and_then(|_| entry.dial.take()))
        };
        drop(dial); // the attempt's own task, which does not wait any more
        if let Some(left) = left {
            tokio::spawn(close_loser(self.events.clone(), peer, left));
        }
        self.inserted.notify_waiters();
        Ok(())
    }

    /// The credential may have changed during the handshake, and the peer been revoked.
    fn judge_again(&self, connection: &T::Connection) -> Result<(), ConnectError> {
        let trust = self.credential.read().trust().clone();
        let Some(certificate) = connection.remote_certificate() else { return Ok(()) };
        trust.verify(Some(&certificate)).map(|_| ()).map_err(|error| {
            let _ = connection.close(CLOSE_CODE_REVOKED, "no longer trusted").now_or_never();
            Rejection::by_policy(connection.remote_addr(), error).into()
        })
    }

    /// A connection is over: it leaves the pool.
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
        drop(ended); // last: this may be its watch, which ends with it
    }

    fn tell(&self, event: PeerEvent<T::Connection>) {
        let _ = self.events.try_send(event); // nobody may listen, or be far behind
    }
}

/// Takes a connection out of the pool when it is over.
async fn watch<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    connection: T::Connection,
) {
    let reason = connection.watch_close().await;
    tracing::debug!(%reason, "a connection of the pool is over");
    inner.ended(peer, id, reason);
}

/// Closes the loser of two after a while, unless it is the only one by then.
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

/// Closes a connection that is not used any more, and tells it.
async fn close_loser<C: NetConnection>(
    events: mpsc::Sender<PeerEvent<C>>,
    peer: CertHash,
    loser: Pooled<C>,
) {
    let close = loser.connection.close(CLOSE_CODE_DUPLICATE, "another one is used");
    let _ = timeout(LOSER_PATIENCE, close).await; // then it closes at once
    let reason = loser.connection.watch_close().await;
    let _ = events.try_send(PeerEvent::Disconnected { peer, reason });
}

/// Closes the connections of a peer of whom the pool wants nothing more.
fn close_all<C: NetConnection>(peer: Peer<C>) {
    for connection in peer.connections() {
        // Whoever drops the future closes at once.
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
    ConnectError::Closed(CloseReason::Transport("the peer was removed from the pool".to_owned()))
}

/// One attempt to dial.
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
        drop(dial); // it is this task's, which is at its end
    }
    result
}

/// Trusts one peer, if the policy of the pool's credential does.
struct Expecting {
    peer: CertHash,
    policy: TrustPolicy,
}

impl PeerVerifier for Expecting {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash != self.peer {
            return Err(format!("{} was expected", self.peer));
        }
        self.policy.verify(Some(certificate)).map(|_| ()).map_err(|error| error.to_string())
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }
}

/// Sends what is queued for a peer, one message after the other.
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
            Ok(None) => return, // the peer was removed, or the pool is gone
            Err(_) => {
                let mut peers = inner.peers.lock();
                if messages.is_empty() {
                    let queue = peers.same(peer, id).and_then(|entry| entry.queue.take());
                    peers.tidy(peer);
                    drop(peers);
                    return drop(queue); // it is this task's, which is at its end
                }
                continue;
            }
        };
        let size = message.len();
        let sent = send_insistently(&inner, peer, id, message).await;
        bytes.fetch_sub(size, Ordering::SeqCst);
        let Err(error) = sent else { continue };
        let mut dropped = 1;
        // A message that is too long concerns no other; a peer that cannot be reached all.
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
                () = inserted => {} // perhaps of this peer
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

/// Whether another connection may do better. One that this side closed says nothing about the peer, unless it was
/// revoked or everything is shut down.
fn may_go_elsewhere(error: &SendError) -> bool {
    match error {
        SendError::Closed(CloseReason::Local { code, .. }) => {
            ![CLOSE_CODE_REVOKED, CLOSE_CODE_SHUTDOWN].contains(code)
        }
        error => error.is_retryable(),
    }
}

impl<T: NetTransport> fmt::Debug for PeerPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool").field("peers", &self.owner.0.peers.lock().len()).finish()
    }
}
