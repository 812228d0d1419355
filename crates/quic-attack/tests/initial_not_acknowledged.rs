//! A handshake completes although the server never acknowledges Initial packets.
//!
//! Guards fault U8: the client of msquic 2.5.1 keeps its Initial keys and the bytes in flight under
//! them, which can fill its congestion window permanently.

mod common;

use common::{ALPN, Dial, TIMEOUT, host, settings};
use quic_attack::{Policy, Space};
use std::time::{Duration, Instant};

#[test]
fn the_handshake_completes() {
    attempt(&[], Duration::ZERO);
}

/// The ClientHello takes most of the window, and the client repeats a part of it.
#[test]
fn the_handshake_completes_with_a_full_window() {
    let others: Vec<_> = (0..LARGE).map(|index| format!("{index:0>250}")).collect();
    attempt(&others, REPEATING);
}

/// Dials with further protocols; the server answers after `silence`.
fn attempt(others: &[String], silence: Duration) {
    let mut alpn = vec![ALPN];
    alpn.extend(others.iter().map(String::as_str));
    let host = host();
    let settings = settings().initial_rtt(INITIAL_RTT);
    let dial = Dial::start_with(host.local_addr().unwrap(), &alpn, &settings, None);
    let first = host.first(TIMEOUT).unwrap();
    let acknowledged = vec![Space::Handshake, Space::Data];
    let policy = Policy { acknowledged, holds: true, ..Policy::default() };
    let mut peer = host.begin(&first, policy).unwrap();
    let deadline = Instant::now() + silence;
    while peer.receive(deadline).unwrap().is_some() {}
    peer.release().unwrap();
    peer.handshake(TIMEOUT).expect("the client must send Finished");
    dial.finish().1.unwrap();
}

/// Short, so that the client retransmits quickly.
const INITIAL_RTT: Duration = Duration::from_millis(1);

/// How many further protocols of 250 bytes make a ClientHello of ten packets.
const LARGE: usize = 40;

/// Enough for several probes.
const REPEATING: Duration = Duration::from_millis(200);
