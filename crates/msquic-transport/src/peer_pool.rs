//! `PeerPool`: connections by identity, dialled when needed and again when they break.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetTransport, SendError,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// The code that closes the loser of two connections between the same two peers.
pub const CLOSE_CODE_DUPLICATE: u64 = 0x6e65_7407;

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

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl PeerPoolConfig {
            /// The defaults.
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$name = value;
                self
            })*
        }
    };
}

options! {
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
/// identity dialled (see [`insert`](Self::insert)).
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
    events: mpsc::UnboundedSender<PeerEvent>,
    /// Notified when there is another connection.
    changed: Notify,
    peers: Mutex<Peers<T::Connection>>,
}

/// The peers that are known, and those that nothing is known of any more until the next tidying.
struct Peers<C> {
    by_identity: HashMap<CertHash, Peer<C>>,
    /// At so many peers it is time to tidy.
    tidy_at: usize,
}

/// Fewer peers are not worth tidying.
const FEW: usize = 64;

impl<C: NetConnection> Peers<C> {
    /// What is known of `peer`, and what has to be dropped without the lock.
    fn entry(&mut self, peer: CertHash) -> (&mut Peer<C>, Vec<Peer<C>>) {
        let mut gone = Vec::new();
        if self.by_identity.len() >= self.tidy_at {
            let is_gone = |_: &CertHash, peer: &mut Peer<C>| {
                let is_open = peer.connection.as_ref().is_some_and(|(it, _)| is_open(it));
                !is_open && peer.dial.is_none() && peer.queue.is_none()
            };
            gone.extend(self.by_identity.extract_if(is_gone).map(|(_, peer)| peer));
            self.tidy_at = (2 * self.by_identity.len()).max(FEW);
        }
        (self.by_identity.entry(peer).or_default(), gone)
    }
}

type Dial<C> = Shared<BoxFuture<'static, Result<C, ConnectError>>>;

struct Peer<C> {
    /// The connection, and whether this side dialled it.
    connection: Option<(C, bool)>,
    /// The attempt that is going on.
    dial: Option<Dial<C>>,
    queue: Option<Queue>,
    /// Where messages are to be sent, as far as is known by now.
    address: Option<SocketAddr>,
}

impl<C> Default for Peer<C> {
    fn default() -> Self {
        Self { connection: None, dial: None, queue: None, address: None }
    }
}

