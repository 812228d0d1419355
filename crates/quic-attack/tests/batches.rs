//! Packets that arrive as one batch of 64 are all received.
//!
//! Guards fault N1: msquic 2.5.1 drops what is beyond 53 datagrams of a batch (UDP_GRO).

mod common;

use common::{TIMEOUT, Target, acknowledges};
use quic_attack::process::rounds;
use quic_attack::{Frame, Space};
use std::collections::BTreeSet;

#[test]
fn no_packet_of_a_batch_is_lost() {
    let target = Target::new();
    let (mut peer, _server) = target.peer();
    for round in 0..rounds(50) {
        let numbers = peer.next_number(Space::Data)..peer.next_number(Space::Data) + BATCH;
        let frames = [Frame::Ping, Frame::Padding(PADDING)];
        let packets: Vec<_> = numbers.clone().map(|_| peer.seal(Space::Data, &frames)).collect();
        assert!(packets.iter().all(|packet| packet.len() == 100));
        peer.transmit_batch(0, &packets).unwrap();
        // The packet that follows them is acknowledged after them.
        let last = peer.send(Space::Data, &[Frame::Ping]).unwrap();
        let mut missing: BTreeSet<_> = numbers.chain([last]).collect();
        peer.wait(TIMEOUT, |received| {
            missing.retain(|number| !acknowledges(received, *number));
            !missing.contains(&last)
        })
        .unwrap()
        .expect("no acknowledgement");
        assert!(missing.is_empty(), "round {round}: {} of {BATCH} lost", missing.len());
    }
}

/// The kernel puts no more into one batch.
const BATCH: u64 = 64;

/// Makes packets of 100 bytes, with a connection ID of 9 bytes, PING, number and tag.
const PADDING: usize = 69;
