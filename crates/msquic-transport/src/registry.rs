//! `Registry`: the connections of a transport, their limits and statistics.

use crate::connection::Shared;
use msquic_async::require_address_validation;
use net_kit::Revocations;
use net_traits::{CertHash, Limit, MessageStatistics, TransportStatistics, TrustPolicy};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Limits on accepted connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    pub(crate) per_ip: usize,
    pub(crate) per_identity: usize,
    pub(crate) handshakes: usize,
}

/// [`MessageStatistics`] as atomic counters.
#[derive(Debug, Default)]
pub(crate) struct MessageCounters {
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl MessageCounters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.messages_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.messages_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> MessageStatistics {
        let mut counts = MessageStatistics::default();
        counts.messages_sent = self.messages_sent.load(Ordering::Relaxed);
        counts.bytes_sent = self.bytes_sent.load(Ordering::Relaxed);
        counts.messages_received = self.messages_received.load(Ordering::Relaxed);
        counts.bytes_received = self.bytes_received.load(Ordering::Relaxed);
        counts
    }
}

#[derive(Debug)]
pub(crate) struct Registry {
    limits: ConnectionLimits,
    state: Mutex<State>,
    pub(crate) messages: MessageCounters,
    refused_messages: AtomicU64,
    /// Whether [`UNDER_PRESSURE`] counts this registry.
    is_under_pressure: AtomicBool,
}

/// How many registries have so many handshakes that peers must validate their addresses (Retry).
/// This setting is global to the process, so the lock is held while it changes. No msquic callback
/// takes the lock.
static UNDER_PRESSURE: Mutex<usize> = Mutex::new(0);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The connections that have handles.
    live: HashMap<u64, Weak<Shared>>,
    inbound: usize,
    handshakes: usize,
    per_ip: HashMap<IpAddr, usize>,
    per_identity: HashMap<CertHash, usize>,
    refused: HashMap<Limit, u64>,
    revocations: Revocations,
}

impl State {
    fn refuse(&mut self, limit: Limit) {
        *self.refused.entry(limit).or_default() += 1;
    }
}

impl Registry {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            messages: MessageCounters::default(),
            refused_messages: AtomicU64::new(0),
            is_under_pressure: AtomicBool::new(false),
        })
    }

    /// Takes a place for a peer whose handshake begins, if no limit is exceeded.
    pub(crate) fn admit(self: &Arc<Self>, remote: IpAddr) -> Result<Place, Limit> {
        let admitted = self.try_admit(network(remote));
        self.relieve();
        admitted
    }

    fn try_admit(self: &Arc<Self>, ip: IpAddr) -> Result<Place, Limit> {
        let state = &mut *self.state.lock();
        let limit = if state.inbound >= self.limits.connections {
            Limit::Connections
        } else if state.per_ip.get(&ip).copied().unwrap_or(0) >= self.limits.per_ip {
            Limit::PerIp
        } else if state.handshakes >= self.limits.handshakes {
            Limit::Handshakes
        } else {
            state.inbound += 1;
            state.handshakes += 1;
            *state.per_ip.entry(ip).or_default() += 1;
            return Ok(Place { registry: self.clone(), ip, stage: Stage::Handshake });
        };
        state.refuse(limit);
        Err(limit)
    }

    /// Requires address validation from half of the allowed handshakes, until they fall to a
    /// quarter. Otherwise an attacker with forged addresses could occupy all places.
    fn relieve(&self) {
        let wants = |is_on| {
            let handshakes = self.state.lock().handshakes;
            let part = if is_on { 4 } else { 2 };
            handshakes > 0 && handshakes >= self.limits.handshakes / part
        };
        if wants(self.is_under_pressure.load(Ordering::Relaxed))
            == self.is_under_pressure.load(Ordering::Relaxed)
        {
            return;
        }
        let mut count = UNDER_PRESSURE.lock();
        let before = self.is_under_pressure.load(Ordering::Relaxed);
        let now = wants(before);
        if now == before {
            return;
        }
        self.is_under_pressure.store(now, Ordering::Relaxed);
        let others = if now { *count } else { *count - 1 };
        *count = if now { *count + 1 } else { *count - 1 };
        if others == 0 {
            // It cannot fail, because the library is loaded.
            let _ = require_address_validation(now);
        }
    }

    /// Counts a received message over the limit.
    pub(crate) fn refuse_message(&self) {
        self.refused_messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Registers a connection until it [leaves](Self::leave).
    pub(crate) fn enter(&self, connection: &Weak<Shared>) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.live.insert(id, connection.clone());
        id
    }

    /// Records that connections whose peers `policy` does not trust are revoked, including those in
    /// their handshake.
    pub(crate) fn revoke(&self, policy: &TrustPolicy) {
        self.state.lock().revocations.record(policy.clone());
    }

    /// Returns the number of revocations so far.
    pub(crate) fn revocations(&self) -> u64 {
        self.state.lock().revocations.count()
    }

    /// Returns the policies of the revocations after the first `seen`.
    pub(crate) fn revoked_since(&self, seen: u64) -> Vec<TrustPolicy> {
        self.state.lock().revocations.since(seen)
    }

    pub(crate) fn leave(&self, id: u64) {
        self.state.lock().live.remove(&id);
    }

    /// Returns all connections that have handles.
    pub(crate) fn live(&self) -> Vec<Arc<Shared>> {
        self.state.lock().live.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn statistics(&self) -> TransportStatistics {
        let state = self.state.lock();
        let refused = |limit| state.refused.get(&limit).copied().unwrap_or(0);
        let mut statistics = TransportStatistics::default();
        statistics.connections = state.live.len();
        statistics.handshakes = state.handshakes;
        statistics.messages = self.messages.read();
        statistics.refused_connections = refused(Limit::Connections);
        statistics.refused_per_ip = refused(Limit::PerIp);
        statistics.refused_per_identity = refused(Limit::PerIdentity);
        statistics.refused_handshakes = refused(Limit::Handshakes);
        statistics.refused_handshake_timeout = refused(Limit::HandshakeTimeout);
        statistics.refused_messages = self.refused_messages.load(Ordering::Relaxed);
        statistics
    }
}

