//! `Registry`: the live connections of a transport, and operations on all of them.
//!
//! The registry holds connections weakly: the application's handles own them, and after the last
//! [`Handle`] a [`Lingering`]. Each connection holds an [`Entry`], whose drop removes it from the
//! registry. Members are called on the caller's thread, after unlocking.
//!
//! After its last handle was dropped, a connection lingers: it sends what is queued, for a limited
//! time, and closes. The drop only passes a [`Lingering`] to the task that drives the connection:
//! it does not wait, and needs no runtime on its thread. A lingering connection counts against
//! limits and can be revoked and shut down, but the application cannot get a handle of it.
//!
//! Received data passes through the entry on its way to the application: [`Entry::hand_out`],
//! [`Entry::hand_out_request`] and [`Entry::hand_out_datagram`] count it, and return an error
//! instead once the peer is not trusted. One task per transport closes connections when the trust
//! in their peer ends.

mod entry;
mod handle;
mod lingering;
mod memory;
mod sample;
mod shutdown;
mod statistics;
mod task;
mod watch;

pub use entry::Entry;
pub use handle::Handle;
pub use lingering::Lingering;

use crate::admission::{self, Admission, HandshakeNumber};
use crate::coop::yield_now;
use crate::facts::ConnectionFacts;
use crate::memory_budget::{MemoryBudget, MemoryLimits, Share};
use crate::revocations::Revocations;
use crate::telemetry::{ConnectionTelemetry, Origin, Sample, Telemetry};
use crate::trust_expiry::{Expiry, TrustExpiry};
use crate::violations::Violations;
use net_traits::{CertHash, CloseOutcome, Limit, MessageStatistics, TrustPolicy, close_code};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock, Weak};
use task::Task;
use tokio::sync::{Notify, watch as watched};

/// How many peers a revocation verifies before it yields to other tasks. One takes at most about 1
/// ms, with 16 endorsements.
const AT_ONCE: usize = 4;

/// A connection of a transport.
pub trait Member: Send + Sync + Sized + 'static {
    /// Returns the entry that the connection got when it was registered.
    fn entry(&self) -> &Entry<Self>;

    /// Returns whether the connection has ended.
    fn has_ended(&self) -> bool;

    /// Closes the connection without waiting and drops what is queued.
    fn abort(&self, code: u64, reason: &str);

    /// Closes the connection after the queued messages were sent, as
    /// [`NetConnection::close`](net_traits::NetConnection::close) does.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes immediately.
    fn close(&self, code: u64, reason: &str) -> impl Future<Output = CloseOutcome> + Send;

    /// Passes `lingering` to the task that drives the connection, which [runs](Lingering::run) it.
    /// Called when the last handle is dropped before the end, possibly outside of a runtime; it
    /// must not wait or panic. Default: the connection closes immediately, for transports that
    /// queue nothing.
    fn linger(&self, lingering: Lingering<Self>) {
        drop(lingering);
    }

    /// Returns how many messages the peer has not confirmed, at most, and their bytes. Default:
    /// none.
    fn unconfirmed(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Returns how many messages are lost with a connection that has ended, and their bytes, as far as this
    /// side knows. Default: those that are not [confirmed](Self::unconfirmed).
    fn lost(&self) -> (u64, u64) {
        self.unconfirmed()
    }

    /// Waits until no handler of received messages runs, after [`abort`](Self::abort). Default: there
    /// is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    fn handled(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// Drops received and unfinished messages, after [`abort`](Self::abort), or after the end if there are no
    /// handles. Default: does nothing, for a transport that charges nothing to [`Entry::share`].
    fn discard(&self) {}

    /// Measures the connection. Called about every 10 s until it has ended, if a recorder or a
    /// subscriber wants samples. Default: `None`.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    fn sample(&self) -> impl Future<Output = Option<Sample>> + Send {
        ready(None)
    }

    /// Returns how many received bytes the underlying library holds that this transport has not
    /// taken. They are charged to [`Entry::share`] a few times per second. Default: `None`, not
    /// known.
    fn unread(&self) -> Option<usize> {
        None
    }
}

/// The connections of one transport: limits, revocation, shutdown, statistics.
pub struct Registry<M> {
    admission: Arc<Admission>,
    budget: Arc<MemoryBudget>,
    telemetry: Telemetry,
    refused_messages: AtomicU64,
    undelivered_messages: AtomicU64,
    undelivered_bytes: AtomicU64,
    /// Wakes the task that closes connections when trust ends.
    expiry_changed: Arc<Notify>,
    is_shut_down: watched::Sender<bool>,
    state: Mutex<State<M>>,
}

struct State<M> {
    next: u64,
    /// The oldest first.
    live: BTreeMap<u64, Live<M>>,
    /// The messages of connections that are no longer live.
    past: MessageStatistics,
    /// The connections that peers opened, by identity and by the number of their handshake: the
    /// oldest first.
    accepted: HashMap<CertHash, BTreeMap<HandshakeNumber, u64>>,
    revocations: Revocations,
    trust_expiry: TrustExpiry,
    tasks: Tasks,
}

