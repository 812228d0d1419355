//! What a pool tells its application: changes of peers, and messages that were not delivered.
//!
//! Nothing that is told is lost, and nothing is unbounded:
//!
//! - An undelivered message keeps the [`Place`] that it has held since it was queued.
//! - Of a peer there is one entry, into which changes are merged until the application has received
//!   it. An entry outlives its peer only if the application was told of the peer; of those that came
//!   and went unseen, [`UNSEEN`] are kept and the further ones are counted.
//! - Of a followed address and of a resolver there is one entry each while they are followed.
//!
//! A method that changes [`News`] is called with the state of the pool locked, so that the order of
//! changes is that of the state. It wakes no task: [`Board::wake`] is called after unlocking.

use super::account::Place;
use super::config::DropError;
use crate::resolver::ResolveError;
use bytes::Bytes;
use net_traits::{CertHash, CloseReason, ConnectError, RecvError};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// How many peers that came and went before the application was told of them are kept.
const UNSEEN: usize = 1024;

/// An event of a [`PeerPool`](crate::PeerPool).
///
/// Events of one peer that the application has not received yet are merged: it receives the newest
/// state, and `changes` says how many there were.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent<C> {
    /// There is a connection with a peer, of either side.
    Connected {
        /// The peer.
        peer: CertHash,
        /// The connection on which messages are sent. The pool receives from it; see
        /// [`PeerPool::recv`](crate::PeerPool::recv).
        connection: C,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// Messages are sent on another connection with the peer.
    Replaced {
        /// The peer.
        peer: CertHash,
        /// The connection on which messages are sent.
        connection: C,
        /// Why a connection before it ended; `None` if none has ended.
        reason: Option<CloseReason>,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// There is no connection with the peer any more.
    Disconnected {
        /// The peer.
        peer: CertHash,
        /// Why the last connection ended.
        reason: CloseReason,
        /// Number of merged changes; 1 if none were merged.
        changes: u64,
    },
    /// A message was not delivered.
    Undelivered(Undelivered),
    /// Messages of a peer were not received, for instance because they were too long. Its connection
    /// remains open.
    ReceiveFailed {
        /// The peer.
        peer: CertHash,
        /// Why the last of them was not received.
        error: RecvError,
        /// Number of messages.
        messages: u64,
    },
    /// Peers connected and disconnected while more than 1024 such peers were not told yet.
    Missed {
        /// How often peers did so.
        times: u64,
    },
    /// A [followed](crate::PeerPool::follow) address cannot be reached. It is dialled further with
    /// backoff; what later attempts find is not reported, until one succeeds.
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: ConnectError,
    },
    /// A [followed](crate::PeerPool::follow) resolver failed, or listed too much. The pool keeps
    /// the addresses that it has. The same error is reported once.
    ResolveFailed {
        /// Why.
        error: ResolveError,
    },
}

/// A message that a pool did not deliver, or does not know to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undelivered {
    /// The peer.
    pub peer: CertHash,
    /// The message.
    pub message: Bytes,
    /// Why.
    pub error: DropError,
    /// Whether a connection had taken the message. The peer may have received it then, at most once;
    /// otherwise it has not.
    pub may_have_arrived: bool,
}

/// The receiver of the events of a [`PeerPool`](crate::PeerPool), whose connections are of type `C`.
///
/// Receive the events, or drop this: an undelivered message counts against the limits of its peer
/// until its report is received. If all room is taken by reports, nothing more can be queued.
pub struct PeerEvents<C> {
    board: Arc<Board<C>>,
}

impl<C: Clone> PeerEvents<C> {
    pub(super) fn new(board: Arc<Board<C>>) -> Self {
        Self { board }
    }

    /// Waits for the next event.
    ///
    /// Returns `None` once the pool was dropped and everything was told.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no event.
    pub async fn recv(&mut self) -> Option<PeerEvent<C>> {
        loop {
            let mut changed = pin!(self.board.reports.changed.notified());
            changed.as_mut().enable();
            // In this order: what is told after the first line is received below.
            let is_over = self.board.is_over();
            if let Some(event) = self.board.next() {
                return Some(event);
            }
            if is_over {
                return None;
            }
            changed.await;
        }
    }

    /// Returns the next event if there is one.
    pub fn try_recv(&mut self) -> Option<PeerEvent<C>> {
        self.board.next()
    }
}

impl<C> Drop for PeerEvents<C> {
    fn drop(&mut self) {
        self.board.discard();
    }
}

impl<C> fmt::Debug for PeerEvents<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEvents").finish_non_exhaustive()
    }
}

