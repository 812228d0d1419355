//! `PendingEvents`: changes that the application has not received yet, merged and bounded.
//!
//! - Each peer has one entry, into which its changes are merged until the application has received
//!   them. Of peers that connected and disconnected before the application received an event of
//!   them, only [`UNSEEN`] entries are kept; further ones are counted.
//! - Each followed address and each resolver has one entry while it is followed.
//!
//! The methods that record changes are called with the state of the pool locked, so that changes
//! have the same order as in that state. They wake no task: call
//! [`EventQueue::wake`](super::event_queue::EventQueue::wake) after unlocking.

use super::peer_event::PeerEvent;
use crate::resolver::ResolveError;
use net_traits::{CertHash, CloseReason, ConnectError, RecvError};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// The maximum number of entries of peers that have disconnected and of which the application has
/// received no event.
const UNSEEN: usize = 1024;

/// Changes that the application has not received yet, merged.
#[derive(Debug)]
pub(super) struct PendingEvents<C> {
    peers: HashMap<CertHash, Entry<C>>,
    unreachable: HashMap<SocketAddr, (u64, ConnectError)>,
    resolvers: HashMap<u64, (u64, ResolveError)>,
    /// The entries with an event, in order. Each entry contains its key.
    order: BTreeMap<u64, Topic>,
    next: u64,
    /// The number of entries of peers that are not connected and of which the application has
    /// received no event.
    unseen: usize,
    missed: u64,
    pub(super) is_closed: bool,
    is_discarded: bool,
}

#[derive(Debug, Clone, Copy)]
enum Topic {
    Peer(CertHash),
    Address(SocketAddr),
    Resolver(u64),
}

/// The changes of a peer.
#[derive(Debug)]
struct Entry<C> {
    /// The id of the connection in the last event that the application received.
    received: Option<u64>,
    now: Option<(u64, C)>,
    /// Why the last connection ended.
    reason: Option<CloseReason>,
    changes: u64,
    failed: Option<(RecvError, u64)>,
    position: Option<u64>,
}

impl<C> Entry<C> {
    fn is_unseen(&self) -> bool {
        self.received.is_none() && self.now.is_none()
    }
}

impl<C> PendingEvents<C> {
    pub(super) fn new() -> Self {
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

    /// Discards the changes, and those that follow. Returns the former, to be dropped after
    /// unlocking.
    #[must_use]
    pub(super) fn discard(&mut self) -> Self {
        let is_closed = self.is_closed;
        std::mem::replace(self, Self { is_closed, is_discarded: true, ..Self::new() })
    }

    fn position(&mut self, topic: Topic) -> u64 {
        self.next += 1;
        self.order.insert(self.next, topic);
        self.next
    }
}

impl<C: Clone> PendingEvents<C> {
    /// Records that messages to `peer` are sent on this connection; `reason` is why the previous
    /// one ended. Returns the superseded connection, which was not reported, to be dropped after
    /// unlocking.
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

    /// Records that the last connection with `peer` has ended. Returns the superseded connection.
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

