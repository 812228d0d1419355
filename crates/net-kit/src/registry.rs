//! `Registry`: the live connections of a transport, and what is done to all of them.
//!
//! The registry holds connections weakly: the application's handles own them. Each connection holds an
//! [`Entry`], which takes it out of the registry when the last handle is dropped. Members are called
//! on the caller's thread, after unlocking.
//!
//! What a peer sent reaches the application through its entry, which counts it and hands out nothing
//! once the peer is not trusted: [`Entry::hand_out`], [`Entry::hand_out_request`]. One task per
//! transport closes the connections whose trust ends.

mod memory;
mod watch;

use crate::account::{Account, MemoryLimits, Share};
use crate::admission::{self, Admission};
use crate::budget::yield_now;
use crate::facts::ConnectionFacts;
use crate::inbox::Received;
use crate::revocations::Revocations;
use crate::statistics::MessageCounters;
use crate::telemetry::{ConnectionTelemetry, Origin, Telemetry};
use crate::terms::{Term, Terms};
use crate::violations::Violations;
use futures_util::future::join_all;
use net_traits::{
    CertHash, CloseReason, Limit, MessageStatistics, RecvError, RequestError, TransportStatistics,
    TrustPolicy, close_code,
};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch as watched};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Span;

/// How many peers a revocation verifies before other tasks run: at most about 1 ms each, for 16
/// endorsements.
const AT_ONCE: usize = 4;

/// A connection of a transport.
pub trait Member: Send + Sync + Sized + 'static {
    /// Returns the entry that the connection got when it was registered.
    fn entry(&self) -> &Entry<Self>;

    /// Returns whether the connection has ended.
    fn is_over(&self) -> bool;

    /// Closes the connection without waiting and drops what is queued.
    fn abort(&self, code: u64, reason: &str);

    /// Closes the connection once what is queued was sent, as
    /// [`NetConnection::close`](net_traits::NetConnection::close) does.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes at once.
    fn close(self: Arc<Self>, code: u64, reason: &str) -> impl Future<Output = ()> + Send;

    /// Drops what was received and what is in progress, after [`abort`](Self::abort). Default: nothing,
    /// for a transport that charges nothing to [`Entry::share`].
    fn discard(&self) {}
}

/// The connections of one transport: limits, revocation, shutdown, statistics.
pub struct Registry<M> {
    admission: Arc<Admission>,
    account: Arc<Account>,
    telemetry: Telemetry,
    messages: MessageCounters,
    refused_messages: AtomicU64,
    /// Wakes the task that closes the connections whose trust ends.
    terms_changed: Arc<Notify>,
    is_shut_down: watched::Sender<bool>,
    roster: Mutex<Roster<M>>,
}

