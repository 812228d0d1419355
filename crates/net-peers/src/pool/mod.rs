//! `PeerPool`: connections by identity, dialled on demand and redialled when they break.
//!
//! ```text
//! send ──▶ Queue ──deliver──▶ connection, InFlight ──flushed and kept──▶ delivered
//!            │                        │
//!            └────────────────────────┴──▶ Reports ──▶ PeerEvents
//! recv ◀── Inbox ◀──task::receive── connection
//! ```
//!
//! There is a task for each connection (`task`), one for each peer with queued messages
//! (`delivery`), one for each attempt to dial, and one for each resolver and each address that it
//! lists (`follow`).

mod broadcast;
mod config;
mod delivery;
mod event_queue;
mod follow;
mod in_flight;
mod inbox;
mod inner;
mod outgoing;
mod peer_event;
mod peers;
mod pending_events;
mod pooled_connection;
mod queue;
mod quota;
mod task;
mod verifiers;

pub use broadcast::{Broadcast, Unsent};
pub use config::{DropError, PeerPoolConfig, QueueError};
pub use event_queue::PeerEvents;
pub use follow::Follow;
pub use peer_event::{PeerEvent, Undelivered};

use crate::resolver::Resolver;
use broadcast::Reporter;
use bytes::Bytes;
use delivery::deliver;
use event_queue::EventQueue;
use inbox::Inbox;
use inner::{Inner, Origin, Purpose};
use net_kit::coop;
use net_traits::{CertHash, ConfigError, ConnectError, NetConnection, NetCredential, NetTransport};
use outgoing::OutgoingMessage;
use parking_lot::{Mutex, RwLock};
use peers::{AbortOnDrop, Peers, Sending};
use queue::Queue;
use quota::{MESSAGE_COST, OfPeer, Place, Quota, Share};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