/// A connection, and what it counts.
struct Live<M> {
    member: Weak<M>,
    telemetry: Arc<ConnectionTelemetry>,
}

impl<M> Live<M> {
    fn upgrade(&self) -> Option<Arc<M>> {
        self.member.upgrade()
    }
}

/// The tasks of a registry that has connections.
#[derive(Debug, Default)]
struct Tasks {
    /// Ends connections whose messages stand still.
    late: Option<Task>,
    /// Charges what members have not read.
    unread: Option<Task>,
    /// Samples connections.
    sampler: Option<Task>,
    /// Closes the connections whose trust ends.
    expiry: Option<Task>,
}

impl<M: Member> Registry<M> {
    /// Creates the registry of a transport without connections.
    pub fn new(admission: Admission, telemetry: Telemetry) -> Arc<Self> {
        Self::with_memory(admission, telemetry, MemoryLimits::NONE)
    }

    /// Creates the registry of a transport without connections, which limits the memory that peers
    /// occupy.
    pub fn with_memory(
        admission: Admission,
        telemetry: Telemetry,
        limits: MemoryLimits,
    ) -> Arc<Self> {
        let state = State {
            next: 0,
            live: BTreeMap::new(),
            past: MessageStatistics::default(),
            accepted: HashMap::new(),
            revocations: Revocations::default(),
            trust_expiry: TrustExpiry::default(),
            tasks: Tasks::default(),
        };
        Arc::new_cyclic(|registry: &Weak<Self>| {
            let registry = registry.clone();
            let enforce_total = move || {
                if let Some(registry) = registry.upgrade() {
                    registry.enforce_total();
                }
            };
            let budget = Arc::new(MemoryBudget::new(limits).on_excess(enforce_total));
            Self {
                admission: Arc::new(admission.charged(&budget)),
                budget,
                telemetry,
                refused_messages: AtomicU64::new(0),
                undelivered_messages: AtomicU64::new(0),
                undelivered_bytes: AtomicU64::new(0),
                expiry_changed: Arc::default(),
                is_shut_down: watched::Sender::new(false),
                state: Mutex::new(state),
            }
        })
    }

    /// Returns the limits on what peers open.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Returns the events and counters of the transport.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Returns the number of revocations so far. Read it before a handshake reads its credential,
    /// and pass it to [`register`](Self::register), which applies the revocations since then: the
    /// handshake itself uses the policy from before them.
    pub fn revocations(&self) -> u64 {
        self.state.lock().revocations.count()
    }

    /// Registers a connection whose handshake is complete, and closes it if its peer was revoked
    /// since `revocations` were counted. If the peer has too many connections, that whose handshake
    /// began first is closed.
    ///
    /// `handshake` is `None` for a dialled connection. `make` wraps the [`Entry`].
    pub fn register(
        self: &Arc<Self>,
        facts: ConnectionFacts,
        handshake: Option<HandshakeNumber>,
        revocations: u64,
        make: impl FnOnce(Entry<M>) -> M,
    ) -> Handle<M> {
        let origin = if handshake.is_some() { Origin::Accepted } else { Origin::Dialled };
        let telemetry =
            Arc::new(ConnectionTelemetry::opened(self.telemetry.clone(), &facts, origin));
        let expiry = Expiry::of(facts.peer());
        let member = Arc::new_cyclic(|member: &Weak<M>| {
            let id = {
                let mut state = self.state.lock();
                state.next += 1;
                let id = state.next;
                let telemetry = telemetry.clone();
                state.live.insert(id, Live { member: member.clone(), telemetry });
                if let Some(handshake) = handshake {
                    state.accepted.entry(facts.peer().hash).or_default().insert(handshake, id);
                }
                id
            };
            let (registry, share) = (self.clone(), Arc::new(Share::new(&self.budget)));
            make(Entry {
                registry,
                id,
                handshake,
                facts,
                telemetry,
                violations: Violations::new(),
                share,
                withdrawn: OnceLock::new(),
                emptied: OnceLock::new(),
                expiry,
                handles: AtomicUsize::new(1),
                undelivered: Mutex::default(),
            })
        });
        self.watch_messages();
        self.watch_samples();
        self.watch_unread(&member);
        self.replace(&member.entry().facts.peer().hash);
        // Later revocations find the connection in the state.
        let revoked_by = self.state.lock().revocations.since(revocations);
        for policy in &revoked_by {
            revoke(&*member, policy);
        }
        self.watch(member.entry());
        if self.is_shut_down() {
            member.abort(close_code::SHUTDOWN, "");
        }
        Handle::first(member)
    }

