//! The state of a pool's peers: their connections, which of two is used, and when to dial again.
//! This module spawns no tasks and calls no methods of connections.
//!
//! # Which of two connections is used
//!
//! Messages are sent on the newest connection: a peer that connects again may have restarted, and
//! then the older connection is dead although this side has not noticed. If both sides dialled at
//! the same time, each may regard a different connection as the newer one. Both work meanwhile,
//! since each side receives from both. Two rules make them agree. A message on the connection that
//! the side with the smaller identity dialled proves that it is alive, and it is used again. A
//! connection that is not used is closed once it is silent, first by the side that dialled it (see
//! `task::retire`).

use super::config::DropError;
use super::pooled_connection::{PeerLimits, PooledConnection, Role, STABLE};
use super::queue::Queue;
use futures_util::future::{BoxFuture, Shared};
use net_traits::{CertHash, ConnectError};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Two connections between the same peers that begin within this time may have been dialled at the
/// same time.
const SIMULTANEOUS: Duration = Duration::from_secs(10);

pub(super) struct Peers<C> {
    /// Ordered, so that operations on all peers have the same order in each simulation.
    by_identity: BTreeMap<CertHash, Peer<C>>,
    /// The tasks that follow resolvers.
    follows: BTreeMap<u64, AbortOnDrop>,
    next: u64,
    /// Number of entries at which unused ones are removed.
    prune_at: usize,
    /// Whether the pool was dropped. No connection is inserted then.
    is_closed: bool,
}

pub(super) type Dial<C> = Shared<BoxFuture<'static, Result<C, ConnectError>>>;

pub(super) struct Peer<C> {
    /// Distinguishes this entry from a later one of the same peer.
    pub(super) id: u64,
    pub(super) limits: Arc<PeerLimits>,
    /// The connection on which messages are sent.
    pub(super) current: Option<Arc<PooledConnection<C>>>,
    /// The other connection. The peer may still use it.
    spare: Option<Arc<PooledConnection<C>>>,
    /// The attempt in progress.
    pub(super) dial: Option<(Dial<C>, AbortOnDrop)>,
    pub(super) sending: Option<Sending>,
    /// The most recent address of the peer, if known.
    pub(super) address: Option<SocketAddr>,
    /// Addresses of the peer that resolvers list.
    followed: Vec<Listed>,
    /// Whether the last of these was removed and the connections are not closed yet.
    is_unlisted: bool,
    /// Number of consecutive failures, and the end of their backoff.
    failed: u32,
    not_before: Option<Instant>,
}

/// An address that a resolver lists. Several resolvers may list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    /// The id of the resolver.
    pub(super) resolver: u64,
    pub(super) address: SocketAddr,
}

/// The queue of a peer and the task that sends it.
pub(super) struct Sending {
    pub(super) queue: Arc<Queue>,
    pub(super) task: AbortOnDrop,
}

impl Sending {
    /// Returns whether the task runs. It does not if its runtime was shut down.
    pub(super) fn is_running(&self) -> bool {
        !self.task.0.is_finished()
    }
}

impl Drop for Sending {
    /// Reports the queued messages. The task reports the message that it is sending.
    fn drop(&mut self) {
        self.queue
            .drain()
            .into_iter()
            .for_each(|outgoing| outgoing.undelivered(DropError::Removed));
    }
}