/// Connections by identity, dialled on demand with backoff and redialled when they break.
///
/// Concurrent callers for the same peer share one dial. Cloning is cheap. When the last clone is
/// dropped, which may happen outside of a runtime, the tasks end and the connections are closed
/// immediately. [`PeerEvents`] then returns the remaining reports.
///
/// # Delivery
///
/// [`send`](Self::send) queues a message, and the pool sends it at most once. A message that is not
/// delivered comes back as [`PeerEvent::Undelivered`] with its payload, whatever the cause: the
/// peer is unreachable, a connection broke, the peer was removed, the pool was dropped.
///
/// The pool does not know when the application of the peer has received a message. It regards a
/// message as delivered when a [flush](NetConnection::flush) after it has succeeded and the
/// connection has then stayed open for [`keep_sent`](PeerPoolConfig::keep_sent). If the connection
/// ends before, the message is reported with [`may_have_arrived`](Undelivered::may_have_arrived):
/// it **may be both delivered and reported**, and only an answer of the peer's application shows
/// whether it was. Without that flag it was not delivered. A message that has arrived at the peer's
/// process is lost if that process ends before its application receives the message.
///
/// Messages on one connection keep their order. After a reconnection, messages of the old
/// connection may be received after those of the new one.
///
/// # Receiving
///
/// The pool receives from all its connections, dialled or [inserted](Self::insert).
/// [`recv`](Self::recv) returns the messages with their sender. If the application does not call
/// it, the pool holds at most [`receive_queue`](PeerPoolConfig::receive_queue) bytes and one more
/// message for each connection, and flow control stops the peers; nothing is lost. Do not receive
/// from the connections directly.
///
/// # Limits
///
/// For each peer, [`max_queued_messages`](PeerPoolConfig::max_queued_messages) and
/// [`max_queued_bytes`](PeerPoolConfig::max_queued_bytes) limit the messages that wait to be sent,
/// and [`max_unconfirmed_bytes`](PeerPoolConfig::max_unconfirmed_bytes) those that were sent and
/// are not known to be delivered. [`max_held_bytes`](PeerPoolConfig::max_held_bytes) limits the
/// messages of all peers. A message counts until it is delivered or its report was received from
/// [`PeerEvents`]. A peer may have 16 connections, including those that have ended while messages
/// of them wait for [`recv`](Self::recv). Further connections are closed with
/// [`TOO_MANY_PER_IDENTITY`](net_traits::close_code::TOO_MANY_PER_IDENTITY), and the messages that
/// they hold are dropped and reported by [`PeerEvent::ReceiveFailed`].
///
/// # Several connections with one peer
///
/// If both sides dial at the same time, or a peer that restarted connects again, there are two
/// connections. Messages are sent on the newer one. If the two were dialled at the same time,
/// messages are sent on the one that the side with the smaller identity dialled as soon as the peer
/// sends on it.
///
/// The pool receives from both until the connection that is not used has been silent for a while,
/// and then closes it with [`DUPLICATE`](net_traits::close_code::DUPLICATE). The side that dialled
/// it waits 5 s, or 10 s if it has the smaller identity. The other side, whose peer may have
/// restarted, waits 40 s, or 20 s if it has the smaller identity.
///
/// If a connection takes no data for the time after which its transport reports
/// [`SendError::TimedOut`](net_traits::SendError::TimedOut), the peer is dialled again. If it
/// answers, the stuck connection is closed and its messages are reported. Each further time in a
/// row this takes twice as long, since the application of the peer may only be slow. A dead
/// connection on which nothing is sent ends with the idle timeout of its transport.
///
/// # Example
///
/// A node that listens, and answers every message:
///
/// ```
/// # use net_peers::{PeerEvent, PeerPool, PeerPoolConfig, serve};
/// # use net_traits::{NetCredential, NetTransport};
/// # use std::net::SocketAddr;
/// async fn run<T: NetTransport>(
///     transport: T,
///     listener: T::Listener,
///     credential: NetCredential,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let (pool, mut events) =
///         PeerPool::new(transport, &["chat/1"], credential, PeerPoolConfig::new())?;
///     let accepting = pool.clone();
///     tokio::spawn(async move {
///         let insert = move |connection| std::future::ready(accepting.insert(connection));
///         serve(&listener, insert).await
///     });
///     loop {
///         tokio::select! {
///             (peer, message) = pool.recv() => {
///                 // Sends over the connection, or dials a known address of the peer.
///                 drop(pool.broadcast([peer], message));
///             }
///             Some(event) = events.recv() => match event {
///                 PeerEvent::Undelivered(report) => println!("{}: {}", report.peer, report.error),
///                 PeerEvent::Disconnected { peer, reason, .. } => println!("{peer}: {reason}"),
///                 _ => {}
///             },
///         }
///     }
/// }
/// ```
pub struct PeerPool<T: NetTransport> {
    owner: Arc<Owner<T>>,
}

impl<T: NetTransport> Clone for PeerPool<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner.clone() }
    }
}

/// Held by the handles only: dropping the last one ends the tasks.
struct Owner<T: NetTransport>(Arc<Inner<T>>);

impl<T: NetTransport> Drop for Owner<T> {
    /// Aborts the connections, which ends their tasks. Needs no runtime.
    fn drop(&mut self) {
        const WHY: &str = "the pool was dropped";
        let (peers, follows) = self.0.peers.lock().close();
        drop(follows);
        self.0.inbox.close();
        for (peer, removed) in peers {
            drop(self.0.removed(peer, &removed, WHY)); // no connection is inserted any more
            self.0.discard(peer, removed, WHY);
        }
        self.0.events.close();
    }
}

