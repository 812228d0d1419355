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
mod state;

pub use self::state::{ConnectionLimits, HandshakeNumber, KEPT, STALLED};

use self::eviction::Eviction;
use self::state::{Peer, Phase, State, network};
use crate::memory_budget::{Charge, MemoryBudget, Share};
use crate::telemetry::{Attempt, Origin, Telemetry};
use net_traits::{CloseReason, Limit, close_code};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// What a handshake in progress is charged, in bytes: the longest message of TLS that is accepted.
pub const HANDSHAKE: usize = 64 * 1024;

/// Handshakes may be charged this part of the memory of a transport.
const PART: usize = 4;

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

impl Admission {
    /// Creates an admission without connections.
    pub fn new(limits: ConnectionLimits, telemetry: Telemetry) -> Self {
        Self { limits, telemetry, on_pressure: None, budget: None, state: Mutex::default() }
    }

    /// Charges [`HANDSHAKE`] to `budget` for each handshake in progress. Together they get a quarter of it, so
    /// that peers without a certificate do not end connections.
    #[must_use]
    pub(crate) fn charged(mut self, budget: &Arc<MemoryBudget>) -> Self {
        let most = (budget.limits().total / PART / HANDSHAKE).max(1);
        self.limits.handshakes = self.limits.handshakes.min(most);
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
        self.admit_peer(Peer { remote, listener: None })
    }

    fn admit_peer(self: &Arc<Self>, peer: Peer) -> Result<Place, Limit> {
        let remote = peer.remote;
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
                None => Ok(state.begin(peer)),
                Some((limit, _)) => Err(limit),
            };
            (evicted, admitted, state.update_pressure(&self.limits))
        };
        self.notify_pressure(has_changed);
        if let Some(remote) = evicted {
            self.refuse(remote, Limit::Handshakes);
        }
        let admitted = admitted.map_err(|limit| self.refuse(remote, limit));
        let (number, phase) = admitted?;
        let charge = self.budget.as_ref().map(|budget| {
            let mut charge = Charge::new(&Arc::new(Share::new(budget)));
            charge.set(HANDSHAKE.min(budget.limits().total / PART));
            charge
        });
        Ok(Place { admission: self.clone(), peer, number, phase, charge })
    }

    /// Begins the admission of another listener.
    pub fn listener(self: &Arc<Self>) -> ListenerAdmission {
        let number = self.state.lock().add_listener();
        ListenerAdmission { admission: self.clone(), number }
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

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Admits the connection attempts at one listener, and knows how many connections its library keeps.
///
/// A library may keep connections after their end, for a time which their peers choose. If those of
/// all listeners are more than [`connections`](ConnectionLimits::connections), the ones that
/// end then count for their addresses for [`KEPT`], so that the memory of each address stays limited.
/// What a listener keeps no longer matters when its `ListenerAdmission` is dropped.
#[derive(Debug)]
pub struct ListenerAdmission {
    admission: Arc<Admission>,
    number: u64,
}

impl ListenerAdmission {
    /// Returns the admission of all listeners.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Does what [`Admission::admit`] does, for a peer at this listener.
    ///
    /// # Errors
    ///
    /// The [`Limit`] that is reached. The refusal was counted and logged.
    pub fn admit(&self, remote: SocketAddr) -> Result<Place, Limit> {
        self.admission.admit_peer(Peer { remote, listener: Some(self.number) })
    }

    /// Sets how many connections the library has at this listener, open ones and those that have ended.
    pub fn set_open(&self, open: usize) {
        let Admission { state, limits, telemetry, .. } = &*self.admission;
        let kept = state.lock().set_open(self.number, open, limits);
        if let Some(kept) = kept {
            telemetry.kept(kept);
        }
    }
}

impl Drop for ListenerAdmission {
    fn drop(&mut self) {
        let state = &mut *self.admission.state.lock();
        state.remove_listener(self.number, &self.admission.limits);
    }
}

/// The place of a connection that a peer opened. It counts until it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    peer: Peer,
    number: HandshakeNumber,
    phase: Phase,
    /// The memory of the handshake.
    charge: Option<Charge>,
}

impl Place {
    /// Returns the watch that ends the handshake in time.
    pub fn watch(&self) -> Watch {
        let eviction = match &self.phase {
            Phase::Handshake { eviction } => eviction.clone(),
            Phase::Established => Arc::default(),
        };
        Watch { admission: self.admission.clone(), remote: self.peer.remote, eviction }
    }

    /// Begins the attempt of the peer. If it has to give way to another, it has no other outcome.
    pub fn attempt(&self) -> Attempt {
        let attempt = self.admission.telemetry.attempt(self.peer.remote, Origin::Accepted);
        match &self.phase {
            Phase::Handshake { eviction } => attempt.with_eviction(eviction.clone()),
            Phase::Established => attempt,
        }
    }

    /// Returns the number of the handshake, for [`Registry::register`](crate::registry::Registry::register).
    pub fn number(&self) -> HandshakeNumber {
        self.number
    }

    /// Checks that the handshake was not evicted while its request waited.
    ///
    /// # Errors
    ///
    /// [`Limit::Handshakes`], which was counted and logged then.
    pub fn check(&self) -> Result<(), Limit> {
        let Phase::Handshake { .. } = self.phase else { return Ok(()) };
        let is_in_progress = self.admission.state.lock().handshakes.contains_key(&self.number);
        if is_in_progress { Ok(()) } else { Err(Limit::Handshakes) }
    }

    /// Completes the handshake: from now on the place counts as a connection only.
    ///
    /// # Errors
    ///
    /// [`Limit::Handshakes`] if it was evicted, which was counted and logged then.
    pub fn complete(&mut self) -> Result<(), Limit> {
        let Self { admission, number, phase, charge, .. } = self;
        let Phase::Handshake { .. } = phase else { return Ok(()) };
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
        let Self { admission, peer, number, phase, .. } = self;
        let has_changed = {
            let state = &mut *admission.state.lock();
            let counts = match phase {
                Phase::Handshake { .. } => state.end_handshake(*number),
                Phase::Established => true,
            };
            if counts {
                state.end_connection(*peer);
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

#[cfg(test)]
mod tests;
