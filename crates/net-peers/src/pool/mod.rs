//! `PeerPool`: connections by identity, dialled on demand and redialled when they break.

mod broadcast;
mod config;
mod delivery;
mod follow;
mod inner;
mod peers;

pub use broadcast::{Broadcast, Unsent};
pub use config::{DropError, PeerEvent, PeerEvents, PeerPoolConfig, QueueError};
pub use follow::Follow;

use crate::resolver::Resolver;
use broadcast::Outgoing;
use bytes::Bytes;
use delivery::deliver;
use inner::{Inner, Origin, close_all};
use net_traits::{CertHash, ConfigError, ConnectError, NetConnection, NetCredential, NetTransport};
use parking_lot::{Mutex, RwLock};
use peers::{AbortOnDrop, Peers, Queue};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Capacity of the event queue.
const EVENTS: usize = 1024;

/// Connections by identity, dialled on demand with backoff and redialled when they break.
///
/// Concurrent callers for the same peer share one dial. If two peers dial each other at the same
/// time, both send on the connection that the peer with the smaller identity dialled. Otherwise the
/// newer connection is used. The side that dialled the redundant connection closes it after 5 s
/// with [`DUPLICATE`](net_traits::close_code::DUPLICATE); until then both sides should receive from
/// it.
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
        let (peers, follows) = self.0.peers.lock().close();
        drop(follows);
        peers.into_values().for_each(close_all);
    }
}

impl<T: NetTransport> PeerPool<T> {
    /// Creates a pool that dials with `transport` and `credential`, and the receiver of its events.
    ///
    /// Receive the events or drop the receiver. Up to 1024 events are queued, with the connections
    /// that they contain; further ones are discarded.
    ///
    /// A peer must have the requested identity, and the policy of `credential` must trust it.
    /// Listeners whose connections are [inserted](Self::insert) must use the same certificate.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if an option has a value that cannot be used.
    pub fn new(
        transport: T,
        alpn: &[&str],
        credential: NetCredential,
        config: PeerPoolConfig,
    ) -> Result<(Self, PeerEvents<T::Connection>), ConfigError> {
        config.validate()?;
        let (events, received) = mpsc::channel(EVENTS);
        let inner = Inner {
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            credential: RwLock::new(credential),
            dials: Semaphore::new(config.max_dials),
            config,
            events,
            peers: Mutex::new(Peers::new()),
            inserted: Notify::new(),
        };
        Ok((Self { owner: Arc::new(Owner(Arc::new(inner))) }, received))
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
            // If it has ended, its receiver learns that.
            let _ = inner.insert(connection, Origin::Accepted);
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
        let outgoing = Outgoing { message, receipt: None };
        self.queue(peer, Some(address), outgoing).map_err(|(error, _)| error)
    }

    /// Connects to all addresses that `resolver` lists, and keeps connected while they are listed.
    ///
    /// Each listed address is dialled, with backoff and again when the connection has ended. The
    /// peer there must have the identity of its [`Endpoint`], or be any peer that the policy of the
    /// pool trusts; connections are reported by [`PeerEvent::Connected`]. An address that is no
    /// longer listed, for [`removal_delay`](PeerPoolConfig::removal_delay), is no longer dialled,
    /// and if it was the only known address of its peer, the connections with that peer are closed,
    /// by whichever side they were dialled. At most [`max_followed`](PeerPoolConfig::max_followed)
    /// addresses are followed, and [`max_dials`](PeerPoolConfig::max_dials) dialled at once. A list
    /// may contain the addresses of this node, which are recognised and left alone.
    ///
    /// If two addresses belong to one node, such as an IPv4 and an IPv6 address, both are dialled
    /// once and one connection is closed as redundant.
    ///
    /// [`Endpoint`]: crate::Endpoint
    ///
    /// ```
    /// # use net_peers::{PeerPool, StaticResolver};
    /// # use net_traits::NetTransport;
    /// # use std::net::SocketAddr;
    /// # fn seeds<T: NetTransport>(pool: &PeerPool<T>) {
    /// let seeds: [SocketAddr; 2] = [([10, 0, 0, 7], 4433).into(), ([10, 0, 0, 8], 4433).into()];
    /// let follow = pool.follow(StaticResolver::new(seeds));
    /// # drop(follow);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn follow(&self, resolver: impl Resolver) -> Follow {
        follow::follow(&self.owner.0, resolver)
    }

    /// Queues `message` for many peers, which share its memory.
    ///
    /// It is sent over the connection of each peer, or to the most recent address of it that is
    /// known; for all peers of the pool, pass [`peers`](Self::peers). As with [`send`](Self::send),
    /// each peer is dialled as often as needed. The peers to which the message is not sent are
    /// reported by the returned value, with the reason.
    ///
    /// ```
    /// # use net_peers::{DropError, PeerPool, QueueError};
    /// # use net_traits::NetTransport;
    /// # async fn announce<T: NetTransport>(pool: &PeerPool<T>) {
    /// let mut broadcast = pool.broadcast(pool.peers(), "news".into());
    /// while let Some(unsent) = broadcast.next_unsent().await {
    ///     println!("{} does not get it: {}", unsent.peer, unsent.error);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn broadcast(
        &self,
        peers: impl IntoIterator<Item = CertHash>,
        message: Bytes,
    ) -> Broadcast {
        let (broadcast, receipt) = Broadcast::new();
        for peer in peers {
            let outgoing = Outgoing { message: message.clone(), receipt: Some(receipt(peer)) };
            if let Err((error, outgoing)) = self.queue(peer, None, outgoing) {
                outgoing.receipt.map(|receipt| receipt.unsent(error.into()));
            }
        }
        broadcast
    }

    /// Returns the peers that are connected or of which an address is known.
    pub fn peers(&self) -> Vec<CertHash> {
        self.owner.0.peers.lock().reachable()
    }

    /// Queues a message for a peer, at an address or wherever it can be reached.
    fn queue(
        &self,
        peer: CertHash,
        address: Option<SocketAddr>,
        outgoing: Outgoing,
    ) -> Result<(), (QueueError, Outgoing)> {
        let inner = &self.owner.0;
        let (size, limit) = (outgoing.message.len(), inner.config.max_queued_bytes);
        if size > limit {
            return Err((QueueError::TooLarge { size, limit }, outgoing));
        }
        if inner.is_own(peer) {
            return Err((QueueError::OwnIdentity, outgoing));
        }
        // Locked until the message is queued, because an idle queue is removed.
        let mut peers = inner.peers.lock();
        let entry = match address {
            Some(_) => peers.entry(peer),
            None => peers.get(peer).filter(|entry| entry.is_reachable()),
        };
        let Some(entry) = entry else { return Err((QueueError::NoAddress, outgoing)) };
        entry.address = address.or(entry.address);
        let id = entry.id;
        let start = || {
            let (messages, received) = mpsc::channel(inner.config.max_queued_messages);
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
        if queue.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_err() {
            return Err((QueueError::Full, outgoing));
        }
        queue.messages.try_send(outgoing).map_err(|error| {
            queue.bytes.fetch_sub(size, Ordering::SeqCst);
            (QueueError::Full, error.into_inner())
        })
    }

    /// Removes `peer`: drops its queued messages, cancels its dial, and closes its connections at
    /// once.
    pub fn remove(&self, peer: CertHash) {
        let removed = self.owner.0.peers.lock().remove(peer);
        removed.into_iter().for_each(close_all);
    }
}

impl<T: NetTransport> fmt::Debug for PeerPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool").field("peers", &self.owner.0.peers.lock().len()).finish()
    }
}
