//! A client that changes its address, ignores challenges and withdraws connection IDs harms neither
//! the listener nor other clients.
//!
//! Guards faults U3 and U4: in msquic 2.5.1 the path table may lose its active path, and a path that
//! is gone may become active. The development profile's assertions see it.

mod common;

use common::{ALPN, PATIENCE, Target, settings};
use futures::executor::block_on;
use msquic_async::Connection;
use quic_attack::process::rounds;
use quic_attack::{Frame, Identity, Opened, Parameters, Peer, Space};
use std::time::{Duration, Instant};

/// What msquic takes the round-trip time for. Challenges are lost after six of them.
const INITIAL_RTT: Duration = Duration::from_millis(10);

fn target() -> Target {
    Target::with(&[ALPN], settings().initial_rtt(INITIAL_RTT))
}

fn serves_others(target: &Target) {
    let honest = Identity::new(&[ALPN]);
    let address = target.address;
    let script = std::thread::spawn(move || {
        Peer::connect(address, &honest, Parameters::generous(), PATIENCE).map(drop)
    });
    let server: Connection = block_on(target.listener.accept()).unwrap();
    block_on(server.accept()).unwrap();
    script.join().unwrap().expect("an honest client must be served");
}

fn has_challenge(packet: &Opened) -> bool {
    packet.frames.iter().any(|frame| matches!(frame, Frame::PathChallenge(_)))
}

/// Handles what comes, for a while.
fn run(peer: &mut Peer, time: Duration) {
    let deadline = Instant::now() + time;
    while peer.receive(deadline).unwrap().is_some() {}
}

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

/// As behind a relay that swallows packets with challenges for longer than the server waits. The
/// first path is the active one.
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

/// Sends packets that make their path the active one through the sockets `active` in turn, and small
/// probes through all, while challenges are lost. Then it goes through the sockets of `after`.
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

/// The second path is only probed, so the first is active when the server gives up its challenge.
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

/// The second path has no connection ID any more, so that the first is the only one when the server
/// gives up its challenge.
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

/// Opens a second path with a probe, says nothing until all timeouts of the server are over, and goes
/// on through the socket `after`.
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

/// Gives the server connection IDs for further paths, and opens a socket for one.
fn second_path(peer: &mut Peer) -> usize {
    let frames: Vec<_> = (1..4).map(|sequence| new_id(sequence, 0)).collect();
    peer.send(Space::Data, &frames).unwrap();
    run(peer, Duration::from_millis(20));
    peer.add_socket().unwrap()
}

/// Asks for answers. Their acknowledgements tell the server which of its packets were lost, and the
/// padding gives it an allowance on a path that is not validated.
fn exchange(peer: &mut Peer, socket: usize, rounds: u8) {
    for round in 0..rounds {
        let challenge = Frame::PathChallenge([round; 8]);
        let frames = [challenge, Frame::Ping, Frame::Padding(1000)];
        peer.socket = socket;
        peer.send(Space::Data, &frames).unwrap();
        run(peer, Duration::from_millis(20));
    }
}

#[test]
fn the_second_path_withdraws_its_own_connection_id() {
    withdraw(1);
}

#[test]
fn the_last_of_several_paths_withdraws_all_connection_ids() {
    withdraw(3);
}

/// Opens paths, then withdraws all connection IDs but a new one, in a packet that would make the
/// newest path the active one.
fn withdraw(paths: u64) {
    let target = target();
    let (mut peer, server) = target.peer();
    let sockets: Vec<_> = (0..paths).map(|_| peer.add_socket().unwrap()).collect();
    for (sequence, socket) in (1..).zip(&sockets) {
        peer.send(Space::Data, &[new_id(sequence, 0)]).unwrap();
        peer.send_from(*socket, Space::Data, &[Frame::PathChallenge([1; 8])]).unwrap();
        run(&mut peer, Duration::from_millis(50));
    }
    let new = paths + 1;
    let newest = sockets[sockets.len() - 1];
    peer.send_from(newest, Space::Data, &[new_id(new, new), Frame::Ping]).unwrap();
    run(&mut peer, Duration::from_millis(100));
    // What is sent from now on must not use a connection ID that was withdrawn.
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        peer.send(Space::Data, &[Frame::Ping]).unwrap();
        for received in peer.receive(deadline).unwrap().unwrap_or_default() {
            assert_eq!(received.packet.dst, id(new), "{:?}", received.packet);
        }
    }
    serves_others(&target);
    drop(server);
}

#[test]
fn random_games() {
    let target = target();
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..rounds(15) {
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

fn new_id(sequence: u64, retire_prior_to: u64) -> Frame {
    let (id, token) = (id(sequence), [sequence as u8; 16]);
    Frame::NewConnectionId { sequence, retire_prior_to, id, token }
}

fn id(sequence: u64) -> Vec<u8> {
    [&[0xc1; 7][..], &[sequence as u8]].concat()
}
