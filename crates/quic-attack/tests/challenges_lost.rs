//! A server whose path challenges are lost or not answered keeps an active path, or closes, and
//! serves others.
//!
//! Guards fault U3: in msquic 2.5.1 the path table loses its active path when a challenge to it
//! times out. The development profile's assertions detect it.

mod common;

use common::paths::{exchange, new_id, run, second_path, serves_others, target};
use quic_attack::{Frame, Opened, Space};
use std::time::Duration;

#[test]
fn challenges_are_not_answered() {
    let target = target();
    let (mut peer, server) = target.peer();
    let second = second_path(&mut peer);
    peer.policy.answers_challenges = false;
    for socket in [second, 0] {
        exchange(&mut peer, socket, 20);
    }
    serves_others(&target);
    drop(server);
}

/// Simulates a relay that drops packets with challenges for longer than the server waits. The first
/// path is active.
#[test]
fn challenges_are_lost_while_the_first_path_is_active() {
    lose_challenges(&[0], &[1, 0, 2, 1]);
}

/// The same after a change of the path.
#[test]
fn challenges_are_lost_while_the_second_path_is_active() {
    lose_challenges(&[1], &[0, 2, 1]);
}

/// The same while the client goes back and forth.
#[test]
fn challenges_are_lost_while_paths_change() {
    lose_challenges(&[1, 0], &[2, 0, 1]);
}

/// Sends packets that make their path the active one through the sockets `active` in turn, and
/// small probes through all, while challenges are lost. Then it goes through the sockets of
/// `after`.
fn lose_challenges(active: &[usize], after: &[usize]) {
    let target = target();
    let (mut peer, server) = target.peer();
    let second = second_path(&mut peer);
    let third = peer.add_socket().unwrap();
    peer.policy.lost = Some(has_challenge);
    for round in 0..60 {
        for socket in [0, second] {
            let probe = [Frame::PathChallenge([socket as u8; 8]), Frame::Padding(1000)];
            peer.send_from(socket, Space::Data, &probe).unwrap();
        }
        peer.socket = active[round % active.len()];
        peer.send(Space::Data, &[Frame::Ping]).unwrap();
        run(&mut peer, Duration::from_millis(20));
    }
    peer.policy.lost = None;
    assert!(after.iter().all(|socket| *socket <= third));
    for socket in after {
        exchange(&mut peer, *socket, 5);
    }
    serves_others(&target);
    drop(server);
}

/// The second path is only probed, so the first is active when the server abandons its challenge.
#[test]
fn silence_then_the_first_path() {
    silence(0);
}

#[test]
fn silence_then_the_second_path() {
    silence(1);
}

#[test]
fn silence_then_a_third_path() {
    silence(2);
}

/// The second path has no connection ID any more, so that the first is the only path when the
/// server abandons its challenge.
#[test]
fn silence_on_the_only_path() {
    let target = target();
    let (mut peer, server) = target.peer();
    let second = second_path(&mut peer);
    peer.policy.answers_challenges = false;
    peer.policy.acknowledged.clear();
    let probe = [Frame::PathChallenge([1; 8]), Frame::Padding(1100)];
    peer.send_from(second, Space::Data, &probe).unwrap();
    run(&mut peer, Duration::from_millis(20));
    peer.send(Space::Data, &[new_id(4, 4), Frame::Padding(1100)]).unwrap();
    run(&mut peer, Duration::from_millis(1500));
    peer.policy.acknowledged = vec![Space::Data];
    for socket in [second, 0] {
        exchange(&mut peer, socket, 5);
    }
    serves_others(&target);
    drop(server);
}

/// Opens a second path with a probe, is silent until all timeouts of the server have expired, and
/// continues through the socket `after`.
fn silence(after: usize) {
    let target = target();
    let (mut peer, server) = target.peer();
    let second = second_path(&mut peer);
    let third = peer.add_socket().unwrap();
    assert_eq!([second, third], [1, 2]);
    peer.policy.answers_challenges = false;
    peer.policy.acknowledged.clear();
    for socket in [second, 0] {
        let probe = [Frame::PathChallenge([socket as u8; 8]), Frame::Padding(1100)];
        peer.send_from(socket, Space::Data, &probe).unwrap();
    }
    run(&mut peer, Duration::from_millis(1500));
    peer.policy.acknowledged = vec![Space::Data];
    exchange(&mut peer, after, 10);
    serves_others(&target);
    drop(server);
}

fn has_challenge(packet: &Opened) -> bool {
    packet.frames.iter().any(|frame| matches!(frame, Frame::PathChallenge(_)))
}