impl<T: NetTransport> PeerPool<T> {
    /// Creates a pool that dials with `transport` and `credential`, and the receiver of its events.
    ///
    /// Receive the events or drop the receiver, see [`PeerEvents`].
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
        let events = EventQueue::new();
        let inner = Inner {
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            credential: RwLock::new(credential),
            dials: Semaphore::new(config.max_dials),
            events: events.clone(),
            inbox: Inbox::new(config.receive_queue),
            held: Quota::new(config.max_held_bytes),
            config,
            peers: Mutex::new(Peers::new()),
            inserted: Notify::new(),
        };
        Ok((Self { owner: Arc::new(Owner(Arc::new(inner))) }, PeerEvents::new(events)))
    }

    /// Waits for the next message of any peer.
    ///
    /// Messages of one connection keep their order. Several tasks may receive; each message goes to
    /// one of them.
    ///
    /// ```
    /// # use net_peers::PeerPool;
    /// # use net_traits::NetTransport;
    /// # async fn serve<T: NetTransport>(pool: &PeerPool<T>) {
    /// loop {
    ///     let (peer, message) = pool.recv().await;
    ///     println!("{peer} sent {} bytes", message.len());
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no message.
    pub async fn recv(&self) -> (CertHash, Bytes) {
        self.owner.0.inbox.pop().await
    }

    /// Returns the next message of any peer if one has been received.
    pub fn try_recv(&self) -> Option<(CertHash, Bytes)> {
        self.owner.0.inbox.try_pop()
    }

    /// Replaces the certificate and the trust policy for dials that begin later.
    pub fn set_credential(&self, credential: NetCredential) {
        let before = std::mem::replace(&mut *self.owner.0.credential.write(), credential);
        drop(before);
    }

    /// Returns the connection with `peer`, dialling `address` once if there is none.
    ///
    /// There is no backoff before the attempt. The peer that answers must have the identity `peer`.
    /// Messages that the application sends on the connection directly are not reported by the pool.
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
        coop::spend().await;
        let inner = &self.owner.0;
        if inner.is_own(peer) {
            return Err(ConnectError::InvalidInput("the peer is this node".to_owned()));
        }
        inner
            .connection(peer, Purpose::Application, address)
            .await
            .map(|pooled| pooled.connection.clone())
    }

    /// Adds an accepted connection to the pool, which then sends on it and receives from it.
    ///
    /// Insert it immediately: the newest connection with a peer is used. One that has ended is not
    /// used, and no event reports it; [`recv`](Self::recv) returns the messages that it holds.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub fn insert(&self, connection: T::Connection) {
        let inner = &self.owner.0;
        let peer = connection.peer_identity().hash;
        if !inner.is_own(peer) {
            // An error says that it has ended or is closed, which nothing waits for.
            let _ = inner.insert(connection, Origin::Accepted);
        }
    }

    /// Queues `message` for `peer` and dials the most recent `address` as often as needed, or
    /// another known address of the peer after a failure.
    ///
    /// The message is sent at most once, and [reported](PeerEvent::Undelivered) if it is not
    /// delivered; see [Delivery](Self#delivery).
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
        let held = self.owner.0.held.take(message.len() + MESSAGE_COST);
        let held = (held.ok_or(QueueError::PoolFull)?, None);
        self.queue(peer, Some(address), message, held, None).map_err(|(error, _)| error)
    }

    /// Connects to all addresses that `resolver` lists, and keeps connected while they are listed.
    ///
    /// Each listed address is dialled, with backoff and again when the connection has ended. The
    /// peer there must have the identity of its [`Endpoint`], or be any peer that the policy of the
    /// pool trusts; connections are reported by [`PeerEvent::Connected`]. An address that is no
    /// longer listed, for [`removal_delay`](PeerPoolConfig::removal_delay), is no longer dialled.
    /// If no other address of its peer is listed, the connections with that peer are closed,
    /// whichever side dialled them, once each message to it is flushed and its time
    /// [`keep_sent`](PeerPoolConfig::keep_sent) is over, or reported. An address that
    /// was passed to [`send`](Self::send) does not keep them, and is dialled again for the next
    /// message that is sent to it. At most [`max_followed`](PeerPoolConfig::max_followed)
    /// addresses are followed, and [`max_dials`](PeerPoolConfig::max_dials) dialled at once. A list
    /// may contain the addresses of this node, which are recognized and not dialled again.
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
        let (broadcast, reporter) = Broadcast::new(&self.owner.0.events.reports);
        let held = &self.owner.0.held;
        let payload = held.take(message.len()).map(Arc::new);
        for peer in peers {
            let place = payload
                .as_ref()
                .and_then(|payload| Some((held.take(MESSAGE_COST)?, Some(payload.clone()))));
            let reporter = reporter(peer);
            let unqueued = match place {
                None => Err((QueueError::PoolFull, Some(reporter))),
                Some(place) => self.queue(peer, None, message.clone(), place, Some(reporter)),
            };
            if let Err((error, Some(reporter))) = unqueued {
                reporter.unsent(error.into(), message.clone());
            }
        }
        broadcast
    }

    /// Returns the peers that are connected or of which an address is known, in the order of their
    /// identities.
    pub fn peers(&self) -> Vec<CertHash> {
        self.owner.0.peers.lock().reachable()
    }

    /// Queues a message for a peer, to be sent to `address` or to a known address. `held` is its
    /// share of the bytes of the pool.
    fn queue(
        &self,
        peer: CertHash,
        address: Option<SocketAddr>,
        message: Bytes,
        held: (Share, Option<Arc<Share>>),
        reporter: Option<Reporter>,
    ) -> Result<(), (QueueError, Option<Reporter>)> {
        let (inner, runtime) = (&self.owner.0, Handle::current());
        let (size, limit) = (message.len(), inner.config.max_queued_bytes);
        if size > limit {
            return Err((QueueError::TooLarge { size, limit }, reporter));
        }
        if inner.is_own(peer) {
            return Err((QueueError::OwnIdentity, reporter));
        }
        let mut peers = inner.peers.lock();
        let entry = match address {
            Some(_) => peers.entry(peer, || inner.limits()),
            None => peers.get(peer).filter(|entry| entry.is_reachable()),
        };
        let Some(entry) = entry else { return Err((QueueError::NoAddress, reporter)) };
        entry.address = address.or(entry.address);
        let limits = &entry.limits;
        let shares = limits.messages.take(1).zip(limits.bytes.take(size));
        let Some((count, bytes)) = shares else { return Err((QueueError::Full, reporter)) };
        let of_peer = OfPeer::Queued { _count: count, _bytes: bytes };
        let place = Place { of_peer, _of_pool: held };
        let outgoing = OutgoingMessage::new(peer, message, place, reporter, &inner.events.reports);
        let start = |queue: &Arc<Queue>| {
            let task = deliver(inner.clone(), peer, entry.id, queue.clone());
            AbortOnDrop(runtime.spawn(task).abort_handle())
        };
        let sending = match &mut entry.sending {
            Some(sending) => {
                if !sending.is_running() {
                    sending.task = start(&sending.queue);
                }
                sending
            }
            none => {
                let queue = Arc::default();
                let task = start(&queue);
                none.insert(Sending { queue, task })
            }
        };
        let queue = sending.queue.clone();
        // Added while locked, because an idle queue is removed. The task is woken after unlocking.
        queue.push(outgoing);
        drop(peers);
        queue.wake();
        Ok(())
    }

    /// Removes `peer`: cancels its dial and closes its connections immediately. Its messages that
    /// are not known to be delivered are [reported](PeerEvent::Undelivered). Messages that were
    /// received from the peer are still returned by [`recv`](Self::recv).
    pub fn remove(&self, peer: CertHash) {
        self.owner.0.remove(peer);
    }
}

impl<T: NetTransport> fmt::Debug for PeerPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPool").field("peers", &self.owner.0.peers.lock().len()).finish()
    }
}