    /// Closes the oldest connections that a peer opened beyond the limit per identity. A peer that
    /// crashed and restarted is thus not locked out by connections of its earlier process.
    ///
    /// Handshakes run side by side, so their ends may come in another order than the peer's dials.
    fn replace(&self, identity: &CertHash) {
        let live: Vec<_> = {
            let state = self.state.lock();
            let Some(of_peer) = state.accepted.get(identity) else { return };
            of_peer.values().filter_map(|id| state.live.get(id)?.upgrade()).collect()
        };
        let live: Vec<_> = live.into_iter().filter(|member| !member.has_ended()).collect();
        let surplus = live.len().saturating_sub(self.admission.limits().per_identity);
        for member in live.iter().take(surplus) {
            let limit =
                self.admission.refuse(member.entry().facts.remote_addr(), Limit::PerIdentity);
            member.abort(limit.code(), admission::reason(limit));
        }
    }

    /// Returns the connections that have not ended, including those without handles.
    pub fn live(&self) -> Vec<Arc<M>> {
        let mut live = self.members();
        live.retain(|member| !member.has_ended());
        live
    }

    /// Returns all connections that exist, also those that have ended.
    fn members(&self) -> Vec<Arc<M>> {
        self.state.lock().live.values().filter_map(Live::upgrade).collect()
    }

    /// Returns the live connections with one peer.
    pub fn of_peer(&self, identity: &CertHash) -> Vec<Arc<M>> {
        let mut live = self.live();
        live.retain(|member| member.entry().facts.peer().hash == *identity);
        live
    }

    /// Closes the live connections with one peer, and returns how many.
    pub fn close_peer(&self, identity: &CertHash, code: u64, reason: &str) -> usize {
        let of_peer = self.of_peer(identity);
        of_peer.iter().for_each(|member| member.abort(code, reason));
        of_peer.len()
    }

    /// Closes the connections whose peer `policy` does not trust, including handshakes in progress,
    /// and returns how many were established. Once it returns, nothing that these peers sent is
    /// delivered. It yields to other tasks after every few peers.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves some connections open. A further call waits for the handlers of all.
    pub async fn revoke(&self, policy: &TrustPolicy) -> usize {
        let (members, forgotten) = {
            let mut state = self.state.lock();
            let forgotten = state.revocations.record(policy.clone());
            // Connections that have ended are included, since their messages may still be queued.
            (state.live.values().map(|live| live.member.clone()).collect::<Vec<_>>(), forgotten)
        };
        drop(forgotten);
        let (mut revoked, mut untrusted) = (0, Vec::new());
        for members in members.chunks(AT_ONCE) {
            for member in members.iter().filter_map(Weak::upgrade) {
                revoked += usize::from(revoke(&*member, policy));
                if !member.entry().is_trusted() {
                    untrusted.push(Arc::downgrade(&member)); // revoked now or before
                }
            }
            yield_now().await;
        }
        // At last, since a handler that takes long must not delay the revocation of others.
        for member in untrusted.iter().filter_map(Weak::upgrade) {
            member.handled().await;
        }
        revoked
    }

    /// Starts a task and puts it into its slot, unless the one in the slot runs. A task that could not be started
    /// is thus tried again with the next connection.
    fn ensure(&self, slot: fn(&mut Tasks) -> &mut Option<Task>, start: impl FnOnce() -> Task) {
        let runs = |slot: &Option<Task>| slot.as_ref().is_some_and(Task::is_running);
        if runs(slot(&mut self.state.lock().tasks)) {
            return;
        }
        let task = start(); // without the lock, because it may start a thread, and log that it cannot
        let surplus = {
            let state = &mut *self.state.lock();
            let slot = slot(&mut state.tasks);
            if runs(slot) { Some(task) } else { slot.replace(task) }
        };
        drop(surplus);
    }
}

impl<M> fmt::Debug for Registry<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("admission", &self.admission).finish_non_exhaustive()
    }
}

/// Closes the connection if `policy` does not trust its peer; returns whether it did.
fn revoke(member: &impl Member, policy: &TrustPolicy) -> bool {
    let entry = member.entry();
    if !entry.is_trusted()
        || policy.still_trusts(entry.facts.peer(), entry.facts.certificate()).is_ok()
    {
        return false;
    }
    withdraw(member, close_code::REVOKED)
}

/// Closes the connection with `code` because its peer is no longer trusted; returns whether it did.
fn withdraw(member: &impl Member, code: u64) -> bool {
    let entry = member.entry();
    if entry.withdrawn.set(code).is_err() || member.has_ended() {
        return false;
    }
    entry.telemetry.revoked();
    member.abort(code, why_withdrawn(code));
    true
}

fn why_withdrawn(code: u64) -> &'static str {
    match code {
        close_code::TRUST_ENDED => "the certificate or endorsement has expired",
        _ => "no longer trusted",
    }
}

#[cfg(test)]
mod tests;
