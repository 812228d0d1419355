//! `Admission`: limits on the connections and handshakes of peers.
//!
//! A listener takes a [`Place`] for each attempt before it spends anything on it. The place moves
//! into the connection and counts until it is dropped, so a dropped handshake needs no other
//! clean-up. Everything runs on the caller's thread under one short lock, which is not held while
//! the hook for pressure runs. The memory of a handshake is charged to the transport's budget.
//!
//! A peer that begins handshakes and never completes them does not lock other peers out: where a
//! limit is reached, the oldest handshake that counts for it is evicted if it has taken
//! [`STALLED`], and the new attempt is admitted.

pub(crate) mod eviction;

use self::eviction::Eviction;
use crate::memory_budget::{Charge, MemoryBudget, Share};
use crate::telemetry::{Attempt, Origin, Telemetry};
use net_traits::{CloseReason, Limit, close_code};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The duration after which a handshake can be evicted by a new attempt: 100 ms.
pub const STALLED: Duration = Duration::from_millis(100);

/// How long the address of a connection that has ended counts it while too many are kept: two minutes.
pub const KEPT: Duration = Duration::from_secs(120);

/// What a handshake in progress is charged, in bytes: the longest message of TLS that is accepted.
pub const HANDSHAKE: usize = 64 * 1024;

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

/// Admits connection attempts within [`ConnectionLimits`].
///
/// ```
/// use net_kit::admission::{Admission, ConnectionLimits};
/// use net_kit::telemetry::Telemetry;
/// use net_traits::Limit;
/// use std::sync::Arc;
///
/// let limits = ConnectionLimits {
///     connections: 100,
///     per_ip: 1,
///     per_identity: 1,
///     handshakes: 10,
///     handshakes_per_ip: 1,
/// };
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
    /// Where handshakes are charged.
    budget: Option<Arc<MemoryBudget>>,
    state: Mutex<State>,
}

type PressureHook = Box<dyn Fn(&Admission) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: usize,
    /// By number, the oldest first.
    handshakes: BTreeMap<u64, Pending>,
    per_ip: HashMap<IpAddr, usize>,
    handshakes_per_ip: HashMap<IpAddr, usize>,
    refused: HashMap<Limit, u64>,
    is_under_pressure: bool,
    /// The library keeps too many connections that have ended.
    is_crowded: bool,
    /// Connections that have ended and still count for their addresses, and until when.
    kept: VecDeque<(Instant, IpAddr)>,
}

/// A handshake in progress.
#[derive(Debug)]
struct Pending {
    remote: SocketAddr,
    since: Instant,
    eviction: Arc<Eviction>,
}

impl Admission {
    /// Creates an admission without connections.
    pub fn new(limits: ConnectionLimits, telemetry: Telemetry) -> Self {
        Self { limits, telemetry, on_pressure: None, budget: None, state: Mutex::default() }
    }

