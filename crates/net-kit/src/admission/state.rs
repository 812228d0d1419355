//! `State`: which connections and handshakes count, and which handshake is evicted. Pure.

use super::eviction::Eviction;
use net_traits::Limit;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The duration after which a handshake can be evicted by a new attempt: 100 ms.
pub const STALLED: Duration = Duration::from_millis(100);

/// How long the address of a connection that has ended counts it while too many are kept: two minutes.
pub const KEPT: Duration = Duration::from_secs(120);

/// How many connections peers may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections in total, including handshakes.
    pub connections: usize,
    /// Connections from one IP address, or from one /64 network of IPv6 addresses.
    pub per_ip: usize,
    /// Connections of one identity. The [registry](crate::registry) applies it: the newest replaces
    /// the oldest.
    pub per_identity: usize,
    /// Handshakes in progress.
    pub handshakes: usize,
    /// Handshakes in progress from one IP address, or from one /64 network of IPv6 addresses.
    pub handshakes_per_ip: usize,
}

/// The number of a handshake at an [`Admission`](super::Admission). Those that began later have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandshakeNumber(u64);

#[derive(Debug, Default)]
pub(super) struct State {
    next: u64,
    pub(super) connections: usize,
    /// By number, the oldest first.
    pub(super) handshakes: BTreeMap<HandshakeNumber, Pending>,
    pub(super) per_ip: HashMap<IpAddr, usize>,
    pub(super) handshakes_per_ip: HashMap<IpAddr, usize>,
    pub(super) refused: HashMap<Limit, u64>,
    pub(super) is_under_pressure: bool,
    /// By number.
    listeners: HashMap<u64, OfListener>,
    /// The libraries keep too many connections that have ended.
    pub(super) is_crowded: bool,
    /// Connections that have ended and still count for their addresses, and until when.
    pub(super) kept: VecDeque<(Instant, IpAddr)>,
}

/// The address of a place, and the number of its listener, if that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) remote: SocketAddr,
    pub(super) listener: Option<u64>,
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct Pending {
    peer: Peer,
    since: Instant,
    eviction: Arc<Eviction>,
}

/// The connections of a listener.
#[derive(Debug)]
struct OfListener {
    /// Those that the library kept after their end, and until when they count. A listener without
    /// attempts does not learn that they are released.
    kept: (usize, Instant),
    /// Those that have a place.
    places: usize,
}

#[derive(Debug)]
pub(super) enum Phase {
    Handshake { eviction: Arc<Eviction> },
    Established,
}

impl State {
    /// Returns the limit that a new peer at `ip` would exceed, and whether only the handshakes of
    /// one address count for it (`Some`) or all.
    pub(super) fn reached(
        &self,
        limits: &ConnectionLimits,
        ip: IpAddr,
    ) -> Option<(Limit, Option<IpAddr>)> {
        let of_ip = |counts: &HashMap<_, _>| counts.get(&ip).copied().unwrap_or(0);
        if self.connections >= limits.connections {
            Some((Limit::Connections, None))
        } else if of_ip(&self.per_ip) >= limits.per_ip {
            Some((Limit::PerIp, Some(ip)))
        } else if of_ip(&self.handshakes_per_ip) >= limits.handshakes_per_ip {
            Some((Limit::Handshakes, Some(ip)))
        } else if self.handshakes.len() >= limits.handshakes {
            Some((Limit::Handshakes, None))
        } else {
            None
        }
    }

    /// Begins a handshake, and returns its number.
    pub(super) fn begin(&mut self, peer: Peer) -> (HandshakeNumber, Phase) {
        self.next += 1;
        self.connections += 1;
        if let Some(listener) = self.listener(peer) {
            listener.places += 1;
        }
        let ip = network(peer.remote.ip());
        *self.per_ip.entry(ip).or_default() += 1;
        *self.handshakes_per_ip.entry(ip).or_default() += 1;
        let eviction = Arc::new(Eviction::default());
        let pending_handshake = Pending { peer, since: Instant::now(), eviction: eviction.clone() };
        let number = HandshakeNumber(self.next);
        self.handshakes.insert(number, pending_handshake);
        (number, Phase::Handshake { eviction })
    }