    /// Records that so many messages of `peer` were not received.
    pub(super) fn receive_failed(&mut self, peer: CertHash, error: RecvError, messages: u64) {
        if self.is_discarded {
            return;
        }
        if !self.peers.contains_key(&peer) && self.unseen >= UNSEEN {
            self.missed += 1;
            return;
        }
        self.edit(peer, |entry| {
            let before = entry.failed.take().map_or(0, |(_, messages)| messages);
            entry.failed = Some((error, before + messages));
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
        let position = match self.peers.get(&peer).and_then(|entry| entry.position) {
            Some(position) => position,
            None => self.position(Topic::Peer(peer)),
        };
        let mut is_new = false;
        let entry = self.peers.entry(peer).or_insert_with(|| {
            is_new = true;
            Entry {
                received: None,
                now: None,
                reason: None,
                changes: 0,
                failed: None,
                position: None,
            }
        });
        entry.position = Some(position);
        let was_unseen = !is_new && entry.is_unseen();
        let output = edit(entry);
        self.unseen += usize::from(entry.is_unseen());
        self.unseen -= usize::from(was_unseen);
        output
    }

    fn forget(&mut self, peer: CertHash) {
        if let Some(entry) = self.peers.remove(&peer) {
            self.unseen -= usize::from(entry.is_unseen());
            entry.position.map(|position| self.order.remove(&position));
        }
    }

    /// Records that a followed address cannot be reached.
    pub(super) fn unreachable(&mut self, address: SocketAddr, error: ConnectError) {
        if self.is_discarded {
            return;
        }
        self.reached(address);
        let position = self.position(Topic::Address(address));
        self.unreachable.insert(address, (position, error));
    }

    /// Records that an address was reached, or is not followed any more.
    pub(super) fn reached(&mut self, address: SocketAddr) {
        if let Some((position, _)) = self.unreachable.remove(&address) {
            self.order.remove(&position);
        }
    }

    /// Records that the resolver with this id failed.
    pub(super) fn resolve_failed(&mut self, id: u64, error: ResolveError) {
        if self.is_discarded {
            return;
        }
        self.unfollowed(id);
        let position = self.position(Topic::Resolver(id));
        self.resolvers.insert(id, (position, error));
    }

    /// Records that the resolver with this id is not followed any more.
    pub(super) fn unfollowed(&mut self, id: u64) {
        if let Some((position, _)) = self.resolvers.remove(&id) {
            self.order.remove(&position);
        }
    }

    /// Returns the next event.
    pub(super) fn next(&mut self) -> Option<PeerEvent<C>> {
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
        entry.position = None;
        if let Some((error, messages)) = entry.failed.take() {
            if entry.changes > 0 {
                self.edit(peer, |_| ()); // the other changes are the next event
            } else if entry.is_unseen() {
                self.forget(peer);
            }
            return Some(PeerEvent::ReceiveFailed { peer, error, messages });
        }
        let changes = std::mem::take(&mut entry.changes);
        let received =
            std::mem::replace(&mut entry.received, entry.now.as_ref().map(|(id, _)| *id));
        let Some((id, connection)) = &entry.now else {
            let reason = entry.reason.take();
            // `received` is now `None`: count the entry as unseen until it is removed below.
            self.unseen += usize::from(received.is_some());
            self.forget(peer);
            return reason.map(|reason| PeerEvent::Disconnected { peer, reason, changes });
        };
        let connection = connection.clone();
        let reason = entry.reason.take();
        match received {
            None => Some(PeerEvent::Connected { peer, connection, changes }),
            Some(received) if received != *id => {
                Some(PeerEvent::Replaced { peer, connection, reason, changes })
            }
            Some(_) => None, // the reported connection is used again
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

    fn timed_out() -> CloseReason {
        CloseReason::TimedOut
    }

    /// Applies changes to one peer (`Some(id)`: that connection is used) and returns the events.
    fn events(changes: &[&[Option<u64>]]) -> Vec<String> {
        let mut pending = PendingEvents::<u64>::new();
        let mut events = Vec::new();
        for changes in changes {
            for change in *changes {
                let _ = match change {
                    Some(id) => pending.uses(peer(1), *id, id, None),
                    None => pending.lost(peer(1), timed_out()),
                };
            }
            while let Some(event) = pending.next() {
                events.push(match event {
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
        assert_eq!((pending.unseen, pending.order.len()), (0, 0));
        events
    }

    #[test]
    fn changes_of_a_peer_are_merged() {
        assert_eq!(events(&[&[Some(1)], &[None]]), ["connected 1 after 1", "lost after 1"]);
        assert_eq!(events(&[&[Some(1), None]]), ["lost after 2"]);
        assert_eq!(
            events(&[&[Some(1)], &[Some(2)]]),
            ["connected 1 after 1", "replaced by 2 after 1"]
        );
        assert_eq!(
            events(&[&[Some(1)], &[None, Some(2), None, Some(3)], &[None]]),
            ["connected 1 after 1", "replaced by 3 after 4", "lost after 1"]
        );
        assert_eq!(events(&[&[Some(1), Some(2)]]), ["connected 2 after 2"]);
        assert_eq!(events(&[&[Some(1)], &[Some(2), Some(1)]]), ["connected 1 after 1"]);
        assert_eq!(
            events(&[&[Some(1)], &[None, Some(2), None]]),
            ["connected 1 after 1", "lost after 3"]
        );
    }

    #[test]
    fn peers_that_disconnect_before_an_event_are_bounded_and_counted() {
        let mut pending = PendingEvents::<u64>::new();
        for number in 0..3000 {
            let _ = pending.uses(peer(number), 1, &1, None);
            pending.receive_failed(peer(number), RecvError::Reset { code: 1 }, 1);
            let _ = pending.lost(peer(number), timed_out());
            pending.receive_failed(peer(number), RecvError::Reset { code: 1 }, 1);
        }
        assert!(pending.peers.len() <= UNSEEN && pending.order.len() <= UNSEEN);
        let (mut lost, mut missed) = (0, 0);
        while let Some(event) = pending.next() {
            match event {
                PeerEvent::Disconnected { .. } => lost += 1,
                PeerEvent::Missed { times } => missed += times,
                PeerEvent::ReceiveFailed { messages, .. } => assert_eq!(messages, 2),
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(lost, UNSEEN);
        assert_eq!(missed, 2 * (3000 - UNSEEN as u64), "each of them, and each failure");
        assert_eq!((pending.unseen, pending.peers.len()), (0, 0));
    }

    #[test]
    fn errors_are_dropped_when_the_address_is_reached() {
        let mut pending = PendingEvents::<u64>::new();
        let address: SocketAddr = ([10, 0, 0, 1], 1).into();
        pending.unreachable(address, ConnectError::Refused(address));
        pending.resolve_failed(1, ResolveError::TooMany { listed: 2, limit: 1 });
        pending.reached(address);
        assert!(matches!(pending.next(), Some(PeerEvent::ResolveFailed { .. })));
        assert!(pending.next().is_none() && pending.order.is_empty());
    }
}
