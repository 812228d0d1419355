//! `Admission`: limits on the connections and handshakes of peers.
//!
//! A listener takes a [`Place`] for each attempt before it spends anything on it. The place moves into
//! the connection and counts until it is dropped, wherever that happens: a dropped handshake needs
//! no other clean-up. Everything runs on the caller's thread under one short lock, which is not held
//! while the hook for pressure runs.

use crate::telemetry::Telemetry;
use net_traits::{CertHash, CloseReason, Limit, close_code};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How many connections peers may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections in total, with those in their handshake.
    pub connections: usize,
    /// Connections from one IP address, or from one /64 network of IPv6 addresses.
    pub per_ip: usize,
    /// Connections of one identity.
    pub per_identity: usize,
    /// Handshakes in progress.
    pub handshakes: usize,
}

/// Admits connection attempts within [`ConnectionLimits`].
///
/// ```
/// use net_kit::admission::{Admission, ConnectionLimits};
/// use net_kit::telemetry::Telemetry;
/// use net_traits::Limit;
/// use std::sync::Arc;
///
/// let limits = ConnectionLimits { connections: 100, per_ip: 1, per_identity: 1, handshakes: 10 };
/// let admission = Arc::new(Admission::new(limits, Telemetry::new("example")));
/// let remote = "192.0.2.1:443".parse()?;
/// let place = admission.admit(remote).unwrap();
/// assert_eq!(admission.admit(remote).unwrap_err(), Limit::PerIp);
/// drop(place);
/// assert!(admission.admit(remote).is_ok());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Admission {
    limits: ConnectionLimits,
    telemetry: Telemetry,
    on_pressure: Option<PressureHook>,
    state: Mutex<State>,
}

type PressureHook = Box<dyn Fn(&Admission) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    connections: usize,
    handshakes: usize,
    per_ip: HashMap<IpAddr, usize>,
    per_identity: HashMap<CertHash, usize>,
    refused: HashMap<Limit, u64>,
    is_under_pressure: bool,
}

impl Admission {
    /// Creates an admission without connections.
    pub fn new(limits: ConnectionLimits, telemetry: Telemetry) -> Self {
        Self { limits, telemetry, on_pressure: None, state: Mutex::default() }
    }

    /// Sets the hook that is called when [`is_under_pressure`](Self::is_under_pressure) may have
    /// changed.
    ///
    /// The hook runs on the thread that admitted or dropped a [`Place`]. Calls can overlap, so it
    /// reads the current value instead of getting one.
    #[must_use]
    pub fn on_pressure(mut self, hook: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        self.on_pressure = Some(Box::new(hook));
        self
    }

    /// Takes a place for a peer whose handshake begins.
    ///
    /// # Errors
    ///
    /// The [`Limit`] that is reached. The refusal was counted and logged.
    pub fn admit(self: &Arc<Self>, remote: SocketAddr) -> Result<Place, Limit> {
        let ip = network(remote.ip());
        let (reached, has_changed) = {
            let state = &mut *self.state.lock();
            let of_ip = state.per_ip.get(&ip).copied().unwrap_or(0);
            let reached = if state.connections >= self.limits.connections {
                Some(Limit::Connections)
            } else if of_ip >= self.limits.per_ip {
                Some(Limit::PerIp)
            } else if state.handshakes >= self.limits.handshakes {
                Some(Limit::Handshakes)
            } else {
                state.connections += 1;
                state.handshakes += 1;
                state.per_ip.insert(ip, of_ip + 1);
                None
            };
            (reached, state.feel(&self.limits))
        };
        self.tell(has_changed);
        match reached {
            None => Ok(Place { admission: self.clone(), remote, ip, identity: None }),
            Some(limit) => Err(self.refuse(remote, limit)),
        }
    }

    /// Returns whether so many handshakes are in progress that peers should prove their addresses.
    ///
    /// It begins at half of the limit and ends at a quarter. Without such a proof an attacker that
    /// forges addresses takes all handshakes.
    pub fn is_under_pressure(&self) -> bool {
        self.state.lock().is_under_pressure
    }

    /// Returns how many handshakes are in progress.
    pub fn handshakes(&self) -> usize {
        self.state.lock().handshakes
    }

    /// Returns how many attempts were refused because of `limit`.
    pub fn refused(&self, limit: Limit) -> u64 {
        self.state.lock().refused.get(&limit).copied().unwrap_or(0)
    }

    /// Counts and logs that the handshake of a peer took too long.
    pub fn timed_out(&self, remote: SocketAddr) {
        self.refuse(remote, Limit::HandshakeTimeout);
    }

    fn refuse(&self, remote: SocketAddr, limit: Limit) -> Limit {
        *self.state.lock().refused.entry(limit).or_default() += 1;
        self.telemetry.refused(remote, limit);
        limit
    }

    fn tell(&self, has_changed: bool) {
        if let Some(hook) = self.on_pressure.as_ref().filter(|_| has_changed) {
            hook(self);
        }
    }
}

