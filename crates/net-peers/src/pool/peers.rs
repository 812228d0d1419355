//! The state of a pool's peers: their connections, which of two is used, and when to dial again.
//! This module spawns no task and calls no connection.

use super::broadcast::Outgoing;
use futures_util::future::{BoxFuture, Shared};
use net_traits::{CertHash, ConnectError};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Two connections between the same peers that begin within this time were dialled at the same
/// time.
const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// A connection that the peer ends within this time counts as a failure.
pub(super) const STABLE: Duration = Duration::from_secs(10);

pub(super) struct Peers<C: Clone> {
    by_identity: HashMap<CertHash, Peer<C>>,
    /// The tasks that follow resolvers.
    follows: HashMap<u64, AbortOnDrop>,
    next: u64,
    /// Number of entries at which unused ones are removed.
    tidy_at: usize,
    /// The pool was dropped; no connection is inserted.
    is_closed: bool,
}

pub(super) type Dial<C> = Shared<BoxFuture<'static, Result<C, ConnectError>>>;

pub(super) struct Peer<C: Clone> {
    /// Distinguishes this entry from a later one of the same peer.
    pub(super) id: u64,
    /// The connection on which messages are sent.
    pub(super) current: Option<Pooled<C>>,
    /// The redundant connection. The peer may still use it, permanently if `current` is dead.
    spare: Option<Pooled<C>>,
    /// The attempt in progress.
    pub(super) dial: Option<(Dial<C>, AbortOnDrop)>,
    pub(super) queue: Option<Queue>,
    /// The most recent address of the peer, if known.
    pub(super) address: Option<SocketAddr>,
    /// Addresses of the peer that a resolver lists.
    followed: Vec<SocketAddr>,
    /// Number of consecutive failures, and the end of their backoff.
    failed: u32,
    not_before: Option<Instant>,
}

/// A connection of the pool.
pub(super) struct Pooled<C> {
    pub(super) id: u64,
    pub(super) connection: C,
    /// Whether this side dialled it.
    pub(super) is_ours: bool,
    since: Instant,
    /// Removes the connection from the pool when it ends.
    _watch: AbortOnDrop,
}

pub(super) struct Queue {
    pub(super) messages: mpsc::Sender<Outgoing>,
    pub(super) bytes: Arc<AtomicUsize>,
    pub(super) _task: AbortOnDrop,
}

