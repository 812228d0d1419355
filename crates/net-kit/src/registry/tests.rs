//! Tests of the registry and of connections without handles.

use super::*;
use crate::admission::{ConnectionLimits, Place};
use crate::memory_budget::Unfinished;
use futures_util::FutureExt;
use net_traits::{
    CertificateDer, CloseReason, DatagramError, EndorsementValidity, Endorser, Endorsers,
    IdentityKey, NetCredential, PeerIdentity, PeerVerifier, RecvError, RequestError,
};
use std::cell::Cell;
use std::future::pending;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::sleep;

thread_local! {
    /// How often another task has run.
    pub(super) static TURN: Cell<u64> = const { Cell::new(0) };
}

pub(super) struct Connection {
    entry: Entry<Self>,
    pub(super) samples: AtomicU64,
    /// The value of `TURN` at the last sample.
    pub(super) turn: AtomicU64,
    /// Whether a graceful close never ends.
    is_stuck: bool,
    /// Locked while a handler runs.
    handler: tokio::sync::Mutex<()>,
    pub(super) ended: Mutex<Option<(u64, String)>>,
}

const LINGER: Duration = Duration::from_secs(5);

impl Connection {
    fn new(entry: Entry<Self>, is_stuck: bool) -> Self {
        let (samples, turn) = (AtomicU64::new(0), AtomicU64::new(0));
        let (handler, ended) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { entry, samples, turn, is_stuck, handler, ended }
    }
}

impl Member for Connection {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn has_ended(&self) -> bool {
        self.ended.lock().is_some()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.ended.lock().get_or_insert((code, reason.to_owned()));
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        if self.is_stuck {
            pending::<()>().await;
        }
        self.abort(code, reason);
        CloseOutcome::Delivered
    }

    async fn handled(&self) {
        drop(self.handler.lock().await);
    }

    fn linger(&self, lingering: Lingering<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(lingering.run(LINGER));
        }
    }

    async fn sample(&self) -> Option<Sample> {
        self.samples.fetch_add(1, Ordering::Relaxed);
        self.turn.store(TURN.get(), Ordering::Relaxed);
        Some(Sample::default())
    }

    fn unconfirmed(&self) -> (u64, u64) {
        if self.is_stuck { (3, 30) } else { (0, 0) }
    }
}