/// Aborts a task when its owner is dropped.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<C> Peers<C> {
    pub(super) fn new() -> Self {
        Self {
            by_identity: BTreeMap::new(),
            follows: BTreeMap::new(),
            next: 0,
            prune_at: 64,
            is_closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// Returns the peers to which messages can be sent.
    pub(super) fn reachable(&self) -> Vec<CertHash> {
        let reachable = self.by_identity.iter().filter(|(_, peer)| peer.is_reachable());
        reachable.map(|(identity, _)| *identity).collect()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns the entry of a peer, creating it with `limits` if necessary. `None` if the pool was
    /// dropped.
    pub(super) fn entry(
        &mut self,
        peer: CertHash,
        limits: impl FnOnce() -> Arc<PeerLimits>,
    ) -> Option<&mut Peer<C>> {
        if self.is_closed {
            return None;
        }
        if self.by_identity.len() >= self.prune_at {
            self.by_identity.retain(|_, entry| !entry.is_empty());
            self.prune_at = 2 * self.by_identity.len().max(32);
        }
        let id = self.next_id();
        Some(self.by_identity.entry(peer).or_insert_with(|| Peer {
            id,
            limits: limits(),
            current: None,
            spare: None,
            dial: None,
            sending: None,
            address: None,
            followed: Vec::new(),
            is_unlisted: false,
            failed: 0,
            not_before: None,
        }))
    }

    /// Returns the entry with the id `id`, if it still exists.
    pub(super) fn same(&mut self, peer: CertHash, id: u64) -> Option<&mut Peer<C>> {
        self.by_identity.get_mut(&peer).filter(|entry| entry.id == id)
    }

    pub(super) fn get(&mut self, peer: CertHash) -> Option<&mut Peer<C>> {
        self.by_identity.get_mut(&peer)
    }

    #[must_use]
    pub(super) fn remove(&mut self, peer: CertHash) -> Option<Peer<C>> {
        self.by_identity.remove(&peer)
    }

    /// Removes and returns the peers, and the tasks that follow resolvers. No peer is added
    /// afterwards.
    #[must_use]
    pub(super) fn close(&mut self) -> (BTreeMap<CertHash, Peer<C>>, BTreeMap<u64, AbortOnDrop>) {
        self.is_closed = true;
        (std::mem::take(&mut self.by_identity), std::mem::take(&mut self.follows))
    }

    /// Keeps a task that follows a resolver, until the pool is dropped.
    pub(super) fn add_follow(&mut self, id: u64, task: AbortOnDrop) {
        self.follows.insert(id, task);
    }

    #[must_use]
    pub(super) fn remove_follow(&mut self, id: u64) -> Option<AbortOnDrop> {
        self.follows.remove(&id)
    }

    /// Records that a resolver lists an address of a peer.
    pub(super) fn follow(
        &mut self,
        peer: CertHash,
        listed: Listed,
        limits: impl FnOnce() -> Arc<PeerLimits>,
    ) {
        let entry = self.entry(peer, limits);
        if let Some(entry) = entry.filter(|entry| !entry.followed.contains(&listed)) {
            entry.followed.push(listed);
            entry.is_unlisted = false;
        }
    }

    /// Forgets that a resolver lists an address of a peer.
    pub(super) fn unfollow(&mut self, peer: CertHash, listed: Listed) {
        if let Some(entry) = self.by_identity.get_mut(&peer) {
            entry.followed.retain(|it| *it != listed);
            self.prune(peer);
        }
    }

    /// Records that a resolver no longer lists a peer, unless one lists it at an address. Returns the
    /// connections to close, see [`Peer::take_unlisted`].
    #[must_use]
    pub(super) fn unlist(&mut self, peer: CertHash) -> Vec<Arc<PooledConnection<C>>> {
        if let Some(entry) = self.by_identity.get_mut(&peer) {
            entry.is_unlisted = entry.followed.is_empty();
        }
        self.take_unlisted(peer)
    }

    /// Returns the connections of a peer to close, see [`Peer::take_unlisted`].
    #[must_use]
    pub(super) fn take_unlisted(&mut self, peer: CertHash) -> Vec<Arc<PooledConnection<C>>> {
        let connections = self.by_identity.get_mut(&peer).map(Peer::take_unlisted);
        self.prune(peer);
        connections.unwrap_or_default()
    }

    /// Removes the entry of a peer if it is unused.
    pub(super) fn prune(&mut self, peer: CertHash) {
        if self.by_identity.get(&peer).is_some_and(Peer::is_empty) {
            self.by_identity.remove(&peer);
        }
    }
}

impl<C> Peer<C> {
    /// Returns the connections of the peer.
    pub(super) fn connections(&self) -> Vec<Arc<PooledConnection<C>>> {
        [&self.current, &self.spare].into_iter().flatten().cloned().collect()
    }

    /// Keeps its connections although no resolver lists it, since the application asks for one.
    pub(super) fn keep(&mut self) {
        self.is_unlisted = false;
    }

    /// Returns the connections to close if no resolver lists the peer any more, each message to it is
    /// settled and it is not dialled. Forgets its address: an application that once sent to it would keep
    /// it for good.
    #[must_use]
    pub(super) fn take_unlisted(&mut self) -> Vec<Arc<PooledConnection<C>>> {
        let is_idle = self.sending.as_ref().is_none_or(|it| it.queue.is_idle());
        if !self.is_unlisted || !is_idle || self.dial.is_some() {
            return Vec::new();
        }
        let connections = self.connections();
        if !connections.iter().all(|pooled| pooled.in_flight.is_empty()) {
            return Vec::new();
        }
        self.is_unlisted = false;
        self.address = None;
        connections
    }

    /// Returns the known addresses of the peer.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.address.into_iter().collect();
        for Listed { address, .. } in self.followed.iter().rev() {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }

    /// Returns the address to dial after so many failures: each time the next one.
    pub(super) fn address_after(&self, failures: u32) -> Option<SocketAddr> {
        let addresses = self.addresses();
        let turn = failures as usize % addresses.len().max(1);
        addresses.get(turn).copied()
    }

    /// Returns whether the peer is connected or has a known address.
    pub(super) fn is_reachable(&self) -> bool {
        self.current.is_some() || self.address.is_some() || !self.followed.is_empty()
    }

    /// Returns whether the entry is unused.
    fn is_empty(&self) -> bool {
        let has_connection = self.current.is_some() || self.spare.is_some();
        let is_followed = !self.followed.is_empty();
        !has_connection
            && !is_followed
            && self.dial.is_none()
            && self.sending.is_none()
            && self.limits.are_unused()
            && self.pause().is_none()
    }

    /// Inserts a connection, on which messages are sent from now on. Returns the connections whose
    /// role has changed.
    #[must_use]
    pub(super) fn insert(
        &mut self,
        new: Arc<PooledConnection<C>>,
    ) -> Vec<Arc<PooledConnection<C>>> {
        let mut changed = Vec::new();
        if let Some(existing) = self.current.replace(new) {
            existing.set_role(Role::Spare);
            changed.push(existing.clone());
            if let Some(displaced) = self.spare.replace(existing) {
                displaced.set_role(Role::Displaced);
                changed.push(displaced);
            }
        }
        changed
    }

    /// Records that the peer sent on a connection that is not used. If the two connections are
    /// simultaneous and this is the preferred one, it is used again. Returns the connections whose
    /// role has changed.
    #[must_use]
    pub(super) fn received_on_spare(&mut self, id: u64) -> Vec<Arc<PooledConnection<C>>> {
        let (Some(current), Some(spare)) = (&mut self.current, &mut self.spare) else {
            return Vec::new();
        };
        let apart = current.since.saturating_duration_since(spare.since);
        let are_simultaneous = current.is_ours != spare.is_ours && apart < SIMULTANEOUS;
        if spare.id != id || !are_simultaneous || !spare.is_preferred() {
            return Vec::new();
        }
        std::mem::swap(current, spare);
        current.set_role(Role::Current);
        spare.set_role(Role::Spare);
        vec![current.clone(), spare.clone()]
    }

    /// Removes a connection; the other one, if any, replaces it.
    #[must_use]
    pub(super) fn remove(&mut self, id: u64) -> Option<Arc<PooledConnection<C>>> {
        if self.current.as_ref().is_some_and(|it| it.id == id) {
            if let Some(spare) = &self.spare {
                spare.set_role(Role::Current);
            }
            return std::mem::replace(&mut self.current, self.spare.take());
        }
        self.take_spare(id)
    }

    /// Removes the connection that is not used, if it can be closed.
    #[must_use]
    pub(super) fn take_dispensable(&mut self, id: u64) -> Option<Arc<PooledConnection<C>>> {
        let current = self.current.as_ref()?;
        self.spare.take_if(|it| it.id == id && it.is_dispensable(current))
    }

    fn take_spare(&mut self, id: u64) -> Option<Arc<PooledConnection<C>>> {
        self.spare.take_if(|it| it.id == id)
    }

    /// Returns the end of the backoff, or `None` if there is a connection.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.not_before.filter(|until| self.current.is_none() && *until > Instant::now())
    }

    /// Records a failed attempt and starts the backoff.
    pub(super) fn failed(&mut self, delay: impl FnOnce(u32) -> Duration) {
        self.failed = self.failed.saturating_add(1);
        self.not_before = Some(Instant::now() + delay(self.failed));
    }

    /// Records the end of a connection. A dialled one that the peer ended soon counts as a failure.
    pub(super) fn ended(
        &mut self,
        ended: &PooledConnection<C>,
        by_peer: bool,
        delay: impl FnOnce(u32) -> Duration,
    ) {
        if ended.since.elapsed() >= STABLE {
            self.failed = 0;
            self.not_before = None;
        } else if ended.is_ours && by_peer {
            self.failed(delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: CertHash = CertHash::from_bytes([1; 32]);

    fn limits() -> Arc<PeerLimits> {
        PeerLimits::new(1, 1, 1)
    }

    fn pooled(id: u64, is_ours: bool, is_smaller: bool) -> Arc<PooledConnection<()>> {
        PooledConnection::new(id, (), is_ours, is_smaller, limits()).unwrap()
    }

    fn current(peer: &Peer<()>) -> Option<u64> {
        peer.current.as_ref().map(|it| it.id)
    }

    fn roles(connections: &[Arc<PooledConnection<()>>]) -> Vec<(u64, Role)> {
        let role = |pooled: &PooledConnection<()>| {
            let all = [Role::Current, Role::Spare, Role::Displaced];
            all.into_iter().find(|role| pooled.has_role(*role)).unwrap()
        };
        connections.iter().map(|pooled| (pooled.id, role(pooled))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_connection_is_used_until_the_preferred_one_receives() {
        for is_smaller in [true, false] {
            for ours_first in [true, false] {
                let mut peers = Peers::new();
                let entry = peers.entry(PEER, limits).unwrap();
                let first = pooled(1, ours_first, is_smaller);
                assert!(entry.insert(first).is_empty());
                let changed = entry.insert(pooled(2, !ours_first, is_smaller));
                assert_eq!(roles(&changed), [(1, Role::Spare)]);
                assert_eq!(current(entry), Some(2));
                let changed = entry.received_on_spare(1);
                // The peer with the smaller identity dialled it.
                let is_preferred = ours_first == is_smaller;
                assert_eq!(current(entry), Some(if is_preferred { 1 } else { 2 }));
                let expected: &[_] =
                    if is_preferred { &[(1, Role::Current), (2, Role::Spare)] } else { &[] };
                assert_eq!(roles(&changed), expected);
                assert!(entry.received_on_spare(if is_preferred { 2 } else { 1 }).is_empty());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_simultaneous_dials_the_newest_connection_is_used() {
        let mut peers = Peers::new();
        let entry = peers.entry(PEER, limits).unwrap();
        let _ = entry.insert(pooled(1, true, true));
        tokio::time::sleep(SIMULTANEOUS).await;
        let _ = entry.insert(pooled(2, false, true));
        assert!(entry.received_on_spare(1).is_empty());
        assert_eq!(current(entry), Some(2));
        let changed = entry.insert(pooled(3, false, true));
        assert_eq!(roles(&changed), [(2, Role::Spare), (1, Role::Displaced)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_spare_connection_is_used_when_the_current_one_ends() {
        let mut peers = Peers::new();
        let entry = peers.entry(PEER, limits).unwrap();
        let _ = entry.insert(pooled(1, true, true));
        let _ = entry.insert(pooled(2, false, true));
        assert_eq!(entry.remove(2).map(|it| it.id), Some(2));
        assert_eq!(roles(&entry.connections()), [(1, Role::Current)]);
        assert!(entry.take_spare(1).is_none(), "it is in use now");
    }

    #[test]
    fn after_a_failure_the_next_address_is_dialled() {
        let mut peers = Peers::<()>::new();
        let address = |number| SocketAddr::from(([10, 0, 0, number], 1));
        for (resolver, number) in [(1, 1), (1, 2), (2, 2)] {
            peers.follow(PEER, Listed { resolver, address: address(number) }, limits);
        }
        let entry = peers.get(PEER).unwrap();
        entry.address = Some(address(1));
        let dialled: Vec<_> = (0..4).filter_map(|failures| entry.address_after(failures)).collect();
        assert_eq!(dialled, [address(1), address(2), address(1), address(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_until_a_connection_lasts() {
        let mut peers = Peers::new();
        let second = |failed: u32| Duration::from_secs(failed.into());
        let entry = peers.entry(PEER, limits).unwrap();
        entry.failed(second);
        entry.failed(second);
        assert_eq!(entry.not_before, Some(Instant::now() + Duration::from_secs(2)));
        peers.prune(PEER);
        assert_eq!(peers.len(), 1, "an entry is kept while it is in use");
        let brief = pooled(1, true, true);
        let entry = peers.get(PEER).unwrap();
        entry.ended(&brief, true, second);
        assert_eq!(entry.failed, 3);
        let lasting = pooled(2, true, true);
        tokio::time::sleep(STABLE).await;
        entry.ended(&lasting, true, second);
        assert_eq!((entry.failed, entry.not_before), (0, None));
        peers.prune(PEER);
        assert_eq!(peers.len(), 0);
    }
}