/// The place of an accepted connection, released on drop.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    ip: IpAddr,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Handshake,
    Connected(CertHash),
}

impl Place {
    /// Records that the handshake timed out.
    pub(crate) fn late(&self) {
        self.registry.state.lock().refuse(Limit::HandshakeTimeout);
    }

    /// Records the peer's identity after the handshake, if no limit is exceeded.
    pub(crate) fn identify(&mut self, identity: CertHash) -> Result<(), Limit> {
        let mut state = self.registry.state.lock();
        let count = state.per_identity.get(&identity).copied().unwrap_or(0);
        if count >= self.registry.limits.per_identity {
            state.refuse(Limit::PerIdentity);
            return Err(Limit::PerIdentity);
        }
        state.per_identity.insert(identity, count + 1);
        state.handshakes -= 1;
        self.stage = Stage::Connected(identity);
        drop(state);
        self.registry.relieve();
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let state = &mut *self.registry.state.lock();
            state.inbound -= 1;
            release(&mut state.per_ip, &self.ip);
            match self.stage {
                Stage::Handshake => state.handshakes -= 1,
                Stage::Connected(identity) => release(&mut state.per_identity, &identity),
            }
        }
        self.registry.relieve();
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

/// Maps an address to its unit of counting: for IPv6 the /64 network, which one host can own.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: CertHash = CertHash::from_bytes([1; 32]);
    const TWO: CertHash = CertHash::from_bytes([2; 32]);

    fn registry() -> Arc<Registry> {
        let limits = ConnectionLimits { connections: 3, per_ip: 2, per_identity: 1, handshakes: 2 };
        Registry::new(limits)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn each_limit_holds_and_places_are_released() {
        let registry = registry();
        let mut first = registry.admit(ip(1)).unwrap();
        let second = registry.admit(ip(1)).unwrap();
        assert_eq!(registry.admit(ip(1)).unwrap_err(), Limit::PerIp);
        assert_eq!(registry.admit(ip(2)).unwrap_err(), Limit::Handshakes);
        first.identify(ONE).unwrap();
        let mut third = registry.admit(ip(2)).unwrap();
        assert_eq!(third.identify(ONE), Err(Limit::PerIdentity));
        assert_eq!(registry.admit(ip(3)).unwrap_err(), Limit::Connections);
        let statistics = registry.statistics();
        assert_eq!(statistics.handshakes, 2);
        assert_eq!((statistics.refused_connections, statistics.refused_per_ip), (1, 1));
        assert_eq!((statistics.refused_per_identity, statistics.refused_handshakes), (1, 1));
        drop((first, second));
        third.identify(ONE).unwrap();
        let mut fourth = registry.admit(ip(1)).unwrap();
        fourth.identify(TWO).unwrap();
        drop((third, fourth));
        let state = registry.state.lock();
        assert_eq!((state.inbound, state.handshakes), (0, 0));
        assert!(state.per_ip.is_empty() && state.per_identity.is_empty());
    }

    #[test]
    fn hosts_with_many_addresses_count_once() {
        let six = |text: &str| network(text.parse().unwrap());
        assert_eq!(six("2001:db8:1:2::1"), six("2001:db8:1:2:ffff::9"));
        assert_ne!(six("2001:db8:1:2::1"), six("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1));
    }
}
