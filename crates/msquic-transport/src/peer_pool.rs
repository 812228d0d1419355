//! `PeerPool`: connections by identity, dialled when needed and again when they break.

use crate::config::options;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use net_traits::{
    CertHash, CertificateDer, CloseReason, ConnectError, NetConnection, NetCredential,
    NetTransport, PeerIdentity, PeerVerifier, SendError, TrustPolicy,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The code that closes the loser of two connections between the same two peers.
pub const CLOSE_CODE_DUPLICATE: u64 = 0x6e65_7407;

/// How many events wait to be looked at.
const EVENTS: usize = 1024;

/// Two connections between the same peers that begin within this time were dialled at the same time.
const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// How long an empty queue is kept.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// How long the connection may take for which the peer closed ours as a duplicate.
const DUPLICATE_PATIENCE: Duration = Duration::from_secs(5);

/// How a [`PeerPool`] dials and what it holds meanwhile.
///
/// ```
/// use msquic_transport::PeerPoolConfig;
/// use std::time::Duration;
///
/// let config = PeerPoolConfig::new().first_delay(Duration::from_millis(200)).max_attempts(5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPoolConfig {
    first_delay: Duration,
    max_delay: Duration,
    max_attempts: u32,
    max_queued_messages: usize,
    max_queued_bytes: usize,
}

impl Default for PeerPoolConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            max_attempts: 10,
            max_queued_messages: 1000,
            max_queued_bytes: 1024 * 1024,
        }
    }
}

options! {
    PeerPoolConfig:

    /// The longest wait before the second attempt. Each wait is a random part, at least half, of its
    /// longest, and the longest doubles from attempt to attempt. Default: 100 ms.
    first_delay: Duration;
    /// What the longest wait grows to. Default: 30 s.
    max_delay: Duration;
    /// After how many failed attempts in a row the messages that wait are dropped, and reported.
    /// Default: 10.
    max_attempts: u32;
    /// How many messages wait for one peer. Default: 1000.
    max_queued_messages: usize;
    /// How many bytes of messages wait for one peer. Default: 1 MiB.
    max_queued_bytes: usize;
}

/// What happens to the peers of a [`PeerPool`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// There is a connection.
    Connected {
        /// With whom.
        peer: CertHash,
    },
    /// Messages will not be sent: the peer cannot be reached, does not accept us, or a message is too
    /// long.
    Dropped {
        /// For whom they were.
        peer: CertHash,
        /// How many.
        messages: usize,
        /// Why.
        error: DropError,
    },
}

/// Why queued messages were dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection did not take the message.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// As many messages or bytes wait for the peer as are allowed.
    #[error("too much is queued for the peer")]
    Full,
}

/// Connections by identity: dialled when needed, with growing pauses, and again when they break.
///
/// Callers that want the same peer at the same time share one dial. When two peers dial each other at
/// the same time, both keep the same one of the two connections: that which the peer with the smaller
/// identity dialled (see [`insert`](Self::insert)). Otherwise the newer one stays.
///
/// Cloning is cheap. When the last clone is dropped, messages that still wait are dropped without a
/// report.
pub struct PeerPool<T: NetTransport> {
    inner: Arc<Inner<T>>,
}

impl<T: NetTransport> Clone for PeerPool<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<T: NetTransport> {
    transport: T,
    alpn: Vec<String>,
    credential: NetCredential,
    config: PeerPoolConfig,
    events: mpsc::Sender<PeerEvent>,
    /// Notified when there is another connection.
    changed: Notify,
    peers: Mutex<Peers<T::Connection>>,
}

struct Peers<C> {
    by_identity: HashMap<CertHash, Peer<C>>,
    next: u64,
}

impl<C> Peers<C> {
    fn entry(&mut self, peer: CertHash) -> &mut Peer<C> {
        self.next += 1;
        let id = self.next;
        self.by_identity.entry(peer).or_insert_with(|| Peer {
            id,
            connection: None,
            dial: None,
            queue: None,
            address: None,
        })
    }

