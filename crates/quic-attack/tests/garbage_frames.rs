//! A peer within a connection that sends random and damaged frames harms neither the endpoint nor
//! other clients, and costs no memory.

mod common;

use common::{ALPN, TIMEOUT, Target};
use fastrand::Rng;
use quic_attack::process::{resident_kib, rounds};
use quic_attack::{Ack, Frame, Identity, Parameters, Peer, Space, mangle};
use std::time::{Duration, Instant};

#[test]
fn garbage_frames_are_survived() {
    let target = Target::new().serve();
    let identity = Identity::new(&[ALPN]);
    let mut rng = Rng::with_seed(6);
    let connections = rounds(100_000) / PER_CONNECTION;
    // Let msquic make its permanent allocations first.
    for _ in 0..connections / 2 {
        connection(&target, &identity, &mut rng);
    }
    let before = resident_kib();
    for _ in 0..connections - connections / 2 {
        connection(&target, &identity, &mut rng);
    }
    target.connects().expect("an honest client is served");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "resident memory grew by {grown} KiB");
}

/// Runs one connection until the server closes it or enough was sent.
fn connection(target: &Target, identity: &Identity, rng: &mut Rng) {
    let mut peer =
        Peer::connect(target.address, identity, Parameters::generous(), TIMEOUT).unwrap();
    // Most garbage ends the connection at once, so some connections send only what may be valid.
    let is_tame = rng.u8(..4) != 0;
    for sent in 0..PER_CONNECTION {
        let frames: Vec<_> = (0..rng.usize(1..5)).map(|_| frame(rng)).collect();
        let payload = Frame::encode_all(&frames);
        let payload = if is_tame { payload } else { mangle::mangle(rng, &payload) };
        if payload.is_empty() || payload.len() > 1200 {
            continue;
        }
        peer.send(Space::Data, &[Frame::Raw(payload)]).unwrap();
        if sent % 16 == 0 {
            peer.receive(Instant::now() + Duration::from_micros(200)).unwrap();
            if peer.closed().is_some() {
                return;
            }
        }
    }
    peer.send(Space::Data, &[Frame::application_close(0)]).unwrap();
}

/// Returns a frame that a server may receive, often with invalid values.
fn frame(rng: &mut Rng) -> Frame {
    let stream = rng.u64(..40);
    let offset = if rng.u8(..8) == 0 { rng.u64(..1 << 40) } else { rng.u64(..2000) };
    let data = mangle::random(rng, 200);
    match rng.u8(..20) {
        0..=7 => Frame::Stream { stream, offset, fin: rng.u8(..4) == 0, data },
        8 => Frame::Crypto { offset, data },
        9 => Frame::Ack(Ack::range(0, rng.u64(..8))),
        10 => Frame::ResetStream { stream, code: 1, final_size: offset },
        11 => Frame::StopSending { stream, code: 1 },
        12 => Frame::Limit { kind: rng.u64(0x10..0x18), values: vec![stream, offset] },
        13 => Frame::RetireConnectionId(rng.u64(..4)),
        14 => Frame::PathChallenge(rng.u64(..).to_be_bytes()),
        15 => Frame::PathResponse(rng.u64(..).to_be_bytes()),
        16 => Frame::Datagram(data),
        _ => Frame::Ping,
    }
}

const PER_CONNECTION: usize = 1000;

/// What the allocator may hold back; a leak of 1 KiB for each connection of the long form is more.
const MAX_GROWTH_KIB: u64 = 6 * 1024;