impl State {
    /// Judges the pressure again; returns whether it changed.
    fn feel(&mut self, limits: &ConnectionLimits) -> bool {
        let part = if self.is_under_pressure { 4 } else { 2 };
        let now = self.handshakes > 0 && self.handshakes >= limits.handshakes / part;
        std::mem::replace(&mut self.is_under_pressure, now) != now
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The place of a connection that a peer opened. It counts until it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    remote: SocketAddr,
    ip: IpAddr,
    /// Of the peer, once the handshake is complete.
    identity: Option<CertHash>,
}

impl Place {
    /// Ends the handshake: the place now counts for the identity of the peer.
    ///
    /// # Errors
    ///
    /// [`Limit::PerIdentity`]. The refusal was counted and logged; the place still counts as a
    /// handshake.
    pub fn identify(&mut self, identity: CertHash) -> Result<(), Limit> {
        let Self { admission, identity: known, .. } = self;
        let has_changed = {
            let state = &mut *admission.state.lock();
            let count = state.per_identity.get(&identity).copied().unwrap_or(0);
            match known {
                Some(_) => Some(false), // it was identified before
                None if count >= admission.limits.per_identity => None,
                None => {
                    state.per_identity.insert(identity, count + 1);
                    state.handshakes -= 1;
                    *known = Some(identity);
                    Some(state.feel(&admission.limits))
                }
            }
        };
        let Some(has_changed) = has_changed else {
            return Err(admission.refuse(self.remote, Limit::PerIdentity));
        };
        admission.tell(has_changed);
        Ok(())
    }

    /// Counts and logs that the handshake took too long.
    pub fn timed_out(&self) {
        self.admission.timed_out(self.remote);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { admission, ip, identity, .. } = self;
        let has_changed = {
            let state = &mut *admission.state.lock();
            state.connections -= 1;
            release(&mut state.per_ip, ip);
            match identity {
                None => state.handshakes -= 1,
                Some(identity) => release(&mut state.per_identity, identity),
            }
            state.feel(&admission.limits)
        };
        admission.tell(has_changed);
    }
}

/// Returns the text with which a connection beyond `limit` is closed.
pub fn reason(limit: Limit) -> &'static str {
    close_code::name(limit.code()).unwrap_or_default()
}

/// Returns why this side closes a connection beyond `limit`.
pub fn close_reason(limit: Limit) -> CloseReason {
    CloseReason::Local { code: limit.code(), reason: reason(limit).to_owned() }
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Returns what counts as one address: of IPv6 the first 64 bits, since one host has all that follow.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ONE: CertHash = CertHash::from_bytes([1; 32]);
    const TWO: CertHash = CertHash::from_bytes([2; 32]);

    fn admission(handshakes: usize) -> Admission {
        let limits = ConnectionLimits { connections: 3, per_ip: 2, per_identity: 1, handshakes };
        Admission::new(limits, Telemetry::new("test"))
    }

    fn ip(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 1).into()
    }

    #[test]
    fn each_limit_holds_and_places_come_back() {
        let admission = Arc::new(admission(2));
        let mut first = admission.admit(ip(1)).unwrap();
        let second = admission.admit(ip(1)).unwrap();
        assert_eq!(admission.admit(ip(1)).unwrap_err(), Limit::PerIp);
        assert_eq!(admission.admit(ip(2)).unwrap_err(), Limit::Handshakes);
        first.identify(ONE).unwrap();
        first.identify(ONE).unwrap();
        let mut third = admission.admit(ip(2)).unwrap();
        assert_eq!(third.identify(ONE), Err(Limit::PerIdentity));
        assert_eq!(admission.admit(ip(3)).unwrap_err(), Limit::Connections);
        third.timed_out();
        assert_eq!(admission.handshakes(), 2);
        for limit in [
            Limit::Connections,
            Limit::PerIp,
            Limit::PerIdentity,
            Limit::Handshakes,
            Limit::HandshakeTimeout,
        ] {
            assert_eq!(admission.refused(limit), 1, "{limit:?}");
        }
        drop((first, second));
        third.identify(ONE).unwrap();
        let mut fourth = admission.admit(ip(1)).unwrap();
        fourth.identify(TWO).unwrap();
        drop((third, fourth));
        let state = admission.state.lock();
        assert_eq!((state.connections, state.handshakes), (0, 0));
        assert!(state.per_ip.is_empty() && state.per_identity.is_empty());
    }

    #[test]
    fn hosts_with_many_addresses_count_once() {
        let six = |text: &str| network(text.parse().unwrap());
        assert_eq!(six("2001:db8:1:2::1"), six("2001:db8:1:2:ffff::9"));
        assert_ne!(six("2001:db8:1:2::1"), six("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1).ip());
    }

    #[test]
    fn pressure_begins_at_half_of_the_handshakes_and_ends_at_a_quarter() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let limits = ConnectionLimits { connections: 9, per_ip: 9, per_identity: 9, handshakes: 8 };
        let admission = Admission::new(limits, Telemetry::new("test")).on_pressure(move |it| {
            let _ = it.is_under_pressure(); // no lock is held
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let admission = Arc::new(admission);
        let mut places = Vec::new();
        for expected in [false, false, false, true, true] {
            places.push(admission.admit(ip(1)).unwrap());
            assert_eq!(admission.is_under_pressure(), expected, "{} handshakes", places.len());
        }
        places.pop().unwrap().identify(ONE).unwrap();
        for expected in [true, true, false, false] {
            drop(places.pop());
            assert_eq!(admission.is_under_pressure(), expected, "{} handshakes", places.len());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