/// The reports of undelivered messages.
#[derive(Debug, Default)]
pub(super) struct Reports {
    state: Mutex<ReportState>,
    /// Messages that have been queued and are neither delivered nor reported.
    open: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct ReportState {
    queue: VecDeque<(Undelivered, Place)>,
    is_discarded: bool,
}

impl Reports {
    /// A message was queued.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// A message needs no report.
    pub(super) fn end(&self) {
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.changed.notify_one();
        }
    }

    /// Reports a message.
    pub(super) fn report(&self, undelivered: Undelivered, place: Place) {
        let discarded = {
            let mut state = self.state.lock();
            if state.is_discarded {
                Some((undelivered, place))
            } else {
                state.queue.push_back((undelivered, place));
                None
            }
        };
        drop(discarded);
        self.open.fetch_sub(1, Ordering::SeqCst); // after it was queued, for `is_over`
        self.changed.notify_one();
    }

    pub(super) fn next(&self) -> Option<Undelivered> {
        let (undelivered, _place) = self.state.lock().queue.pop_front()?;
        Some(undelivered)
    }
}

/// What the application has not received yet.
#[derive(Debug)]
pub(super) struct Board<C> {
    pub(super) reports: Arc<Reports>,
    news: Mutex<News<C>>,
}

impl<C: Clone> Board<C> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { reports: Arc::default(), news: Mutex::new(News::new()) })
    }

    /// Lets changes be made, see the module.
    pub(super) fn news(&self) -> MutexGuard<'_, News<C>> {
        self.news.lock()
    }

    /// Wakes the application. No lock may be held.
    pub(super) fn wake(&self) {
        self.reports.changed.notify_one();
    }

    /// The pool was dropped.
    pub(super) fn close(&self) {
        self.news.lock().is_closed = true;
        self.wake();
    }

    /// Whether nothing will be told any more.
    fn is_over(&self) -> bool {
        self.news.lock().is_closed && self.reports.open.load(Ordering::SeqCst) == 0
    }

    fn next(&self) -> Option<PeerEvent<C>> {
        let event = self.news.lock().next();
        event.or_else(|| self.reports.next().map(PeerEvent::Undelivered))
    }
}

impl<C> Board<C> {
    /// Nothing is received any more.
    fn discard(&self) {
        let reports = {
            let mut state = self.reports.state.lock();
            state.is_discarded = true;
            std::mem::take(&mut state.queue)
        };
        drop(reports);
        let news = {
            let mut news = self.news.lock();
            let is_closed = news.is_closed;
            std::mem::replace(&mut *news, News { is_closed, is_discarded: true, ..News::new() })
        };
        drop(news);
    }
}

/// Changes that the application was not told, merged.
#[derive(Debug)]
pub(super) struct News<C> {
    peers: HashMap<CertHash, Entry<C>>,
    unreachable: HashMap<SocketAddr, (u64, ConnectError)>,
    resolvers: HashMap<u64, (u64, ResolveError)>,
    /// What has something to tell, in order; the keys are in the entries.
    order: BTreeMap<u64, Topic>,
    next: u64,
    /// Entries of peers of which the application does not know and that are gone.
    unseen: usize,
    missed: u64,
    is_closed: bool,
    is_discarded: bool,
}

#[derive(Debug, Clone, Copy)]
enum Topic {
    Peer(CertHash),
    Address(SocketAddr),
    Resolver(u64),
}

/// What is to be told of a peer.
#[derive(Debug)]
struct Entry<C> {
    /// The id of the connection that the application was told.
    told: Option<u64>,
    now: Option<(u64, C)>,
    /// Why the last connection ended.
    reason: Option<CloseReason>,
    changes: u64,
    failed: Option<(RecvError, u64)>,
    place: Option<u64>,
}

impl<C> Entry<C> {
    fn is_unseen(&self) -> bool {
        self.told.is_none() && self.now.is_none()
    }
}

impl<C> News<C> {
    fn new() -> Self {
        Self {
            peers: HashMap::new(),
            unreachable: HashMap::new(),
            resolvers: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            unseen: 0,
            missed: 0,
            is_closed: false,
            is_discarded: false,
        }
    }

    fn place(&mut self, topic: Topic) -> u64 {
        self.next += 1;
        self.order.insert(self.next, topic);
        self.next
    }
}

impl<C: Clone> News<C> {
    /// Messages to `peer` are sent on this connection; `reason` is why the one before it ended. Returns
    /// the connection that was to be told, to be dropped after unlocking.
    #[must_use]
    pub(super) fn uses(
        &mut self,
        peer: CertHash,
        id: u64,
        connection: &C,
        reason: Option<CloseReason>,
    ) -> Option<C> {
        if self.is_discarded {
            return None;
        }
        self.change(peer, |entry| {
            entry.reason = reason.or(entry.reason.take());
            entry.now.replace((id, connection.clone())).map(|(_, before)| before)
        })
    }

