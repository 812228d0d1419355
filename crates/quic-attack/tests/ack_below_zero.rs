//! ACK frames whose ranges reach below zero, or that name packets never sent, end the connection.
//!
//! Guards fault U7: msquic 2.5.1 accepts the second range below zero, which then hides the packet
//! numbers that were never sent.

mod common;

use common::{ALPN, Target, answer, socket};
use quic_attack::{Ack, Attempt, Frame, Parameters, client_hello};

const PROTOCOL_VIOLATION: u64 = 0x0a;
const FRAME_ENCODING_ERROR: u64 = 0x07;

#[test]
fn initial_first_range_below_zero() {
    let ack = Ack { largest: 0, first: 1, ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_gap_below_zero() {
    let ack = Ack { largest: 2, first: 1, ranges: vec![(7, 0)], ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_second_range_below_zero() {
    let ack = Ack { largest: 1_000_000, first: 999_990, ranges: vec![(0, 9)], ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_third_range_below_zero() {
    let ranges = vec![(0, 0), (0, 1000)];
    let ack = Ack { largest: 100, first: 0, ranges, ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_packets_never_sent() {
    assert_eq!(initial(Ack::range(0, 1_000_000)), Some(PROTOCOL_VIOLATION));
    assert_eq!(initial(Ack::range(1_000_000, 1_000_000)), Some(PROTOCOL_VIOLATION));
    let ranges = vec![(500_000, 10)];
    let ack = Ack { largest: 1_000_000, first: 3, ranges, ..Ack::default() };
    assert_eq!(initial(ack), Some(PROTOCOL_VIOLATION));
}

/// Sends `ack` in an Initial packet after the server's first flight; returns the code with which the
/// server closes.
fn initial(ack: Ack) -> Option<u64> {
    let target = Target::new().serve();
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(7));
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    let has_hello = |frames: &[Frame]| frames.iter().any(|f| matches!(f, Frame::Crypto { .. }));
    answer(&socket, &mut attempt, |packet| has_hello(&packet.frames)).expect("no ServerHello");
    socket.send(&attempt.datagram(&[Frame::Ack(ack), Frame::Ping])).unwrap();
    let closed = answer(&socket, &mut attempt, |packet| close_code(&packet.frames).is_some());
    close_code(&closed?.frames)
}

fn close_code(frames: &[Frame]) -> Option<u64> {
    frames.iter().find_map(|frame| match frame {
        Frame::Close { code, .. } => Some(*code),
        _ => None,
    })
}