pub(super) fn registry() -> Arc<Registry<Connection>> {
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

pub(super) fn connect(
    registry: &Arc<Registry<Connection>>,
    peer: &NetCredential,
    revocations: u64,
    is_stuck: bool,
) -> Handle<Connection> {
    open(registry, peer, None, revocations, is_stuck)
}

fn open(
    registry: &Arc<Registry<Connection>>,
    peer: &NetCredential,
    handshake: Option<HandshakeNumber>,
    revocations: u64,
    is_stuck: bool,
) -> Handle<Connection> {
    let remote = ([10, 0, 0, 1], 1).into();
    let certificate = peer.certificate_chain().first().cloned();
    let identity = TrustPolicy::Any.verify(certificate.as_ref()).unwrap();
    let alpn = "test/1".to_owned();
    let facts = ConnectionFacts::new(remote, remote, peer.identity(), identity, certificate, alpn);
    registry.register(facts, handshake, revocations, |entry| Connection::new(entry, is_stuck))
}

fn place(registry: &Registry<Connection>) -> Place {
    registry.admission().admit(([10, 0, 0, 1], 1).into()).unwrap()
}

fn accept(
    registry: &Arc<Registry<Connection>>,
    peer: &NetCredential,
    place: &Place,
) -> Handle<Connection> {
    open(registry, peer, Some(place.number()), 0, false)
}

pub(super) fn peer() -> NetCredential {
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
    assert!(found.len() == 1 && Arc::ptr_eq(&found[0], Handle::member(&first)));
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
    let accept = |peer| accept(&registry, peer, &place(&registry));
    let dialled: Vec<_> = (0..3).map(|_| connect(&registry, &alice, 0, false)).collect();
    let (first, second, other) = (accept(&alice), accept(&alice), accept(&bob));
    assert!(!first.has_ended());
    let third = accept(&alice);
    assert_eq!(first.ended.lock().as_ref().unwrap().0, Limit::PerIdentity.code());
    assert_eq!(registry.statistics().refused_per_identity, 1);
    second.abort(0, "");
    let fourth = accept(&alice);
    assert_eq!(
        registry.statistics().refused_per_identity,
        1,
        "connections that have ended do not count"
    );
    assert!([&third, &fourth, &other].into_iter().chain(&dialled).all(|it| !it.has_ended()));
    drop((first, second, third, fourth, other));
    assert!(registry.state.lock().accepted.is_empty());
}

#[test]
fn the_connection_whose_handshake_began_first_is_the_oldest() {
    let registry = registry();
    let peer = peer();
    let [began_first, began_second, began_last] = [(); 3].map(|()| place(&registry));
    let accept = |place| accept(&registry, &peer, place);
    let (last, first) = (accept(&began_last), accept(&began_first));
    assert!(!first.has_ended());
    let second = accept(&began_second);
    assert!(first.has_ended() && !second.has_ended() && !last.has_ended());
    let first = accept(&began_first);
    assert!(first.has_ended(), "it is replaced although its handshake ended last");
    assert!(!second.has_ended() && !last.has_ended());
}

#[tokio::test]
async fn a_revocation_closes_each_untrusted_connection_once() {
    let registry = registry();
    let (alice, bob) = (peer(), peer());
    let first = connect(&registry, &alice, registry.revocations(), false);
    let second = connect(&registry, &bob, registry.revocations(), false);
    let policy = TrustPolicy::hashes([bob.identity()]);
    assert_eq!(registry.revoke(&policy).await, 1);
    assert_eq!(registry.revoke(&policy).await, 0, "the connection has ended already");
    assert_eq!(first.ended.lock().as_ref().unwrap().0, close_code::REVOKED);
    assert!(!second.has_ended());
}

#[tokio::test]
async fn nothing_of_a_revoked_peer_is_handed_out() {
    let registry = registry();
    let (alice, bob, carol) = (peer(), peer(), peer());
    let [first, second, third] =
        [&alice, &bob, &carol].map(|peer| connect(&registry, peer, 0, false));
    second.abort(7, "ended before the revocation");
    assert_eq!(registry.revoke(&TrustPolicy::hashes([carol.identity()])).await, 1);
    let message = || Ok(("late".into(), Duration::ZERO));
    let revoked =
        || CloseReason::Local { code: close_code::REVOKED, reason: "no longer trusted".to_owned() };
    let ended = || RecvError::Closed(CloseReason::TimedOut);
    for of_revoked in [&first.entry, &second.entry] {
        assert_eq!(of_revoked.hand_out(message()), Err(RecvError::Closed(revoked())));
        let too_large = Err(RecvError::TooLarge { size: 9, limit: 1 });
        assert_eq!(of_revoked.hand_out(too_large), Err(RecvError::Closed(revoked())));
        assert_eq!(of_revoked.hand_out(Err(ended())), Err(ended()));
        assert_eq!(of_revoked.hand_out_request(Ok(1)), Err(RequestError::Closed(revoked())));
        let canceled = Err::<(), _>(RequestError::Canceled);
        assert_eq!(of_revoked.hand_out_request(canceled.clone()), canceled);
        let late = of_revoked.hand_out_datagram(Ok("late".into()));
        assert_eq!(late, Err(DatagramError::Closed(revoked())));
    }
    assert_eq!(third.entry.hand_out(message()), message());
    assert_eq!(third.entry.hand_out_request(Ok(1)), Ok(1));
    assert_eq!(third.entry.hand_out_datagram(Ok("late".into())), Ok("late".into()));
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
) -> Handle<Connection> {
    let remote = ([10, 0, 0, 1], 1).into();
    let certificate = peer.certificate_chain().first().cloned();
    let identity = trust.verify(certificate.as_ref()).unwrap();
    let alpn = "test/1".to_owned();
    let facts = ConnectionFacts::new(remote, remote, peer.identity(), identity, certificate, alpn);
    registry.register(facts, None, 0, |entry| Connection::new(entry, false))
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_the_trust_in_their_peers() {
    let registry = registry();
    let (visitor, trust) = visitor();
    let others: Vec<_> = (0..3).map(|_| connect(&registry, &peer(), 0, false)).collect();
    let guest = connect_trusting(&registry, &visitor, &trust);
    let kept = connect_trusting(&registry, &visitor, &trust.at_handshake());
    sleep(Duration::from_secs(3590)).await;
    assert!(!guest.has_ended() && guest.entry.is_trusted());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(guest.ended.lock().as_ref().unwrap().0, close_code::TRUST_ENDED);
    assert!(!guest.entry.is_trusted());
    assert!(!kept.has_ended() && kept.entry.is_trusted());
    assert!(others.iter().all(|other| !other.has_ended()));
    assert!(registry.state.lock().trust_expiry.next().is_some(), "certificates expire too");
    drop((others, guest, kept));
    while registry.statistics().connections > 0 {
        tokio::task::yield_now().await; // connections linger
    }
    assert!(registry.state.lock().trust_expiry.next().is_none());
}

#[test]
fn trust_expiry_is_watched_after_the_runtime_has_ended() {
    let registry = registry();
    let (visitor, trust) = visitor();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let guest = runtime.block_on(async { connect_trusting(&registry, &visitor, &trust) });
    drop(runtime);
    let later = connect_trusting(&registry, &visitor, &trust); // in no runtime
    for member in [&guest, &later] {
        let entry = &member.entry;
        let mut state = registry.state.lock();
        state.trust_expiry.remove(entry.id, entry.expiry.unwrap());
        state.trust_expiry.insert(entry.id, Expiry::now());
    }
    registry.expiry_changed.notify_one();
    while !(guest.has_ended() && later.has_ended()) {
        std::thread::yield_now();
    }
}

#[test]
fn the_time_limit_of_messages_outlives_the_first_runtime() {
    let limits = MemoryLimits { timeout: Duration::from_millis(40), ..MemoryLimits::NONE };
    let telemetry = Telemetry::new("test");
    let admission = Admission::new(*registry().admission.limits(), telemetry.clone());
    let registry = Registry::with_memory(admission, telemetry, limits);
    let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let connected = async || connect(&registry, &peer(), 0, false);
    let members = [
        first.block_on(connected()),
        second.block_on(connected()),
        connect(&registry, &peer(), 0, false),
    ];
    drop(first);
    for member in &members {
        let mut message = Unfinished::new(member.entry.share());
        message.set(1000, 2000);
        while !member.has_ended() {
            std::thread::yield_now();
        }
        let limit = Limit::MessageTimeout.code();
        assert_eq!(member.ended.lock().as_ref().unwrap().0, limit);
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
fn a_revocation_yields_after_every_few_peers() {
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
async fn a_revocation_waits_for_handlers_after_one_that_was_dropped() {
    let registry = registry();
    let (closed, ended) =
        (connect(&registry, &peer(), 0, false), connect(&registry, &peer(), 0, false));
    ended.abort(0, "");
    let policy = TrustPolicy::reject_all();
    for connection in [&closed, &ended] {
        let handler = connection.handler.lock().await;
        assert!(registry.revoke(&policy).now_or_never().is_none());
        assert!(connection.has_ended());
        let mut again = pin!(registry.revoke(&policy));
        assert!((0..9).all(|_| again.as_mut().now_or_never().is_none()), "a handler runs");
        drop(handler);
        assert_eq!(again.await, 0, "they have ended already");
    }
}

#[tokio::test]
async fn a_handler_does_not_delay_the_revocation_of_others() {
    let registry = registry();
    let connections: Vec<_> =
        (0..2 * AT_ONCE).map(|_| connect(&registry, &peer(), 0, false)).collect();
    let policy = TrustPolicy::reject_all();
    let handler = connections[0].handler.lock().await;
    let mut revocation = pin!(registry.revoke(&policy));
    assert!((0..9).all(|_| revocation.as_mut().now_or_never().is_none()), "a handler runs");
    assert!(connections.iter().all(|connection| connection.has_ended()));
    drop(handler);
    assert_eq!(revocation.await, connections.len());
}

#[tokio::test]
async fn a_revocation_applies_to_handshakes_in_progress() {
    let registry = registry();
    let (alice, before) = (peer(), registry.revocations());
    registry.revoke(&TrustPolicy::reject_all()).await;
    assert!(connect(&registry, &alice, before, false).has_ended());
    assert!(!connect(&registry, &alice, registry.revocations(), false).has_ended());
}

#[test]
fn messages_are_counted_for_the_connection_and_the_transport() {
    let registry = registry();
    let (one, other) =
        (connect(&registry, &peer(), 0, false), connect(&registry, &peer(), 0, false));
    one.entry.sent(10);
    other.entry.sent(5);
    let (message, error) =
        (Ok(("abc".into(), Duration::ZERO)), RecvError::Truncated { received: 1, announced: 2 });
    assert_eq!(one.entry.hand_out(message.clone()), message);
    assert_eq!(one.entry.hand_out(Err(error.clone())), Err(error));
    let _ = one.entry.hand_out(Err(RecvError::TooLarge { size: 9, limit: 1 }));
    let of_one = one.entry.message_statistics();
    assert_eq!((of_one.messages_sent, of_one.bytes_sent), (1, 10));
    assert_eq!((of_one.messages_received, of_one.bytes_received), (1, 3));
    let all = registry.statistics();
    assert_eq!((all.messages.messages_sent, all.messages.bytes_sent), (2, 15));
    assert_eq!(all.refused_messages, 1);
    drop(one);
    assert_eq!(registry.statistics().messages, all.messages, "ended connections count");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_handles_lingers_and_is_hidden() {
    let registry = registry();
    drop(connect(&registry, &peer(), 0, false));
    let handle = connect(&registry, &peer(), 0, true);
    let [further] = <[_; 1]>::try_from(registry.handles()).unwrap();
    drop(handle);
    assert_eq!(registry.handles().len(), 1);
    let member = Arc::downgrade(Handle::member(&further));
    drop(further);
    assert!(registry.handles().is_empty());
    assert_eq!(registry.statistics().connections, 2, "lingering connections count");
    let begin = tokio::time::Instant::now();
    while registry.statistics().connections > 0 {
        sleep(LINGER / 10).await;
    }
    assert!(begin.elapsed() >= LINGER && begin.elapsed() < 2 * LINGER);
    assert!(member.upgrade().is_none());
    let statistics = registry.statistics();
    assert_eq!((statistics.undelivered_messages, statistics.undelivered_bytes), (3, 30));
}

#[tokio::test(start_paused = true)]
async fn lingering_connections_can_be_closed_revoked_and_shut_down() {
    let registry = registry();
    let linger = |registry: &Arc<Registry<Connection>>, peer: &NetCredential| {
        let member = Handle::member(&connect(registry, peer, registry.revocations(), true)).clone();
        assert!(!member.has_ended());
        member
    };
    let code = |member: &Connection| member.ended.lock().as_ref().unwrap().0;
    let (alice, bob) = (peer(), peer());
    let member = linger(&registry, &alice);
    assert_eq!(registry.close_peer(&alice.identity(), 7, ""), 1);
    assert_eq!(code(&member), 7);
    let member = linger(&registry, &bob);
    assert_eq!(registry.revoke(&TrustPolicy::reject_all()).await, 1);
    assert_eq!(code(&member), close_code::REVOKED);
    let member = linger(&registry, &alice);
    registry.shutdown(LINGER / 2, "bye", async {}).await;
    assert_eq!(code(&member), close_code::SHUTDOWN);
}

#[test]
fn without_a_runtime_a_connection_closes_immediately_and_is_counted() {
    let registry = registry();
    let handle = connect(&registry, &peer(), 0, true);
    let member = Handle::member(&handle).clone();
    let unwinding = std::thread::spawn(move || {
        let _handle = handle;
        panic!("on purpose");
    });
    assert_eq!(unwinding.join().unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(*member.ended.lock(), Some((0, String::new())));
    assert_eq!(registry.statistics().undelivered_messages, 3);
}

#[test]
fn what_an_end_loses_is_counted_if_the_last_handle_is_dropped_after_it() {
    let registry = registry();
    let handle = connect(&registry, &peer(), 0, true);
    handle.abort(7, "");
    assert_eq!(registry.statistics().undelivered_messages, 0);
    drop(handle.clone());
    assert_eq!(registry.statistics().undelivered_messages, 0);
    drop(handle);
    assert_eq!(registry.statistics().undelivered_messages, 3);
}
