//! Empty UDP datagrams, alone and among others, cost the endpoint no memory.
//!
//! Guards fault U2 (finding A1): msquic 2.5.1 leaks the receive block of each empty datagram.

mod common;

use common::{Target, socket};
use quic_attack::process::{resident_kib, rounds};
use std::time::{Duration, Instant};

#[test]
fn empty_datagrams_cost_no_memory() {
    flood(&[b""]);
}

#[test]
fn empty_datagrams_among_others_cost_no_memory() {
    flood(&[b"", b"x", b"", b"", b"xyz"]);
}

fn flood(datagrams: &[&[u8]]) {
    let target = Target::new().serve();
    let socket = socket(target.address);
    // Allocations of the first use of the listener are not a leak.
    send(&socket, datagrams, WARM_UP);
    target.connects().unwrap();
    let before = resident_kib();
    send(&socket, datagrams, rounds(100_000));
    target.connects().unwrap();
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "resident memory grew by {grown} KiB");
}

/// Sends `count` datagrams, in bursts that the receive buffer of the listener holds.
fn send(socket: &std::net::UdpSocket, datagrams: &[&[u8]], count: usize) {
    for index in 0..count {
        socket.send(datagrams[index % datagrams.len()]).unwrap();
        if index % BURST == BURST - 1 {
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_micros(200) {
                std::thread::yield_now();
            }
        }
    }
}

const WARM_UP: usize = 2000;
const BURST: usize = 64;

/// The leak is 4 KiB for each datagram that arrives; this is less than 1 % of that.
const MAX_GROWTH_KIB: u64 = 3 * 1024;