struct Roster<M> {
    next: u64,
    live: HashMap<u64, Weak<M>>,
    /// What peers opened, by identity, the oldest first.
    accepted: HashMap<CertHash, BTreeSet<u64>>,
    revocations: Revocations,
    terms: Terms,
    /// The task that ends connections whose messages stand still.
    late: Option<JoinHandle<()>>,
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
        let roster = Roster {
            next: 0,
            live: HashMap::new(),
            accepted: HashMap::new(),
            revocations: Revocations::default(),
            terms: Terms::default(),
            late: None,
        };
        Arc::new_cyclic(|registry: &Weak<Self>| {
            let registry = registry.clone();
            let relieve = move || {
                if let Some(registry) = registry.upgrade() {
                    registry.relieve();
                }
            };
            Self {
                admission: Arc::new(admission),
                account: Arc::new(Account::new(limits).on_excess(relieve)),
                telemetry,
                messages: MessageCounters::default(),
                refused_messages: AtomicU64::new(0),
                terms_changed: Arc::default(),
                is_shut_down: watched::Sender::new(false),
                roster: Mutex::new(roster),
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

    /// Returns the number of revocations so far. Read it before a handshake reads its credential, and
    /// give it to [`register`](Self::register): its peer is verified by a policy that a revocation
    /// during the handshake does not change.
    pub fn revocations(&self) -> u64 {
        self.roster.lock().revocations.count()
    }

    /// Registers a connection whose handshake is complete, and closes it if its peer was revoked
    /// since `revocations` were counted. If its peer has too many, the oldest one is closed.
    ///
    /// `make` wraps the [`Entry`].
    pub fn register(
        self: &Arc<Self>,
        facts: ConnectionFacts,
        origin: Origin,
        revocations: u64,
        make: impl FnOnce(Entry<M>) -> M,
    ) -> Arc<M> {
        let telemetry = ConnectionTelemetry::opened(self.telemetry.clone(), &facts, origin);
        let term = Term::of(facts.peer());
        let member = Arc::new_cyclic(|member: &Weak<M>| {
            let id = {
                let mut roster = self.roster.lock();
                roster.next += 1;
                let id = roster.next;
                roster.live.insert(id, member.clone());
                if origin == Origin::Accepted {
                    roster.accepted.entry(facts.peer().hash).or_default().insert(id);
                }
                id
            };
            let (telemetry, violations) = (Arc::new(telemetry), Violations::new());
            let withdrawn = OnceLock::new();
            let (registry, share) = (self.clone(), Arc::new(Share::new(&self.account)));
            make(Entry { registry, id, facts, telemetry, violations, share, withdrawn, term })
        });
        self.watch_messages();
        self.replace(&member.entry().facts.peer().hash);
        // A later revocation finds the connection in the roster.
        let revoked_by = self.roster.lock().revocations.since(revocations);
        for policy in &revoked_by {
            revoke(&*member, policy);
        }
        self.watch(member.entry());
        if self.is_shut_down() {
            member.abort(close_code::SHUTDOWN, "");
        }
        member
    }

    /// Closes the oldest connections that a peer opened beyond the limit per identity. They may be dead:
    /// a peer that crashes and comes back is not locked out by those of its earlier lives.
    fn replace(&self, identity: &CertHash) {
        let live: Vec<_> = {
            let roster = self.roster.lock();
            let Some(of_peer) = roster.accepted.get(identity) else { return };
            of_peer.iter().filter_map(|id| roster.live.get(id)?.upgrade()).collect()
        };
        let live: Vec<_> = live.into_iter().filter(|member| !member.is_over()).collect();
        let surplus = live.len().saturating_sub(self.admission.limits().per_identity);
        for member in live.iter().take(surplus) {
            let limit =
                self.admission.refuse(member.entry().facts.remote_addr(), Limit::PerIdentity);
            member.abort(limit.code(), admission::reason(limit));
        }
    }

    /// Returns the connections that have not ended.
    pub fn live(&self) -> Vec<Arc<M>> {
        let mut live: Vec<_> = self.roster.lock().live.values().filter_map(Weak::upgrade).collect();
        live.retain(|member| !member.is_over());
        live
    }

    /// Returns the live connections with one peer.
    pub fn of_peer(&self, identity: &CertHash) -> Vec<Arc<M>> {
        let mut live = self.live();
        live.retain(|member| member.entry().facts.peer().hash == *identity);
        live
    }

    /// Closes the connections whose peer `policy` does not trust, also those in their handshake, and
    /// returns how many were established. Once it returns, nothing of these peers is handed out. A few
    /// peers are verified at a time; between them other tasks run.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the connections open that it has not reached.
    pub async fn revoke(&self, policy: &TrustPolicy) -> usize {
        let (members, forgotten) = {
            let mut roster = self.roster.lock();
            let forgotten = roster.revocations.record(policy.clone());
            // Messages of connections that have ended may wait.
            (roster.live.values().cloned().collect::<Vec<_>>(), forgotten)
        };
        drop(forgotten);
        let mut revoked = 0;
        for members in members.chunks(AT_ONCE) {
            let members = members.iter().filter_map(Weak::upgrade);
            revoked += members.filter(|member| revoke(&**member, policy)).count();
            yield_now().await;
        }
        revoked
    }

    /// Closes all connections with [`SHUTDOWN`](close_code::SHUTDOWN), orderly within `deadline` and then at
    /// once. `stop` runs first; it ends what brings new connections.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes at once the connections that were sending what is queued.
    pub async fn shutdown(&self, deadline: Duration, reason: &str, stop: impl Future<Output = ()>) {
        self.is_shut_down.send_replace(true);
        let orderly = async {
            stop.await;
            let live = self.live().into_iter();
            join_all(live.map(|member| member.close(close_code::SHUTDOWN, reason))).await;
        };
        let _ = timeout(deadline, orderly).await; // what is late is closed below
        self.live().iter().for_each(|member| member.abort(close_code::SHUTDOWN, reason));
    }

    /// Returns whether [`shutdown`](Self::shutdown) was called.
    pub fn is_shut_down(&self) -> bool {
        *self.is_shut_down.borrow()
    }

    /// Checks that [`shutdown`](Self::shutdown) was not called.
    ///
    /// # Errors
    ///
    /// The reason for which nothing can be opened any more.
    pub fn check_open(&self) -> Result<(), CloseReason> {
        let reason = "the transport is shut down".to_owned();
        let closed = CloseReason::Local { code: close_code::SHUTDOWN, reason };
        if self.is_shut_down() { Err(closed) } else { Ok(()) }
    }

    /// Waits until [`shutdown`](Self::shutdown) is called.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn shut_down(&self) {
        let mut is_shut_down = self.is_shut_down.subscribe();
        let _ = is_shut_down.wait_for(|is_shut_down| *is_shut_down).await; // the sender lives
    }

    /// Returns what the transport did so far.
    pub fn statistics(&self) -> TransportStatistics {
        let refused = |limit| self.admission.refused(limit);
        let mut statistics = TransportStatistics::default();
        statistics.connections = self.live().len();
        statistics.handshakes = self.admission.handshakes();
        statistics.messages = self.messages.read();
        statistics.refused_connections = refused(Limit::Connections);
        statistics.refused_per_ip = refused(Limit::PerIp);
        statistics.refused_per_identity = refused(Limit::PerIdentity);
        statistics.refused_handshakes = refused(Limit::Handshakes);
        statistics.refused_handshake_timeout = refused(Limit::HandshakeTimeout);
        statistics.refused_memory = refused(Limit::Memory);
        statistics.refused_message_timeout = refused(Limit::MessageTimeout);
        statistics.held_bytes = self.account.used();
        statistics.refused_messages = self.refused_messages.load(Ordering::Relaxed);
        statistics
    }
}

impl<M> Drop for Registry<M> {
    fn drop(&mut self) {
        self.terms_changed.notify_one(); // the task ends
        self.roster.get_mut().late.take().iter().for_each(JoinHandle::abort);
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

/// Closes the connection, whose peer is not trusted any more, with `code`; returns whether it did.
fn withdraw(member: &impl Member, code: u64) -> bool {
    let entry = member.entry();
    if entry.withdrawn.set(code).is_err() || member.is_over() {
        return false;
    }
    entry.telemetry.revoked();
    member.abort(code, why_withdrawn(code));
    true
}

fn why_withdrawn(code: u64) -> &'static str {
    match code {
        close_code::TRUST_ENDED => "the certificate or endorsement has ended",
        _ => "no longer trusted",
    }
}

/// What a connection holds of its [`Registry`]: its facts and telemetry.
pub struct Entry<M> {
    registry: Arc<Registry<M>>,
    id: u64,
    facts: ConnectionFacts,
    telemetry: Arc<ConnectionTelemetry>,
    violations: Violations,
    share: Arc<Share>,
    /// The code with which it was closed when its peer was no longer trusted.
    withdrawn: OnceLock<u64>,
    /// `None` if trust has no end.
    term: Option<Term>,
}

impl<M: Member> Entry<M> {
    /// Returns what does not change during the connection.
    pub fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    /// Returns the span of the connection.
    pub fn span(&self) -> &Span {
        self.telemetry.span()
    }

    /// Returns what tells of the connection. Keep a clone until the connection has ended, and then call
    /// [`closed`](ConnectionTelemetry::closed).
    pub fn telemetry(&self) -> &Arc<ConnectionTelemetry> {
        &self.telemetry
    }

    /// Returns what the connection holds of the transport's memory.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Returns how many messages were queued and delivered.
    pub fn message_statistics(&self) -> MessageStatistics {
        self.telemetry.messages()
    }

    /// Counts a message that was queued.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.registry.messages.sent(bytes);
        self.telemetry.sent(bytes);
    }

    /// Returns whether the peer is trusted: it was not revoked, and its trust has not ended.
    #[inline]
    pub fn is_trusted(&self) -> bool {
        self.withdrawn.get().is_none()
    }

    /// Counts what `recv` returns to the application, and passes it on if the peer is trusted. A
    /// peer that announces too many messages beyond the limit is closed.
    ///
    /// # Errors
    ///
    /// `received`; or [`RecvError::Closed`] with [`REVOKED`](close_code::REVOKED) or
    /// [`TRUST_ENDED`](close_code::TRUST_ENDED) instead of a message.
    #[inline]
    pub fn hand_out(&self, received: Received) -> Received {
        if let Some(reason) = self.why_withdrawn() {
            return Err(match received {
                Err(closed @ RecvError::Closed(_)) => closed,
                _ => RecvError::Closed(reason),
            });
        }
        match &received {
            Ok((message, _)) => {
                self.registry.messages.received(message.len());
                self.telemetry.received(message.len());
            }
            Err(RecvError::TooLarge { .. }) => {
                self.registry.refused_messages.fetch_add(1, Ordering::Relaxed);
                self.telemetry.message_refused();
                if self.violations.add() {
                    self.end();
                }
            }
            Err(_) => {}
        }
        received
    }

    /// Passes on what the application gets of a request, a question or an answer, if the peer is
    /// trusted.
    ///
    /// # Errors
    ///
    /// `received`; or [`RequestError::Closed`] instead of the question or answer, as in
    /// [`hand_out`](Self::hand_out).
    pub fn hand_out_request<T>(
        &self,
        received: Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        match (received, self.why_withdrawn()) {
            (Ok(_), Some(reason)) => Err(RequestError::Closed(reason)),
            (received, _) => received,
        }
    }

    fn why_withdrawn(&self) -> Option<CloseReason> {
        let code = *self.withdrawn.get()?;
        Some(CloseReason::Local { code, reason: why_withdrawn(code).to_owned() })
    }

    fn end(&self) {
        let member = self.registry.roster.lock().live.get(&self.id).and_then(Weak::upgrade);
        if let Some(member) = member {
            let code = close_code::TOO_MANY_VIOLATIONS;
            member.abort(code, close_code::name(code).unwrap_or_default());
        }
    }
}

impl<M> Drop for Entry<M> {
    fn drop(&mut self) {
        let (was_last, idle) = {
            let roster = &mut *self.registry.roster.lock();
            roster.live.remove(&self.id);
            if let Some(of_peer) = roster.accepted.get_mut(&self.facts.peer().hash) {
                of_peer.remove(&self.id);
                if of_peer.is_empty() {
                    roster.accepted.remove(&self.facts.peer().hash);
                }
            }
            let was_last = self.term.is_some_and(|term| roster.terms.remove(self.id, term));
            (was_last, roster.late.take_if(|_| roster.live.is_empty()))
        };
        if was_last {
            self.registry.terms_changed.notify_one();
        }
        idle.iter().for_each(JoinHandle::abort); // the next connection starts it again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::ConnectionLimits;
    use futures_util::FutureExt;
    use net_traits::{
        CertificateDer, EndorsementValidity, Endorser, Endorsers, IdentityKey, NetCredential,
        PeerIdentity, PeerVerifier,
    };
    use std::future::pending;
    use std::pin::pin;
    use tokio::runtime::Builder;
    use tokio::time::sleep;

    struct Connection {
        entry: Entry<Self>,
        /// Whether an orderly close ends.
        is_stuck: bool,
        ended: Mutex<Option<(u64, String)>>,
    }

    impl Member for Connection {
        fn entry(&self) -> &Entry<Self> {
            &self.entry
        }

        fn is_over(&self) -> bool {
            self.ended.lock().is_some()
        }

        fn abort(&self, code: u64, reason: &str) {
            self.ended.lock().get_or_insert((code, reason.to_owned()));
        }

        async fn close(self: Arc<Self>, code: u64, reason: &str) {
            if self.is_stuck {
                pending::<()>().await;
            }
            self.abort(code, reason);
        }
    }

    fn registry() -> Arc<Registry<Connection>> {
        let limits = ConnectionLimits {
            connections: 9,
            per_ip: 9,
            per_identity: 2,
            handshakes: 9,
            handshakes_per_ip: 9,
        };
        let telemetry = Telemetry::new("test");
        Registry::new(Admission::new(limits, telemetry.clone()), telemetry)
    }

    fn connect(
        registry: &Arc<Registry<Connection>>,
        peer: &NetCredential,
        revocations: u64,
        is_stuck: bool,
    ) -> Arc<Connection> {
        open(registry, peer, Origin::Dialled, revocations, is_stuck)
    }

    fn open(
        registry: &Arc<Registry<Connection>>,
        peer: &NetCredential,
        origin: Origin,
        revocations: u64,
        is_stuck: bool,
    ) -> Arc<Connection> {
        let remote = ([10, 0, 0, 1], 1).into();
        let certificate = peer.certificate_chain().first().cloned();
        let identity = TrustPolicy::Any.verify(certificate.as_ref()).unwrap();
        let alpn = "test/1".to_owned();
        let facts =
            ConnectionFacts::new(remote, remote, peer.identity(), identity, certificate, alpn);
        registry.register(facts, origin, revocations, |entry| Connection {
            entry,
            is_stuck,
            ended: Mutex::default(),
        })
    }

    fn peer() -> NetCredential {
        NetCredential::self_signed(TrustPolicy::Any).unwrap()
    }

    #[test]
    fn connections_are_known_until_their_last_handle_is_dropped() {
        let registry = registry();
        let (alice, bob) = (peer(), peer());
        let first = connect(&registry, &alice, 0, false);
        let second = connect(&registry, &bob, 0, false);
        assert_eq!(registry.statistics().connections, 2);
        let found = registry.of_peer(&alice.identity());
        assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &first));
        drop((first, found));
        assert!(registry.of_peer(&alice.identity()).is_empty());
        assert_eq!(registry.live().len(), 1);
        drop(second);
        assert_eq!(registry.statistics().connections, 0);
    }

    #[test]
    fn the_newest_connections_of_a_peer_replace_the_oldest() {
        let registry = registry();
        let (alice, bob) = (peer(), peer());
        let accept = |peer| open(&registry, peer, Origin::Accepted, 0, false);
        let dialled: Vec<_> = (0..3).map(|_| connect(&registry, &alice, 0, false)).collect();
        let (first, second, other) = (accept(&alice), accept(&alice), accept(&bob));
        assert!(!first.is_over());
        let third = accept(&alice);
        assert_eq!(first.ended.lock().as_ref().unwrap().0, Limit::PerIdentity.code());
        assert_eq!(registry.statistics().refused_per_identity, 1);
        second.abort(0, "");
        let fourth = accept(&alice);
        assert_eq!(registry.statistics().refused_per_identity, 1, "what has ended does not count");
        assert!([&third, &fourth, &other].into_iter().chain(&dialled).all(|it| !it.is_over()));
        drop((first, second, third, fourth, other));
        assert!(registry.roster.lock().accepted.is_empty());
    }

    #[tokio::test]
    async fn revocation_closes_what_is_not_trusted_once() {
        let registry = registry();
        let (alice, bob) = (peer(), peer());
        let first = connect(&registry, &alice, registry.revocations(), false);
        let second = connect(&registry, &bob, registry.revocations(), false);
        let policy = TrustPolicy::hashes([bob.identity()]);
        assert_eq!(registry.revoke(&policy).await, 1);
        assert_eq!(registry.revoke(&policy).await, 0, "it has ended already");
        assert_eq!(first.ended.lock().as_ref().unwrap().0, close_code::REVOKED);
        assert!(!second.is_over());
    }

    #[tokio::test]
    async fn nothing_is_handed_out_of_a_revoked_peer() {
        let registry = registry();
        let (alice, bob, carol) = (peer(), peer(), peer());
        let [first, second, third] =
            [&alice, &bob, &carol].map(|peer| connect(&registry, peer, 0, false));
        second.abort(7, "it ended before, and its messages wait");
        assert_eq!(registry.revoke(&TrustPolicy::hashes([carol.identity()])).await, 1);
        let message = || Ok(("late".into(), Duration::ZERO));
        let revoked = || CloseReason::Local {
            code: close_code::REVOKED,
            reason: "no longer trusted".to_owned(),
        };
        let ended = || RecvError::Closed(CloseReason::TimedOut);
        for of_revoked in [&first.entry, &second.entry] {
            assert_eq!(of_revoked.hand_out(message()), Err(RecvError::Closed(revoked())));
            let too_large = Err(RecvError::TooLarge { size: 9, limit: 1 });
            assert_eq!(of_revoked.hand_out(too_large), Err(RecvError::Closed(revoked())));
            assert_eq!(of_revoked.hand_out(Err(ended())), Err(ended()));
            assert_eq!(of_revoked.hand_out_request(Ok(1)), Err(RequestError::Closed(revoked())));
            let canceled = Err::<(), _>(RequestError::Canceled);
            assert_eq!(of_revoked.hand_out_request(canceled.clone()), canceled);
        }
        assert_eq!(third.entry.hand_out(message()), message());
        assert_eq!(third.entry.hand_out_request(Ok(1)), Ok(1));
        let all = registry.statistics();
        assert_eq!((all.messages.messages_received, all.refused_messages), (1, 0));
    }

    /// Creates a peer that is trusted for an hour.
    fn visitor() -> (NetCredential, TrustPolicy) {
        let endorser = Endorser::generate().unwrap();
        let key = IdentityKey::generate().unwrap();
        let hour = EndorsementValidity::for_duration(Duration::from_secs(3600));
        let endorsement = endorser.endorse(&key.public_key_info(), hour);
        let trust = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
        let peer = key.self_sign(&["visitor"], &[endorsement]).unwrap();
        (peer.credential(trust.clone()).unwrap(), trust)
    }

    fn connect_trusting(
        registry: &Arc<Registry<Connection>>,
        peer: &NetCredential,
        trust: &TrustPolicy,
    ) -> Arc<Connection> {
        let remote = ([10, 0, 0, 1], 1).into();
        let certificate = peer.certificate_chain().first().cloned();
        let identity = trust.verify(certificate.as_ref()).unwrap();
        let alpn = "test/1".to_owned();
        let facts =
            ConnectionFacts::new(remote, remote, peer.identity(), identity, certificate, alpn);
        registry.register(facts, Origin::Dialled, 0, |entry| Connection {
            entry,
            is_stuck: false,
            ended: Mutex::default(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn connections_end_with_the_trust_in_their_peers() {
        let registry = registry();
        let (visitor, trust) = visitor();
        let others: Vec<_> = (0..3).map(|_| connect(&registry, &peer(), 0, false)).collect();
        let guest = connect_trusting(&registry, &visitor, &trust);
        let kept = connect_trusting(&registry, &visitor, &trust.at_handshake());
        sleep(Duration::from_secs(3590)).await;
        assert!(!guest.is_over() && guest.entry.is_trusted());
        sleep(Duration::from_secs(20)).await;
        assert_eq!(guest.ended.lock().as_ref().unwrap().0, close_code::TRUST_ENDED);
        assert!(!guest.entry.is_trusted());
        assert!(!kept.is_over() && kept.entry.is_trusted());
        assert!(others.iter().all(|other| !other.is_over()));
        assert!(registry.roster.lock().terms.next().is_some(), "certificates end too");
        drop((others, guest, kept));
        assert!(registry.roster.lock().terms.next().is_none());
    }

    #[test]
    fn terms_are_watched_after_their_runtime() {
        let registry = registry();
        let (visitor, trust) = visitor();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let guest = runtime.block_on(async { connect_trusting(&registry, &visitor, &trust) });
        drop(runtime);
        let later = connect_trusting(&registry, &visitor, &trust); // in no runtime
        for member in [&guest, &later] {
            let entry = &member.entry;
            let mut roster = registry.roster.lock();
            roster.terms.remove(entry.id, entry.term.unwrap());
            roster.terms.insert(entry.id, Term::now());
        }
        registry.terms_changed.notify_one();
        while !(guest.is_over() && later.is_over()) {
            std::thread::yield_now();
        }
    }

    /// Trusts every peer, and counts how often it is asked.
    #[derive(Clone)]
    struct Counting(Arc<AtomicU64>);

    impl PeerVerifier for Counting {
        fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn revocation_lets_other_tasks_run_between_a_few_peers() {
        let registry = registry();
        let alice = peer();
        let count = 10 * AT_ONCE + 1;
        let _live: Vec<_> = (0..count).map(|_| connect(&registry, &alice, 0, false)).collect();
        let asked = Counting(Arc::default());
        let policy = TrustPolicy::custom(asked.clone());
        let mut revoking = pin!(registry.revoke(&policy));
        let (mut before, mut polls) = (0, 0);
        while revoking.as_mut().now_or_never().is_none() {
            let now = asked.0.load(Ordering::Relaxed);
            assert!(now - before <= AT_ONCE as u64, "{} peers in one poll", now - before);
            (before, polls) = (now, polls + 1);
        }
        assert_eq!((asked.0.load(Ordering::Relaxed), polls), (count as u64, 11));
    }

    #[tokio::test]
    async fn revocation_finds_connections_in_their_handshake() {
        let registry = registry();
        let (alice, before) = (peer(), registry.revocations());
        registry.revoke(&TrustPolicy::reject_all()).await;
        assert!(connect(&registry, &alice, before, false).is_over());
        assert!(!connect(&registry, &alice, registry.revocations(), false).is_over());
    }

    #[test]
    fn messages_are_counted_for_the_connection_and_the_transport() {
        let registry = registry();
        let (one, other) =
            (connect(&registry, &peer(), 0, false), connect(&registry, &peer(), 0, false));
        one.entry.sent(10);
        other.entry.sent(5);
        let (message, error) = (
            Ok(("abc".into(), Duration::ZERO)),
            RecvError::Truncated { received: 1, announced: 2 },
        );
        assert_eq!(one.entry.hand_out(message.clone()), message);
        assert_eq!(one.entry.hand_out(Err(error.clone())), Err(error));
        let _ = one.entry.hand_out(Err(RecvError::TooLarge { size: 9, limit: 1 }));
        let of_one = one.entry.message_statistics();
        assert_eq!((of_one.messages_sent, of_one.bytes_sent), (1, 10));
        assert_eq!((of_one.messages_received, of_one.bytes_received), (1, 3));
        let all = registry.statistics();
        assert_eq!((all.messages.messages_sent, all.messages.bytes_sent), (2, 15));
        assert_eq!(all.refused_messages, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_closes_orderly_until_the_deadline_and_then_at_once() {
        let registry = registry();
        let orderly = connect(&registry, &peer(), 0, false);
        let stuck = connect(&registry, &peer(), 0, true);
        let (waits, deadline) = (registry.shut_down(), Duration::from_secs(3));
        let ((), ()) = tokio::join!(waits, registry.shutdown(deadline, "bye", async {}));
        let end = Some((close_code::SHUTDOWN, "bye".to_owned()));
        assert_eq!((&*orderly.ended.lock(), &*stuck.ended.lock()), (&end, &end));
        assert!(connect(&registry, &peer(), 0, false).is_over(), "the transport is shut down");
    }
}
