//! A handshake comes to its end although the server never acknowledges Initial packets.
//!
//! Guards fault U8: the client of msquic 2.5.1 keeps its Initial keys and what is in flight under
//! them, which can fill its congestion window for good.

mod common;

use common::{ALPN, Dial, PATIENCE, host, settings};
use quic_attack::{Host, Identity, Parameters, Policy, Space};
use std::time::{Duration, Instant};

#[test]
fn the_handshake_comes_to_its_end() {
    attempt(host(), 1);
}

/// The client repeats its ClientHello until its congestion window is full.
#[test]
fn the_handshake_comes_to_its_end_with_a_full_window() {
    attempt(Host::bind(&Identity::new(&[ALPN]), &Parameters::generous()).unwrap(), REPEATED);
}

fn attempt(host: Host, datagrams: usize) {
    let settings = settings().initial_rtt(INITIAL_RTT);
    let dial = Dial::start_with(host.local_addr().unwrap(), &settings);
    let first = host.first(PATIENCE).unwrap();
    for _ in 1..datagrams {
        host.first(PATIENCE).unwrap();
    }
    let acknowledged = vec![Space::Handshake, Space::Data];
    let policy = Policy { acknowledged, ..Policy::default() };
    let mut peer = host.begin(&first, policy).unwrap();
    let begun = Instant::now();
    peer.handshake(PATIENCE).expect("the client must send Finished");
    dial.finish().1.unwrap();
    assert!(begun.elapsed() < PATIENCE);
}

/// Short, so that the client repeats itself quickly.
const INITIAL_RTT: Duration = Duration::from_millis(1);

/// The window has ten packets at first.
const REPEATED: usize = 14;
