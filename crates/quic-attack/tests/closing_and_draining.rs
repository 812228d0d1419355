//! An endpoint that closed repeats CONNECTION_CLOSE in answer to packets, not to each; one whose
//! peer closed sends at most one.
//!
//! Guards fault U11 and finding C13 (RFC 9000, sections 10.2.1 and 10.2.2): msquic 2.5.1 answers
//! while draining.

mod common;

use common::{Dial, TIMEOUT, Target, host};
use msquic_async::Connection;
use quic_attack::{Frame, Peer, Space};
use std::time::{Duration, Instant};

const PINGS: usize = 60;

/// The least time between two answers while closing (libmsquic's
/// `QUIC_CLOSING_RESPONSE_MIN_INTERVAL`).
const ANSWER_INTERVAL: Duration = Duration::from_millis(5);

/// Closes that answer no packet: two repetitions (patch U11-C13), and the bounds of the interval.
const UNASKED: usize = 4;

#[test]
fn a_draining_server_is_silent() {
    let target = Target::new();
    let (peer, server) = target.peer();
    draining(peer, &server);
}

#[test]
fn a_draining_client_is_silent() {
    for shares in [false, true] {
        let (peer, client) = dialled(shares);
        draining(peer, &client);
    }
}

#[test]
fn a_closing_server_repeats_itself() {
    let target = Target::new();
    let (peer, server) = target.peer();
    closing(peer, server, true);
}

#[test]
fn a_closing_client_repeats_itself() {
    for shares in [false, true] {
        let (peer, client) = dialled(shares);
        closing(peer, client, true);
    }
}

/// The application has dropped its handle when the packets arrive.
#[test]
fn a_dropped_server_repeats_itself() {
    let target = Target::new();
    let (peer, server) = target.peer();
    closing(peer, server, false);
}

#[test]
fn a_dropped_client_repeats_itself() {
    for shares in [false, true] {
        let (peer, client) = dialled(shares);
        closing(peer, client, false);
    }
}

/// A client on sockets that it shares with others, or on one of its own.
fn dialled(shares: bool) -> (Peer, Connection) {
    let host = host();
    let dial = Dial::start_sharing(host.local_addr().unwrap(), shares);
    let peer = host.accept(TIMEOUT).unwrap();
    let (client, result) = dial.finish();
    result.unwrap();
    (peer, client)
}

fn draining(mut peer: Peer, connection: &Connection) {
    peer.send(Space::Data, &[Frame::application_close(3)]).unwrap();
    let closes = ping(&mut peer);
    assert!(closes <= 1, "{closes} CONNECTION_CLOSE while draining");
    assert!(connection.close_reason().is_some());
}

fn closing(mut peer: Peer, connection: Connection, is_held: bool) {
    connection.shutdown(5, "");
    let held = is_held.then_some(connection);
    // Treat this one as lost.
    peer.wait(TIMEOUT, |received| received.has_close()).unwrap().expect("no close");
    let begun = Instant::now();
    let closes = ping(&mut peer);
    assert!(closes >= 1, "a lost CONNECTION_CLOSE was not repeated");
    // However slow this machine is: one for each interval, and those that answer no packet.
    let intervals = begun.elapsed().as_micros() / ANSWER_INTERVAL.as_micros();
    let limit = intervals as usize + UNASKED;
    assert!(closes <= limit, "{closes} CONNECTION_CLOSE in {intervals} intervals");
    drop(held);
}

/// Sends packets that ask for an answer, one each millisecond, and counts the closes.
fn ping(peer: &mut Peer) -> usize {
    let mut closes = 0;
    let mut count = |peer: &mut Peer, wait| {
        let deadline = Instant::now() + wait;
        while let Some(packets) = peer.receive(deadline).unwrap() {
            closes += packets.iter().filter(|received| received.has_close()).count();
        }
    };
    for _ in 0..PINGS {
        peer.send(Space::Data, &[Frame::Ping]).unwrap();
        count(peer, Duration::from_millis(1));
    }
    count(peer, Duration::from_millis(100));
    closes
}