    /// Ends the oldest handshake, of `ip` if that is given, provided that it has stalled. Returns
    /// its address.
    pub(super) fn evict(&mut self, ip: Option<IpAddr>) -> Option<SocketAddr> {
        let counts = |it: &Pending| ip.is_none_or(|ip| network(it.peer.remote.ip()) == ip);
        let (number, oldest) = self.handshakes.iter().find(|(_, it)| counts(it))?;
        if oldest.since.elapsed() < STALLED {
            return None;
        }
        let (number, peer) = (*number, oldest.peer);
        oldest.eviction.evict();
        self.end_handshake(number);
        self.end_connection(peer);
        Some(peer.remote)
    }

    /// Returns whether the handshake was in progress.
    pub(super) fn end_handshake(&mut self, number: HandshakeNumber) -> bool {
        let Some(ended) = self.handshakes.remove(&number) else { return false };
        release(&mut self.handshakes_per_ip, &network(ended.peer.remote.ip()));
        true
    }

    pub(super) fn end_connection(&mut self, peer: Peer) {
        self.connections -= 1;
        if let Some(listener) = self.listener(peer) {
            listener.places -= 1;
        }
        let ip = network(peer.remote.ip());
        match self.is_crowded {
            true => self.kept.push_back((Instant::now() + KEPT, ip)),
            false => release(&mut self.per_ip, &ip),
        }
    }

    /// Returns the listener of a peer, unless it was dropped.
    fn listener(&mut self, peer: Peer) -> Option<&mut OfListener> {
        self.listeners.get_mut(&peer.listener?)
    }

    /// Releases the connections that have ended long ago, and the oldest beyond `limit`.
    pub(super) fn release_kept(&mut self, limit: usize) {
        let now = Instant::now();
        while let Some((until, ip)) = self.kept.front()
            && (*until <= now || self.kept.len() > limit)
        {
            release(&mut self.per_ip, ip);
            self.kept.pop_front();
        }
    }

    /// Updates the pressure, and returns whether it changed.
    pub(super) fn update_pressure(&mut self, limits: &ConnectionLimits) -> bool {
        let part = if self.is_under_pressure { 4 } else { 2 };
        let is_near = |count: usize, limit: usize| count > 0 && count >= limit / part;
        let now = is_near(self.handshakes.len(), limits.handshakes)
            || self
                .handshakes_per_ip
                .values()
                .any(|of_ip| is_near(*of_ip, limits.handshakes_per_ip));
        std::mem::replace(&mut self.is_under_pressure, now) != now
    }

    /// Adds a listener, and returns its number.
    pub(super) fn add_listener(&mut self) -> u64 {
        self.next += 1;
        let of_it = OfListener { kept: (0, Instant::now()), places: 0 };
        self.listeners.insert(self.next, of_it);
        self.next
    }

    /// Sets how many connections the library has at a listener. Returns how many ended ones the libraries keep, if
    /// these have become too many.
    pub(super) fn set_open(
        &mut self,
        listener: u64,
        open: usize,
        limits: &ConnectionLimits,
    ) -> Option<usize> {
        let was_crowded = self.is_crowded;
        if let Some(it) = self.listeners.get_mut(&listener) {
            it.kept = (open.saturating_sub(it.places), Instant::now() + KEPT);
        }
        let kept = self.update_crowded(limits);
        (self.is_crowded && !was_crowded).then_some(kept)
    }

    /// Removes a listener, with what it keeps.
    pub(super) fn remove_listener(&mut self, listener: u64, limits: &ConnectionLimits) {
        self.listeners.remove(&listener);
        self.update_crowded(limits);
    }

    /// Checks whether the libraries keep more connections than are permitted, and returns how many.
    fn update_crowded(&mut self, limits: &ConnectionLimits) -> usize {
        let now = Instant::now();
        let known = self.listeners.values().map(|it| it.kept).filter(|(_, until)| now < *until);
        let kept = known.map(|(count, _)| count).sum();
        self.is_crowded = kept > limits.connections;
        if !self.is_crowded {
            self.release_kept(0);
        }
        kept
    }
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns the address that limits count: of IPv6 the /64 network, since a host can use any address
/// in it.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}