    /// There is no connection with `peer` any more.
    #[must_use]
    pub(super) fn lost(&mut self, peer: CertHash, reason: CloseReason) -> Option<C> {
        if self.is_discarded {
            return None;
        }
        let before = self.change(peer, |entry| {
            entry.reason = Some(reason);
            entry.now.take().map(|(_, before)| before)
        });
        if self.unseen > UNSEEN {
            self.forget(peer);
            self.missed += 1;
        }
        before
    }

    /// A message of `peer` was not received.
    pub(super) fn receive_failed(&mut self, peer: CertHash, error: RecvError) {
        if self.is_discarded {
            return;
        }
        if !self.peers.contains_key(&peer) && self.unseen >= UNSEEN {
            self.missed += 1;
            return;
        }
        self.edit(peer, |entry| {
            let messages = entry.failed.take().map_or(0, |(_, messages)| messages);
            entry.failed = Some((error, messages + 1));
        });
    }

    fn change(
        &mut self,
        peer: CertHash,
        change: impl FnOnce(&mut Entry<C>) -> Option<C>,
    ) -> Option<C> {
        self.edit(peer, |entry| {
            entry.changes += 1;
            change(entry)
        })
    }

    fn edit<O>(&mut self, peer: CertHash, edit: impl FnOnce(&mut Entry<C>) -> O) -> O {
        let place = match self.peers.get(&peer).and_then(|entry| entry.place) {
            Some(place) => place,
            None => self.place(Topic::Peer(peer)),
        };
        let mut is_new = false;
        let entry = self.peers.entry(peer).or_insert_with(|| {
            is_new = true;
            Entry { told: None, now: None, reason: None, changes: 0, failed: None, place: None }
        });
        entry.place = Some(place);
        let was_unseen = !is_new && entry.is_unseen();
        let output = edit(entry);
        self.unseen += usize::from(entry.is_unseen());
        self.unseen -= usize::from(was_unseen);
        output
    }

    fn forget(&mut self, peer: CertHash) {
        if let Some(entry) = self.peers.remove(&peer) {
            self.unseen -= usize::from(entry.is_unseen());
            entry.place.map(|place| self.order.remove(&place));
        }
    }

    /// A followed address cannot be reached.
    pub(super) fn unreachable(&mut self, address: SocketAddr, error: ConnectError) {
        if self.is_discarded {
            return;
        }
        self.reached(address);
        let place = self.place(Topic::Address(address));
        self.unreachable.insert(address, (place, error));
    }

    /// An address was reached, or is not followed any more.
    pub(super) fn reached(&mut self, address: SocketAddr) {
        if let Some((place, _)) = self.unreachable.remove(&address) {
            self.order.remove(&place);
        }
    }

    /// The resolver with this id failed.
    pub(super) fn resolve_failed(&mut self, id: u64, error: ResolveError) {
        if self.is_discarded {
            return;
        }
        self.unfollowed(id);
        let place = self.place(Topic::Resolver(id));
        self.resolvers.insert(id, (place, error));
    }

    /// The resolver with this id is not followed any more.
    pub(super) fn unfollowed(&mut self, id: u64) {
        if let Some((place, _)) = self.resolvers.remove(&id) {
            self.order.remove(&place);
        }
    }

    fn next(&mut self) -> Option<PeerEvent<C>> {
        while let Some((_, topic)) = self.order.pop_first() {
            let event = match topic {
                Topic::Peer(peer) => self.next_of(peer),
                Topic::Address(address) => self
                    .unreachable
                    .remove(&address)
                    .map(|(_, error)| PeerEvent::Unreachable { address, error }),
                Topic::Resolver(id) => {
                    self.resolvers.remove(&id).map(|(_, error)| PeerEvent::ResolveFailed { error })
                }
            };
            if event.is_some() {
                return event;
            }
        }
        let times = std::mem::take(&mut self.missed);
        (times > 0).then_some(PeerEvent::Missed { times })
    }