/// Aborts a task when its owner is dropped.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<C: Clone> Peers<C> {
    pub(super) fn new() -> Self {
        Self {
            by_identity: HashMap::new(),
            follows: HashMap::new(),
            next: 0,
            tidy_at: 64,
            is_closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// The peers to which messages can be sent.
    pub(super) fn reachable(&self) -> Vec<CertHash> {
        let reachable = self.by_identity.iter().filter(|(_, peer)| peer.is_reachable());
        reachable.map(|(identity, _)| *identity).collect()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns the entry of a peer, creating it if necessary. `None` if the pool was dropped.
    pub(super) fn entry(&mut self, peer: CertHash) -> Option<&mut Peer<C>> {
        if self.is_closed {
            return None;
        }
        if self.by_identity.len() >= self.tidy_at {
            self.by_identity.retain(|_, entry| !entry.is_empty());
            self.tidy_at = 2 * self.by_identity.len().max(32);
        }
        let id = self.next_id();
        Some(self.by_identity.entry(peer).or_insert_with(|| Peer {
            id,
            current: None,
            spare: None,
            dial: None,
            queue: None,
            address: None,
            followed: Vec::new(),
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

    /// Closes the state and returns its connections, and the tasks that follow resolvers.
    #[must_use]
    pub(super) fn close(&mut self) -> (HashMap<CertHash, Peer<C>>, HashMap<u64, AbortOnDrop>) {
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

    /// Notes that a resolver lists an address of a peer.
    pub(super) fn follow(&mut self, peer: CertHash, address: SocketAddr) {
        if let Some(entry) = self.entry(peer).filter(|entry| !entry.followed.contains(&address)) {
            entry.followed.push(address);
        }
    }

    /// A resolver lists an address of a peer no longer. Returns its connections if it was the last
    /// known address.
    #[must_use]
    pub(super) fn unfollow(&mut self, peer: CertHash, address: SocketAddr) -> Option<Vec<C>> {
        let entry = self.by_identity.get_mut(&peer)?;
        entry.followed.retain(|followed| *followed != address);
        let connections = entry.address().is_none().then(|| entry.connections());
        self.tidy(peer);
        connections
    }

    /// Removes the entry of a peer if it is unused.
    pub(super) fn tidy(&mut self, peer: CertHash) {
        if self.by_identity.get(&peer).is_some_and(Peer::is_empty) {
            self.by_identity.remove(&peer);
        }
    }
}

impl<C> Pooled<C> {
    pub(super) fn new(id: u64, connection: C, is_ours: bool, watch: AbortOnDrop) -> Self {
        Self { id, connection, is_ours, since: Instant::now(), _watch: watch }
    }
}

impl<C: Clone> Peer<C> {
    /// Returns the connections of the peer.
    pub(super) fn connections(&self) -> Vec<C> {
        [&self.current, &self.spare].into_iter().flatten().map(|it| it.connection.clone()).collect()
    }

    /// Returns where the peer can be dialled, as far as is known.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address.or(self.followed.last().copied())
    }

    /// Whether messages can be sent to the peer, as far as is known.
    pub(super) fn is_reachable(&self) -> bool {
        self.current.is_some() || self.address().is_some()
    }

    /// Whether the entry is unused.
    fn is_empty(&self) -> bool {
        let has_connection = self.current.is_some() || self.spare.is_some();
        let is_followed = !self.followed.is_empty();
        !has_connection
            && !is_followed
            && self.dial.is_none()
            && self.queue.is_none()
            && self.pause().is_none()
    }

    /// Inserts a connection. If there are now two, the one that the peer with the smaller identity
    /// dialled is used if they were dialled at the same time, otherwise the newer one. `ours_stays`
    /// says whether this side has the smaller identity. Returns the id of the redundant connection
    /// if this side dialled it, and the connection that was displaced.
    #[must_use]
    pub(super) fn take_in(
        &mut self,
        new: Pooled<C>,
        ours_stays: bool,
    ) -> (Option<u64>, Option<Pooled<C>>) {
        let Some(existing) = self.current.take() else {
            self.current = Some(new);
            return (None, None);
        };
        let is_simultaneous =
            existing.is_ours != new.is_ours && existing.since.elapsed() < SIMULTANEOUS;
        let new_stays = !is_simultaneous || new.is_ours == ours_stays;
        let (stays, loser) = if new_stays { (new, existing) } else { (existing, new) };
        let ours = loser.is_ours.then_some(loser.id);
        self.current = Some(stays);
        (ours, self.spare.replace(loser))
    }

    /// Removes a connection; the other one, if any, replaces it.
    #[must_use]
    pub(super) fn take_out(&mut self, id: u64) -> Option<Pooled<C>> {
        if self.current.as_ref().is_some_and(|it| it.id == id) {
            return std::mem::replace(&mut self.current, self.spare.take());
        }
        self.take_spare(id)
    }

    /// Removes a redundant connection.
    #[must_use]
    pub(super) fn take_spare(&mut self, id: u64) -> Option<Pooled<C>> {
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

    /// Records the end of a dialled connection, which the peer may have caused.
    pub(super) fn ended(
        &mut self,
        ended: &Pooled<C>,
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

    fn pooled(id: u64, is_ours: bool) -> Pooled<()> {
        Pooled::new(id, (), is_ours, AbortOnDrop(tokio::spawn(async {}).abort_handle()))
    }

    fn current(peer: &Peer<()>) -> Option<u64> {
        peer.current.as_ref().map(|it| it.id)
    }

    #[tokio::test(start_paused = true)]
    async fn both_sides_choose_the_same_of_two() {
        // Each order of arrival, seen by the peer with the smaller and with the larger identity.
        for is_smaller in [true, false] {
            for ours_first in [true, false] {
                let mut peers = Peers::new();
                let entry = peers.entry(PEER).unwrap();
                let (first, second) = (pooled(1, ours_first), pooled(2, !ours_first));
                assert!(entry.take_in(first, is_smaller).1.is_none());
                let (retired, left) = entry.take_in(second, is_smaller);
                let ours = if ours_first { 1 } else { 2 };
                let theirs = 3 - ours;
                assert_eq!(current(entry), Some(if is_smaller { ours } else { theirs }));
                assert_eq!(retired, (!is_smaller).then_some(ours), "the dialler ends it");
                assert!(left.is_none());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn later_the_newer_one_counts() {
        let mut peers = Peers::new();
        let entry = peers.entry(PEER).unwrap();
        let _ = entry.take_in(pooled(1, true), true);
        tokio::time::sleep(SIMULTANEOUS).await;
        let (retired, _) = entry.take_in(pooled(2, false), true);
        assert_eq!((current(entry), retired), (Some(2), Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_loser_takes_over_when_the_winner_ends() {
        let mut peers = Peers::new();
        let entry = peers.entry(PEER).unwrap();
        let _ = entry.take_in(pooled(1, true), true);
        let _ = entry.take_in(pooled(2, false), true);
        assert_eq!(current(entry), Some(1));
        assert_eq!(entry.take_out(1).map(|it| it.id), Some(1));
        assert_eq!(current(entry), Some(2));
        assert!(entry.take_spare(2).is_none(), "it is in use now");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_remembered_until_a_connection_lasts() {
        let mut peers = Peers::new();
        let second = |failed: u32| Duration::from_secs(failed.into());
        let entry = peers.entry(PEER).unwrap();
        entry.failed(second);
        entry.failed(second);
        assert_eq!(entry.not_before, Some(Instant::now() + Duration::from_secs(2)));
        peers.tidy(PEER);
        assert_eq!(peers.len(), 1, "an entry is kept while it is in use");
        let brief = pooled(1, true);
        let entry = peers.get(PEER).unwrap();
        entry.ended(&brief, true, second);
        assert_eq!(entry.failed, 3);
        let lasting = pooled(2, true);
        tokio::time::sleep(STABLE).await;
        entry.ended(&lasting, true, second);
        assert_eq!((entry.failed, entry.not_before), (0, None));
        peers.tidy(PEER);
        assert_eq!(peers.len(), 0);
    }
}
