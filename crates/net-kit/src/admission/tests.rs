//! Tests of the [limits on peers](super).

use super::*;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

const WIDE: ConnectionLimits = ConnectionLimits {
    connections: 100,
    per_ip: 100,
    per_identity: 1,
    handshakes: 100,
    handshakes_per_ip: 100,
};

fn admission(handshakes: usize) -> Admission {
    limited(ConnectionLimits { connections: 3, per_ip: 2, handshakes, ..WIDE })
}

fn limited(limits: ConnectionLimits) -> Admission {
    Admission::new(limits, Telemetry::new("test"))
}

fn ip(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 1).into()
}

#[tokio::test(start_paused = true)]
async fn each_limit_is_applied_and_dropped_places_are_free() {
    let admission = Arc::new(admission(2));
    let mut first = admission.admit(ip(1)).unwrap();
    let second = admission.admit(ip(1)).unwrap();
    assert_eq!(admission.admit(ip(1)).unwrap_err(), Limit::PerIp);
    assert_eq!(admission.admit(ip(2)).unwrap_err(), Limit::Handshakes);
    first.complete().unwrap();
    first.complete().unwrap();
    let mut third = admission.admit(ip(2)).unwrap();
    assert_eq!(admission.admit(ip(3)).unwrap_err(), Limit::Connections);
    let timed_out = third.watch().run(Duration::ZERO, pending::<()>()).await;
    assert_eq!(timed_out, Err(Limit::HandshakeTimeout));
    assert_eq!(admission.handshakes(), 2);
    for limit in [Limit::Connections, Limit::PerIp, Limit::Handshakes, Limit::HandshakeTimeout] {
        assert_eq!(admission.refused(limit), 1, "{limit:?}");
    }
    drop((first, second));
    third.complete().unwrap();
    drop((third, admission.admit(ip(1)).unwrap()));
    let state = admission.state.lock();
    state.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn connections_that_the_library_keeps_count_for_their_addresses() {
    let admission = Arc::new(limited(ConnectionLimits { connections: 8, per_ip: 4, ..WIDE }));
    let listener = admission.listener();
    listener.set_open(8);
    for _ in 0..8 {
        drop(admission.admit(ip(1)).unwrap()); // as many as usual are kept
    }
    listener.set_open(9);
    assert!(admission.is_under_pressure());
    for _ in 0..4 {
        drop(admission.admit(ip(1)).unwrap());
    }
    assert_eq!(admission.admit(ip(1)).unwrap_err(), Limit::PerIp);
    for last in 2..4 {
        for _ in 0..4 {
            drop(admission.admit(ip(last)).unwrap());
        }
    }
    // More are not kept than connections are permitted: the oldest are released.
    drop(admission.admit(ip(1)).unwrap());
    assert_eq!(admission.admit(ip(3)).unwrap_err(), Limit::PerIp);
    tokio::time::advance(KEPT).await;
    for _ in 0..4 {
        drop(admission.admit(ip(3)).unwrap());
    }
    assert_eq!(admission.admit(ip(3)).unwrap_err(), Limit::PerIp);
    listener.set_open(0);
    assert!(!admission.is_under_pressure());
    drop(admission.admit(ip(3)).unwrap());
    admission.state.lock().assert_empty();
}

#[tokio::test(start_paused = true)]
async fn no_handshake_gives_way_to_an_address_whose_connections_are_kept() {
    let admission = Arc::new(limited(ConnectionLimits { per_ip: 2, ..WIDE }));
    let listener = admission.listener();
    listener.set_open(101);
    drop(admission.admit(ip(1)).unwrap());
    let honest = admission.admit(ip(1)).unwrap();
    tokio::time::advance(2 * STALLED).await;
    assert_eq!(admission.admit(ip(1)).unwrap_err(), Limit::PerIp);
    assert_eq!(honest.check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_listeners_keep_is_added_up() {
    let admission = Arc::new(limited(ConnectionLimits { connections: 8, ..WIDE }));
    let (one, other, unused) = (admission.listener(), admission.listener(), admission.listener());
    let places: Vec<_> = (0..4).map(|_| other.admit(ip(1)).unwrap()).collect();
    unused.set_open(0);
    for (ended, is_crowded) in [(8, false), (9, true)] {
        one.set_open(ended);
        other.set_open(4);
        assert_eq!(admission.is_under_pressure(), is_crowded);
        one.set_open(4);
        other.set_open(ended);
        assert_eq!(admission.is_under_pressure(), is_crowded, "both keep some");
    }
    drop(places);
    assert_eq!(admission.state.lock().kept.len(), 4);
    drop(other);
    assert!(!admission.is_under_pressure(), "the one that is dropped does not count");
    admission.state.lock().assert_empty();
    one.set_open(9);
    assert!(admission.is_under_pressure());
    tokio::time::advance(KEPT).await;
    unused.set_open(0);
    assert!(!admission.is_under_pressure(), "no longer known");
}

impl State {
    fn assert_empty(&self) {
        assert_eq!((self.connections, self.handshakes.len()), (0, 0));
        assert!(self.per_ip.is_empty());
        assert!(self.handshakes_per_ip.is_empty());
        assert!(self.kept.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_stalled_handshake_is_evicted() {
    let reached = [
        (ConnectionLimits { handshakes_per_ip: 2, ..WIDE }, true),
        (ConnectionLimits { per_ip: 2, ..WIDE }, true),
        (ConnectionLimits { handshakes: 2, ..WIDE }, false),
        (ConnectionLimits { connections: 2, ..WIDE }, false),
    ];
    for (limits, of_one_address) in reached {
        let admission = Arc::new(limited(limits));
        let another = if of_one_address { 1 } else { 2 };
        let elsewhere = of_one_address.then(|| admission.admit(ip(9)).unwrap());
        let mut oldest = admission.admit(ip(1)).unwrap();
        let mut next = admission.admit(ip(1)).unwrap();
        assert!(admission.admit(ip(another)).is_err(), "{limits:?}: they have not stalled");
        tokio::time::advance(STALLED).await;
        let newest = admission.admit(ip(another)).unwrap();
        assert_eq!(oldest.check(), Err(Limit::Handshakes), "{limits:?}");
        assert_eq!(next.check(), Ok(()), "{limits:?}");
        let end = oldest.watch().run(Duration::MAX, pending::<()>()).await;
        assert_eq!(end, Err(Limit::Handshakes), "{limits:?}");
        assert_eq!(oldest.complete(), Err(Limit::Handshakes));
        assert_eq!(
            admission.refused(Limit::Handshakes)
                + admission.refused(Limit::PerIp)
                + admission.refused(Limit::Connections),
            2,
            "{limits:?}"
        );
        assert_eq!(next.watch().run(STALLED, async { 7 }).await, Ok(7));
        next.complete().unwrap();
        drop((oldest, next, newest, elsewhere));
        admission.state.lock().assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn an_established_connection_is_not_evicted() {
    let admission = Arc::new(limited(ConnectionLimits { per_ip: 1, ..WIDE }));
    let mut place = admission.admit(ip(1)).unwrap();
    place.complete().unwrap();
    tokio::time::advance(STALLED).await;
    assert_eq!(admission.admit(ip(1)).unwrap_err(), Limit::PerIp);
}

#[test]
fn pressure_begins_at_half_of_the_handshakes_of_one_address() {
    let admission = Arc::new(limited(ConnectionLimits { handshakes_per_ip: 4, ..WIDE }));
    let first = admission.admit(ip(1)).unwrap();
    let _another = admission.admit(ip(2)).unwrap();
    assert!(!admission.is_under_pressure());
    drop(admission.admit(ip(1)).unwrap());
    assert!(admission.is_under_pressure(), "pressure ends at a quarter");
    drop(first);
    assert!(admission.is_under_pressure());
}

#[test]
fn addresses_of_one_network_count_together() {
    let six = |text: &str| network(text.parse().unwrap());
    assert_eq!(six("2001:db8:1:2::1"), six("2001:db8:1:2:ffff::9"));
    assert_ne!(six("2001:db8:1:2::1"), six("2001:db8:1:3::1"));
    assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1).ip());
}

#[test]
fn pressure_begins_at_half_of_the_handshakes_and_ends_at_a_quarter() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let limits = ConnectionLimits { handshakes: 8, ..WIDE };
    let admission = limited(limits).on_pressure(move |it| {
        let _ = it.is_under_pressure(); // no lock is held
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let admission = Arc::new(admission);
    let mut places = Vec::new();
    for expected in [false, false, false, true, true] {
        places.push(admission.admit(ip(1)).unwrap());
        assert_eq!(admission.is_under_pressure(), expected, "{} handshakes", places.len());
    }
    places.pop().unwrap().complete().unwrap();
    for expected in [true, true, false, false] {
        drop(places.pop());
        assert_eq!(admission.is_under_pressure(), expected, "{} handshakes", places.len());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_charged_until_they_end() {
    let budget = Arc::new(MemoryBudget::new(crate::memory_budget::MemoryLimits::NONE));
    let admission = Arc::new(admission(2).charged(&budget));
    let (mut first, second) = (admission.admit(ip(1)).unwrap(), admission.admit(ip(2)).unwrap());
    assert_eq!(budget.used(), 2 * HANDSHAKE);
    first.complete().unwrap();
    assert_eq!(budget.used(), HANDSHAKE);
    tokio::time::advance(STALLED).await;
    let _third = admission.admit(ip(3)).unwrap();
    let _fourth = admission.admit(ip(3)).unwrap(); // the second one gives way, and is dropped later
    assert_eq!(budget.used(), 3 * HANDSHAKE);
    drop(second);
    assert_eq!(budget.used(), 2 * HANDSHAKE);
}