    /// The entry that was called `id`, if it is still there.
    fn same(&mut self, peer: CertHash, id: u64) -> Option<&mut Peer<C>> {
        self.by_identity.get_mut(&peer).filter(|entry| entry.id == id)
    }

    /// Forgets a peer of whom nothing is left.
    fn tidy(&mut self, peer: CertHash) {
        let is_empty = |entry: &Peer<C>| {
            entry.connection.is_none() && entry.dial.is_none() && entry.queue.is_none()
        };
        if self.by_identity.get(&peer).is_some_and(is_empty) {
            self.by_identity.remove(&peer);
        }
    }
}

type Dial<C> = Shared<BoxFuture<'static, Result<C, ConnectError>>>;

struct Peer<C> {
    /// Tells this entry from a later one of the same peer.
    id: u64,
    connection: Option<Pooled<C>>,
    /// The attempt that is going on.
    dial: Option<Dial<C>>,
    queue: Option<Queue>,
    /// Where messages are to be sent, as far as is known by now.
    address: Option<SocketAddr>,
}

/// A connection of the pool.
struct Pooled<C> {
    connection: C,
    /// This side dialled it.
    is_ours: bool,
    since: Instant,
    /// Takes the connection out of the pool when it is over.
    _watch: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Queue {
    messages: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl<T: NetTransport> PeerPool<T> {
    /// A pool that dials with `transport` and `credential`, and what happens to its peers. Nobody has to
    /// listen: 1024 events wait, further ones are not told.
    ///
    /// A peer has to have the identity that is asked for, and the policy of `credential` has to trust it.
    pub fn new(
        transport: T,
        alpn: &[&str],
        credential: NetCredential,
        config: PeerPoolConfig,
    ) -> (Self, mpsc::Receiver<PeerEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        let inner = Inner {
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            credential,
            config,
            events,
            changed: Notify::new(),
            peers: Mutex::new(Peers { by_identity: HashMap::new(), next: 0 }),
        };
        (Self { inner: Arc::new(inner) }, received)
    }

    /// The connection with `peer`, dialled at `address` if there is none: one attempt. Whoever answers
    /// has to have that identity.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
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
        let dial = {
            let mut peers = self.inner.peers.lock();
            let entry = peers.entry(peer);
            if let Some(pooled) = entry.connection.as_ref().filter(|it| is_open(&it.connection)) {
                return Ok(pooled.connection.clone());
            }
            let (inner, id) = (Arc::downgrade(&self.inner), entry.id);
            let dial = || {
                // On its own, so that it goes on when those who wait for it are gone.
                let attempt = tokio::spawn(dial(inner, peer, id, address));
                attempt
                    .map(|result| result.unwrap_or_else(|_| Err(pool_is_gone())))
                    .boxed()
                    .shared()
            };
            // One that is done belongs to a runtime that is gone.
            match &entry.dial {
                Some(going) if going.peek().is_none() => going.clone(),
                _ => entry.dial.insert(dial()).clone(),
            }
        };
        match dial.await {
            Err(error @ ConnectError::Closed(CloseReason::Peer { code, .. }))
                if code == CLOSE_CODE_DUPLICATE =>
            {
                // The peer dialled as well, and its connection stays: it is on its way to `insert`.
                timeout(DUPLICATE_PATIENCE, self.inner.inserted(peer)).await.map_err(|_| error)
            }
            result => result,
        }
    }

    /// Takes a connection that the peer dialled into the pool. If there is another one with that peer,
    /// one of the two stays, and the other is closed with [`CLOSE_CODE_DUPLICATE`]: messages that had come
    /// on it and were not received are lost. Returns the one that stays.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio.
    pub fn insert(&self, connection: T::Connection) -> T::Connection {
        self.inner.insert(connection, None)
    }

    /// Queues `message` for `peer`, who is dialled as often as needed, at the address that was named
    /// last. It is sent at most once: what a connection had taken over when it broke may be lost.
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`]: nothing was queued.
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
        // Locked until the message is in the queue, which ends when it is empty for a while.
        let mut peers = self.inner.peers.lock();
        let entry = peers.entry(peer);
        entry.address = Some(address);
        let (inner, id) = (Arc::downgrade(&self.inner), entry.id);
        let start = || {
            let (messages, received) = mpsc::channel(self.inner.config.max_queued_messages.max(1));
            let bytes = Arc::new(AtomicUsize::new(0));
            tokio::spawn(deliver(inner, peer, id, received, bytes.clone()));
            Queue { messages, bytes }
        };
        let queue = match &mut entry.queue {
            Some(queue) if !queue.messages.is_closed() => queue,
            queue => queue.insert(start()),
        };
        let (size, limit) = (message.len(), self.inner.config.max_queued_bytes);
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

    /// Forgets `peer`: what is queued for it is dropped, its connection is closed once nobody else
    /// holds it.
    pub fn remove(&self, peer: CertHash) {
        let removed = self.inner.peers.lock().by_identity.remove(&peer);
        drop(removed);
    }
}

impl<T: NetTransport> Inner<T> {
    /// Waits until there is a connection with `peer`.
    async fn inserted(&self, peer: CertHash) -> T::Connection {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let connection = {
                let peers = self.peers.lock();
                let connection =
                    peers.by_identity.get(&peer).and_then(|entry| entry.connection.as_ref());
                connection.map(|pooled| pooled.connection.clone())
            };
            match connection.filter(is_open) {
                Some(connection) => return connection,
                None => changed.await,
            }
        }
    }

    /// Takes a connection in. That of an attempt counts only while its entry is the one called `id`.
    fn insert(self: &Arc<Self>, connection: T::Connection, attempt: Option<u64>) -> T::Connection {
        let peer = connection.peer_identity().hash;
        let is_ours = attempt.is_some();
        let (stays, goes) = {
            let mut peers = self.peers.lock();
            let entry = match attempt {
                None => peers.entry(peer),
                Some(id) => match peers.same(peer, id) {
                    Some(entry) => {
                        entry.dial = None;
                        entry
                    }
                    None => return connection, // the peer was removed: the caller has it alone
                },
            };
            let new_stays = entry.connection.as_ref().is_none_or(|existing| {
                let ours_stays = self.credential.identity() < peer;
                // Two peers that dial each other decide by identity. A connection that is older than
                // that may be dead without knowing it, as when the peer was started anew.
                !is_open(&existing.connection)
                    || existing.is_ours == is_ours
                    || existing.since.elapsed() > SIMULTANEOUS
                    || is_ours == ours_stays
            });
            if new_stays {
                let watch = tokio::spawn(watch(Arc::downgrade(self), connection.clone()));
                let pooled = Pooled {
                    connection: connection.clone(),
                    is_ours,
                    since: Instant::now(),
                    _watch: AbortOnDrop(watch),
                };
                (connection, entry.connection.replace(pooled).map(|before| before.connection))
            } else {
                let stays = entry.connection.as_ref().map(|it| it.connection.clone());
                (stays.unwrap_or_else(|| connection.clone()), Some(connection))
            }
        };
        if let Some(goes) = goes {
            tokio::spawn(
                async move { goes.close(CLOSE_CODE_DUPLICATE, "another one stays").await },
            );
        }
        self.changed.notify_waiters();
        self.tell(PeerEvent::Connected { peer });
        stays
    }

    fn tell(&self, event: PeerEvent) {
        let _ = self.events.try_send(event); // nobody may listen, or be far behind
    }
}

/// Takes a connection out of the pool when it is over.
async fn watch<T: NetTransport>(inner: Weak<Inner<T>>, connection: T::Connection) {
    let reason = connection.watch_close().await;
    tracing::debug!(%reason, "a connection of the pool is over");
    let Some(inner) = inner.upgrade() else { return };
    let peer = connection.peer_identity().hash;
    let _over = {
        let mut peers = inner.peers.lock();
        let entry = peers.by_identity.get_mut(&peer);
        let over =
            entry.and_then(|entry| entry.connection.take_if(|pooled| !is_open(&pooled.connection)));
        peers.tidy(peer);
        over
    };
}

fn pool_is_gone() -> ConnectError {
    ConnectError::Closed(CloseReason::Transport("the pool is gone".to_owned()))
}

/// One attempt.
async fn dial<T: NetTransport>(
    inner: Weak<Inner<T>>,
    peer: CertHash,
    id: u64,
    address: SocketAddr,
) -> Result<T::Connection, ConnectError> {
    let inner = inner.upgrade().ok_or_else(pool_is_gone)?;
    let alpn: Vec<_> = inner.alpn.iter().map(String::as_str).collect();
    let policy = inner.credential.trust().clone();
    let expecting = TrustPolicy::custom(Expecting { peer, policy });
    let credential = inner.credential.with_trust(expecting);
    match inner.transport.connect(address, &alpn, credential).await {
        Ok(connection) => Ok(inner.insert(connection, Some(id))),
        Err(error) => {
            let mut peers = inner.peers.lock();
            if let Some(entry) = peers.same(peer, id) {
                entry.dial = None;
            }
            peers.tidy(peer);
            Err(error)
        }
    }
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
    inner: Weak<Inner<T>>,
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
                let Some(inner) = inner.upgrade() else { return };
                let mut peers = inner.peers.lock();
                if messages.is_empty() {
                    if let Some(entry) = peers.same(peer, id) {
                        entry.queue = None;
                    }
                    peers.tidy(peer);
                    return;
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
        let Some(inner) = inner.upgrade() else { return };
        inner.tell(PeerEvent::Dropped { peer, messages: dropped, error });
    }
}

async fn send_insistently<T: NetTransport>(
    inner: &Weak<Inner<T>>,
    peer: CertHash,
    id: u64,
    message: Bytes,
) -> Result<(), DropError> {
    let mut failed = 0;
    loop {
        let (pool, config, address) = {
            let Some(inner) = inner.upgrade() else { return Ok(()) };
            let address = inner.peers.lock().same(peer, id).and_then(|entry| entry.address);
            let Some(address) = address else { return Ok(()) }; // the peer was removed
            let config = inner.config;
            (PeerPool { inner }, config, address)
        };
        let error = match pool.connection(peer, address).await {
            Ok(connection) => match connection.send_bytes(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ SendError::TooLarge { .. }) => return Err(error.into()),
                // Closed here, as the loser of two or by the application: another one will do.
                Err(error @ SendError::Closed(CloseReason::Local { .. })) => (true, error.into()),
                Err(error) => (error.is_retryable(), DropError::from(error)),
            },
            Err(error) => (error.is_retryable(), DropError::from(error)),
        };
        drop(pool); // a pool that nobody holds ends while this waits
        failed += 1;
        let (is_retryable, error) = error;
        if !is_retryable || failed >= config.max_attempts {
            return Err(error);
        }
        tokio::time::sleep(delay(&config, failed)).await;
    }
}

/// How long to wait after so many failures: between a half and all of a time that doubles.
fn delay(config: &PeerPoolConfig, failed: u32) -> Duration {
    let longest = config
        .first_delay
        .saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(config.max_delay);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn is_open(connection: &impl NetConnection) -> bool {
    connection.watch_close().now_or_never().is_none()
}

impl<T: NetTransport> fmt::Debug for PeerPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool")
            .field("peers", &self.inner.peers.lock().by_identity.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ() {
        let config = PeerPoolConfig::new().first_delay(Duration::from_secs(1));
        for (failed, longest) in
            [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)]
        {
            let longest = Duration::from_secs(longest);
            for _ in 0..100 {
                let delay = delay(&config, failed);
                assert!(delay >= longest / 2 && delay <= longest, "{delay:?} after {failed}");
            }
        }
    }
}
