//! A client that changes its address at random, ignores challenges and withdraws connection IDs
//! harms neither the listener nor other clients.
//!
//! Guards faults U3 and U4 of msquic 2.5.1.

mod common;

use common::Target;
use common::paths::{new_id, run, serves_others, target};
use quic_attack::process::rounds;
use quic_attack::{Frame, Space};
use std::time::Duration;

#[test]
fn random_games() {
    let target = target();
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..rounds(8) {
        game(&target, &mut rng);
    }
    serves_others(&target);
}

/// One connection with random moves.
fn game(target: &Target, rng: &mut fastrand::Rng) {
    let (mut peer, server) = target.peer();
    let mut sockets = vec![0];
    sockets.extend((0..rng.usize(1..6)).map(|_| peer.add_socket().unwrap()));
    let (mut sequence, mut retired) = (0, 0);
    for _ in 0..rng.usize(5..40) {
        peer.policy.answers_challenges = rng.u8(..3) == 0;
        peer.policy.acknowledged = if rng.bool() { vec![Space::Data] } else { Vec::new() };
        let mut frames = Vec::new();
        for _ in 0..rng.usize(1..4) {
            frames.push(match rng.u8(..8) {
                0..=2 => Frame::Ping,
                3 => Frame::PathChallenge(rng.u64(..).to_be_bytes()),
                4 => Frame::PathResponse(rng.u64(..).to_be_bytes()),
                5 => Frame::RetireConnectionId(rng.u64(..4)),
                _ => {
                    sequence += 1;
                    if rng.u8(..3) == 0 {
                        retired = sequence;
                    }
                    new_id(sequence, retired)
                }
            });
        }
        let known = peer.remote_ids.len();
        if rng.u8(..4) == 0 {
            peer.remote_ids.swap(0, rng.usize(..known));
        }
        let socket = sockets[rng.usize(..sockets.len())];
        peer.send_from(socket, Space::Data, &frames).unwrap();
        run(&mut peer, Duration::from_millis(rng.u64(..20)));
        if peer.closed().is_some() {
            break;
        }
    }
    drop(server);
}