    /// Charges [`HANDSHAKE`] to `budget` for each handshake in progress.
    #[must_use]
    pub(crate) fn charged(mut self, budget: &Arc<MemoryBudget>) -> Self {
        self.budget = Some(budget.clone());
        self
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

    /// Takes a place for a peer whose handshake begins, evicting a stalled handshake if necessary.
    ///
    /// # Errors
    ///
    /// The [`Limit`] that is reached. The refusal was counted and logged.
    pub fn admit(self: &Arc<Self>, remote: SocketAddr) -> Result<Place, Limit> {
        let (evicted, admitted, has_changed) = {
            let state = &mut *self.state.lock();
            state.release_kept(self.limits.connections);
            let reached = state.reached(&self.limits, network(remote.ip()));
            let evicted = reached.and_then(|(limit, ip)| match limit {
                Limit::PerIp if state.is_crowded => None, // the evicted one would still count
                _ => state.evict(ip),
            });
            let reached = state.reached(&self.limits, network(remote.ip()));
            let admitted = match reached {
                None => Ok(state.begin(remote)),
                Some((limit, _)) => Err(limit),
            };
            (evicted, admitted, state.update_pressure(&self.limits))
        };
        self.notify_pressure(has_changed);
        if let Some(remote) = evicted {
            self.refuse(remote, Limit::Handshakes);
        }
        let admitted = admitted.map_err(|limit| self.refuse(remote, limit));
        let phase = admitted?;
        let charge = self.budget.as_ref().map(|budget| {
            let mut charge = Charge::new(&Arc::new(Share::new(budget)));
            charge.set(HANDSHAKE);
            charge
        });
        Ok(Place { admission: self.clone(), remote, phase, charge })
    }

    /// Returns the limits.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Returns whether so many handshakes are in progress that peers should prove their addresses.
    ///
    /// Pressure begins at half of a limit on handshakes and ends at a quarter. Without address
    /// validation an attacker that forges addresses occupies all handshakes, or all of another
    /// host.
    pub fn is_under_pressure(&self) -> bool {
        let state = &*self.state.lock();
        state.is_under_pressure || state.is_crowded
    }

    /// Tells how many connections the library keeps, for a library that keeps them for a time which their peers
    /// choose. If more than [`connections`](ConnectionLimits::connections) of them have ended, those that
    /// end then count for their addresses for two more minutes, so that the memory of each address stays
    /// limited.
    pub fn set_open(&self, open: usize) {
        let state = &mut *self.state.lock();
        state.is_crowded = open.saturating_sub(state.connections) > self.limits.connections;
        if !state.is_crowded {
            state.release_kept(0);
        }
    }

    /// Returns how many handshakes are in progress.
    pub fn handshakes(&self) -> usize {
        self.state.lock().handshakes.len()
    }

    /// Returns how many attempts were refused because of `limit`.
    pub fn refused(&self, limit: Limit) -> u64 {
        self.state.lock().refused.get(&limit).copied().unwrap_or(0)
    }

    /// Counts and logs an attempt that was refused because of `limit`, which it returns.
    pub fn refuse(&self, remote: SocketAddr, limit: Limit) -> Limit {
        *self.state.lock().refused.entry(limit).or_default() += 1;
        self.telemetry.refused(remote, limit);
        limit
    }

    /// Counts and logs an error with which the system refused to accept.
    pub fn cannot_accept(&self, error: &io::Error) {
        self.telemetry.cannot_accept(error);
    }

    fn notify_pressure(&self, has_changed: bool) {
        if let Some(hook) = self.on_pressure.as_ref().filter(|_| has_changed) {
            hook(self);
        }
    }
}

impl State {
    /// Returns the limit that a new peer at `ip` would exceed, and whether only the handshakes of
    /// one address count for it (`Some`) or all.
    fn reached(&self, limits: &ConnectionLimits, ip: IpAddr) -> Option<(Limit, Option<IpAddr>)> {
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

    fn begin(&mut self, remote: SocketAddr) -> Phase {
        self.next += 1;
        self.connections += 1;
        let ip = network(remote.ip());
        *self.per_ip.entry(ip).or_default() += 1;
        *self.handshakes_per_ip.entry(ip).or_default() += 1;
        let eviction = Arc::new(Eviction::default());
        let pending_handshake =
            Pending { remote, since: Instant::now(), eviction: eviction.clone() };
        self.handshakes.insert(self.next, pending_handshake);
        Phase::Handshake { number: self.next, eviction }
    }

    /// Ends the oldest handshake, of `ip` if that is given, provided that it has stalled. Returns
    /// its address.
    fn evict(&mut self, ip: Option<IpAddr>) -> Option<SocketAddr> {
        let counts = |it: &Pending| ip.is_none_or(|ip| network(it.remote.ip()) == ip);
        let (number, oldest) = self.handshakes.iter().find(|(_, it)| counts(it))?;
        if oldest.since.elapsed() < STALLED {
            return None;
        }
        let (number, remote) = (*number, oldest.remote);
        oldest.eviction.evict();
        self.end_handshake(number);
        self.end_connection(remote);
        Some(remote)
    }

    /// Returns whether the handshake was in progress.
    fn end_handshake(&mut self, number: u64) -> bool {
        let Some(ended) = self.handshakes.remove(&number) else { return false };
        release(&mut self.handshakes_per_ip, &network(ended.remote.ip()));
        true
    }

    fn end_connection(&mut self, remote: SocketAddr) {
        self.connections -= 1;
        let ip = network(remote.ip());
        match self.is_crowded {
            true => self.kept.push_back((Instant::now() + KEPT, ip)),
            false => release(&mut self.per_ip, &ip),
        }
    }

    /// Releases the connections that have ended long ago, and the oldest beyond `limit`.
    fn release_kept(&mut self, limit: usize) {
        let now = Instant::now();
        while let Some((until, ip)) = self.kept.front()
            && (*until <= now || self.kept.len() > limit)
        {
            release(&mut self.per_ip, ip);
            self.kept.pop_front();
        }
    }

    /// Updates the pressure, and returns whether it changed.
    fn update_pressure(&mut self, limits: &ConnectionLimits) -> bool {
        let part = if self.is_under_pressure { 4 } else { 2 };
        let is_near = |count: usize, limit: usize| count > 0 && count >= limit / part;
        let now = is_near(self.handshakes.len(), limits.handshakes)
            || self
                .handshakes_per_ip
                .values()
                .any(|of_ip| is_near(*of_ip, limits.handshakes_per_ip));
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
    phase: Phase,
    /// The memory of the handshake.
    charge: Option<Charge>,
}

#[derive(Debug)]
enum Phase {
    Handshake { number: u64, eviction: Arc<Eviction> },
    Established,
}

impl Place {
    /// Returns the watch that ends the handshake in time.
    pub fn watch(&self) -> Watch {
        let eviction = match &self.phase {
            Phase::Handshake { eviction, .. } => eviction.clone(),
            Phase::Established => Arc::default(),
        };
        Watch { admission: self.admission.clone(), remote: self.remote, eviction }
    }

    /// Begins the attempt of the peer. If it has to give way to another, it has no other outcome.
    pub fn attempt(&self) -> Attempt {
        let attempt = self.admission.telemetry.attempt(self.remote, Origin::Accepted);
        match &self.phase {
            Phase::Handshake { eviction, .. } => attempt.with_eviction(eviction.clone()),
            Phase::Established => attempt,
        }
    }

    /// Checks that the handshake was not evicted while its request waited.
    ///
    /// # Errors
    ///
    /// [`Limit::Handshakes`], which was counted and logged then.
    pub fn check(&self) -> Result<(), Limit> {
        let Phase::Handshake { number, .. } = &self.phase else { return Ok(()) };
        let is_in_progress = self.admission.state.lock().handshakes.contains_key(number);
        if is_in_progress { Ok(()) } else { Err(Limit::Handshakes) }
    }

    /// Completes the handshake: from now on the place counts as a connection only.
    ///
    /// # Errors
    ///
    /// [`Limit::Handshakes`] if it was evicted, which was counted and logged then.
    pub fn complete(&mut self) -> Result<(), Limit> {
        let Self { admission, phase, charge, .. } = self;
        let Phase::Handshake { number, .. } = phase else { return Ok(()) };
        let has_changed = {
            let state = &mut *admission.state.lock();
            if !state.end_handshake(*number) {
                return Err(Limit::Handshakes);
            }
            *phase = Phase::Established;
            state.update_pressure(&admission.limits)
        };
        *charge = None;
        admission.notify_pressure(has_changed);
        Ok(())
    }
}

/// Ends a handshake in time.
#[derive(Debug)]
pub struct Watch {
    admission: Arc<Admission>,
    remote: SocketAddr,
    eviction: Arc<Eviction>,
}

impl Watch {
    /// Runs a handshake for at most `timeout`, or until it is evicted. A handshake that was evicted
    /// before is not started.
    ///
    /// # Errors
    ///
    /// [`Limit::HandshakeTimeout`] or [`Limit::Handshakes`]. The refusal was counted and logged;
    /// the handshake was dropped.
    pub async fn run<F: Future>(
        &self,
        timeout: Duration,
        handshake: F,
    ) -> Result<F::Output, Limit> {
        tokio::select! {
            biased;
            () = self.eviction.evicted() => Err(Limit::Handshakes),
            completed = handshake => Ok(completed),
            () = sleep(timeout) => Err(self.timed_out()),
        }
    }

    /// Counts and logs that the handshake took too long, for a backend that has its own timer.
    pub fn timed_out(&self) -> Limit {
        self.admission.refuse(self.remote, Limit::HandshakeTimeout)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { admission, remote, phase, .. } = self;
        let has_changed = {
            let state = &mut *admission.state.lock();
            let counts = match phase {
                Phase::Handshake { number, .. } => state.end_handshake(*number),
                Phase::Established => true,
            };
            if counts {
                state.end_connection(*remote);
            }
            state.update_pressure(&admission.limits)
        };
        admission.notify_pressure(has_changed);
    }
}

/// Returns the reason phrase with which a connection beyond `limit` is closed.
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

/// Returns the address that limits count: of IPv6 the /64 network, since a host can use any address
/// in it.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests;