    fn next_of(&mut self, peer: CertHash) -> Option<PeerEvent<C>> {
        let entry = self.peers.get_mut(&peer)?;
        entry.place = None;
        if let Some((error, messages)) = entry.failed.take() {
            if entry.changes > 0 {
                self.edit(peer, |_| ()); // the rest comes later
            } else if entry.is_unseen() {
                self.forget(peer);
            }
            return Some(PeerEvent::ReceiveFailed { peer, error, messages });
        }
        let changes = std::mem::take(&mut entry.changes);
        let told = std::mem::replace(&mut entry.told, entry.now.as_ref().map(|(id, _)| *id));
        let Some((id, connection)) = &entry.now else {
            let reason = entry.reason.take();
            // As `told` is replaced, the entry counts as unseen only if it did before.
            self.unseen += usize::from(told.is_some());
            self.forget(peer);
            return reason.map(|reason| PeerEvent::Disconnected { peer, reason, changes });
        };
        let connection = connection.clone();
        let reason = entry.reason.take();
        match told {
            None => Some(PeerEvent::Connected { peer, connection, changes }),
            Some(told) if told != *id => {
                Some(PeerEvent::Replaced { peer, connection, reason, changes })
            }
            Some(_) => None, // another connection was used for a while
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> CertHash {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        CertHash::from_bytes(bytes)
    }

    fn over() -> CloseReason {
        CloseReason::TimedOut
    }

    /// Applies changes to one peer (`Some(id)`: that connection is used) and returns what is told.
    fn told(changes: &[&[Option<u64>]]) -> Vec<String> {
        let mut news = News::<u64>::new();
        let mut told = Vec::new();
        for changes in changes {
            for change in *changes {
                let _ = match change {
                    Some(id) => news.uses(peer(1), *id, id, None),
                    None => news.lost(peer(1), over()),
                };
            }
            while let Some(event) = news.next() {
                told.push(match event {
                    PeerEvent::Connected { connection, changes, .. } => {
                        format!("connected {connection} after {changes}")
                    }
                    PeerEvent::Replaced { connection, changes, .. } => {
                        format!("replaced by {connection} after {changes}")
                    }
                    PeerEvent::Disconnected { changes, .. } => format!("lost after {changes}"),
                    event => panic!("{event:?}"),
                });
            }
        }
        assert_eq!((news.unseen, news.order.len()), (0, 0));
        told
    }

    #[test]
    fn changes_of_a_peer_are_merged() {
        assert_eq!(told(&[&[Some(1)], &[None]]), ["connected 1 after 1", "lost after 1"]);
        assert_eq!(told(&[&[Some(1), None]]), ["lost after 2"]);
        assert_eq!(
            told(&[&[Some(1)], &[Some(2)]]),
            ["connected 1 after 1", "replaced by 2 after 1"]
        );
        assert_eq!(
            told(&[&[Some(1)], &[None, Some(2), None, Some(3)], &[None]]),
            ["connected 1 after 1", "replaced by 3 after 4", "lost after 1"]
        );
        assert_eq!(told(&[&[Some(1), Some(2)]]), ["connected 2 after 2"]);
        assert_eq!(told(&[&[Some(1)], &[Some(2), Some(1)]]), ["connected 1 after 1"]);
        assert_eq!(
            told(&[&[Some(1)], &[None, Some(2), None]]),
            ["connected 1 after 1", "lost after 3"]
        );
    }

    #[test]
    fn peers_that_come_and_go_unseen_are_bounded_and_counted() {
        let mut news = News::<u64>::new();
        for number in 0..3000 {
            let _ = news.uses(peer(number), 1, &1, None);
            news.receive_failed(peer(number), RecvError::Reset { code: 1 });
            let _ = news.lost(peer(number), over());
            news.receive_failed(peer(number), RecvError::Reset { code: 1 });
        }
        assert!(news.peers.len() <= UNSEEN && news.order.len() <= UNSEEN);
        let (mut lost, mut missed) = (0, 0);
        while let Some(event) = news.next() {
            match event {
                PeerEvent::Disconnected { .. } => lost += 1,
                PeerEvent::Missed { times } => missed += times,
                PeerEvent::ReceiveFailed { messages, .. } => assert_eq!(messages, 2),
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(lost, UNSEEN);
        assert_eq!(missed, 2 * (3000 - UNSEEN as u64), "each of them, and each failure");
        assert_eq!((news.unseen, news.peers.len()), (0, 0));
    }

    #[test]
    fn errors_are_kept_while_their_cause_is_followed() {
        let mut news = News::<u64>::new();
        let address: SocketAddr = ([10, 0, 0, 1], 1).into();
        news.unreachable(address, ConnectError::Refused(address));
        news.resolve_failed(1, ResolveError::TooMany { listed: 2, limit: 1 });
        news.reached(address);
        assert!(matches!(news.next(), Some(PeerEvent::ResolveFailed { .. })));
        assert!(news.next().is_none() && news.order.is_empty());
    }
}
