//! A path whose connection ID was withdrawn is not used any more.
//!
//! Guards fault U4: msquic 2.5.1 makes the path active whose connection ID the same packet
//! withdrew, and sends with that connection ID, which is freed. An assertion of the development
//! profile (QUIC_CID_VALIDATE_NULL in cid.h) aborts before that.

mod common;

use common::paths::{id, new_id, run, serves_others, target};
use quic_attack::{Frame, Space};
use std::time::{Duration, Instant};

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
    // Later packets must not use a withdrawn connection ID.
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