#[derive(Clone)]
struct Queue {
    messages: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl<T: NetTransport> PeerPool<T> {
    /// A pool that dials with `transport` and `credential`, and what happens to its peers. Nobody has to
    /// listen to the events; they are few, and bounded by what is queued.
    pub fn new(
        transport: T,
        alpn: &[&str],
        credential: NetCredential,
        config: PeerPoolConfig,
    ) -> (Self, mpsc::UnboundedReceiver<PeerEvent>) {
        let (events, received) = mpsc::unbounded_channel();
        let inner = Inner {
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            credential,
            config,
            events,
            changed: Notify::new(),
            peers: Mutex::new(Peers { by_identity: HashMap::new(), tidy_at: FEW }),
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
        let (dial, _dead, _gone) = {
            let mut peers = self.inner.peers.lock();
            let (entry, gone) = peers.entry(peer);
            if let Some((connection, _)) = entry.connection.as_ref().filter(|(it, _)| is_open(it)) {
                return Ok(connection.clone());
            }
            let dial = || {
                // On its own, so that it goes on when those who wait for it are gone.
                let attempt = tokio::spawn(dial(Arc::downgrade(&self.inner), peer, address));
                attempt
                    .map(|result| result.unwrap_or_else(|_| Err(pool_is_gone())))
                    .boxed()
                    .shared()
            };
            (entry.dial.get_or_insert_with(dial).clone(), entry.connection.take(), gone)
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
    /// one of the two stays, and the other is closed with [`CLOSE_CODE_DUPLICATE`]. Returns the one that
    /// stays.
    pub fn insert(&self, connection: T::Connection) -> T::Connection {
        self.inner.insert(connection, false)
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
        let (entry, gone) = peers.entry(peer);
        let queue = {
            entry.address = Some(address);
            let start = || {
                let (messages, received) =
                    mpsc::channel(self.inner.config.max_queued_messages.max(1));
                let bytes = Arc::new(AtomicUsize::new(0));
                let inner = Arc::downgrade(&self.inner);
                tokio::spawn(deliver(inner, peer, received, bytes.clone()));
                Queue { messages, bytes }
            };
            entry.queue.get_or_insert_with(start)
        };
        let (size, limit) = (message.len(), self.inner.config.max_queued_bytes);
        let add = |bytes: usize| bytes.checked_add(size).filter(|sum| *sum <= limit);
        let queued = queue
            .bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add)
            .map_err(|_| QueueError::Full)
            .and_then(|_| {
                queue.messages.try_send(message).map_err(|_| {
                    queue.bytes.fetch_sub(size, Ordering::SeqCst);
                    QueueError::Full
                })
            });
        drop(peers);
        drop(gone);
        queued
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
                connection.map(|(connection, _)| connection.clone())
            };
            match connection.filter(is_open) {
                Some(connection) => return connection,
                None => changed.await,
            }
        }
    }

    fn insert(&self, connection: T::Connection, is_ours: bool) -> T::Connection {
        let peer = connection.peer_identity().hash;
        let (stays, goes, _gone) = {
            let mut peers = self.peers.lock();
            let (entry, gone) = peers.entry(peer);
            let (stays, goes) = match entry.connection.take() {
                None => {
                    entry.connection = Some((connection.clone(), is_ours));
                    (connection, None)
                }
                Some((existing, _)) if !is_open(&existing) => {
                    entry.connection = Some((connection.clone(), is_ours));
                    (connection, Some(existing)) // closing it does nothing any more
                }
                Some((existing, existing_is_ours)) => {
                    let ours_stays = self.credential.identity() < peer;
                    // Of two that the same side dialled the newer one stays: the older may be dead.
                    let new_stays = existing_is_ours == is_ours || is_ours == ours_stays;
                    let (stays, stays_is_ours, goes) = if new_stays {
                        (connection, is_ours, existing)
                    } else {
                        (existing, existing_is_ours, connection)
                    };
                    entry.connection = Some((stays.clone(), stays_is_ours));
                    (stays, Some(goes))
                }
            };
            (stays, goes, gone)
        };
        if let Some(goes) = goes
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime
                .spawn(async move { goes.close(CLOSE_CODE_DUPLICATE, "another one stays").await });
        }
        self.changed.notify_waiters();
        let _ = self.events.send(PeerEvent::Connected { peer }); // nobody may listen
        stays
    }
}

fn pool_is_gone() -> ConnectError {
    ConnectError::Closed(CloseReason::Transport("the pool is gone".to_owned()))
}

/// One attempt.
async fn dial<T: NetTransport>(
    inner: Weak<Inner<T>>,
    peer: CertHash,
    address: SocketAddr,
) -> Result<T::Connection, ConnectError> {
    let inner = inner.upgrade().ok_or_else(pool_is_gone)?;
    let alpn: Vec<_> = inner.alpn.iter().map(String::as_str).collect();
    let credential = inner.credential.expecting(peer);
    let result = inner.transport.connect(address, &alpn, credential).await;
    if let Some(entry) = inner.peers.lock().by_identity.get_mut(&peer) {
        entry.dial = None;
    }
    result.map(|connection| inner.insert(connection, true))
}

/// Sends what is queued for a peer, one message after the other.
async fn deliver<T: NetTransport>(
    inner: Weak<Inner<T>>,
    peer: CertHash,
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
                    if let Some(entry) = peers.by_identity.get_mut(&peer) {
                        entry.queue = None;
                    }
                    return;
                }
                continue;
            }
        };
        let size = message.len();
        let sent = send_insistently(&inner, peer, message).await;
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
        let _ = inner.events.send(PeerEvent::Dropped { peer, messages: dropped, error });
    }
}

async fn send_insistently<T: NetTransport>(
    inner: &Weak<Inner<T>>,
    peer: CertHash,
    message: Bytes,
) -> Result<(), DropError> {
    let mut failed = 0;
    loop {
        let (pool, config, address) = {
            let Some(inner) = inner.upgrade() else { return Ok(()) };
            let address = inner.peers.lock().by_identity.get(&peer).and_then(|entry| entry.address);
            let Some(address) = address else { return Ok(()) }; // the peer was removed
            let config = inner.config;
            (PeerPool { inner }, config, address)
        };
        let error = match pool.connection(peer, address).await {
            Ok(connection) => match connection.send_bytes(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ SendError::TooLarge { .. }) => return Err(error.into()),
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
