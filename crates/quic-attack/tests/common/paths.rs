//! A listener whose paths are attacked, and helpers of these tests.

use super::{ALPN, Target, settings};
use quic_attack::{Frame, Peer, Space};
use std::time::{Duration, Instant};

/// The initial round-trip time of msquic. Challenges are lost after six of them.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(10);

pub(crate) fn target() -> Target {
    Target::with(&[ALPN], settings().initial_rtt(INITIAL_RTT))
}

/// Panics unless an honest client is served.
pub(crate) fn serves_others(target: &Target) {
    let (_peer, server) = target.peer();
    assert!(server.close_reason().is_none());
}

/// Handles received packets for a while.
pub(crate) fn run(peer: &mut Peer, time: Duration) {
    let deadline = Instant::now() + time;
    while peer.receive(deadline).unwrap().is_some() {}
}

/// Gives the server connection IDs for further paths, and opens a socket for one.
pub(crate) fn second_path(peer: &mut Peer) -> usize {
    let frames: Vec<_> = (1..4).map(|sequence| new_id(sequence, 0)).collect();
    peer.send(Space::Data, &frames).unwrap();
    run(peer, Duration::from_millis(20));
    peer.add_socket().unwrap()
}

/// Elicits packets. Their acknowledgements show the server which of its packets were lost, and the
/// padding gives it an allowance on a path that is not validated.
pub(crate) fn exchange(peer: &mut Peer, socket: usize, rounds: u8) {
    for round in 0..rounds {
        let challenge = Frame::PathChallenge([round; 8]);
        let frames = [challenge, Frame::Ping, Frame::Padding(1000)];
        peer.socket = socket;
        peer.send(Space::Data, &frames).unwrap();
        run(peer, Duration::from_millis(20));
    }
}

pub(crate) fn new_id(sequence: u64, retire_prior_to: u64) -> Frame {
    let (id, token) = (id(sequence), [sequence as u8; 16]);
    Frame::NewConnectionId { sequence, retire_prior_to, id, token }
}

pub(crate) fn id(sequence: u64) -> Vec<u8> {
    [&[0xc1; 7][..], &[sequence as u8]].concat()
}
