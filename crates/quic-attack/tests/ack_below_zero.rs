//! ACK frames whose ranges reach below zero, or that name packets never sent, end the connection.
//!
//! Guards fault U7: msquic 2.5.1 accepts the second range below zero, which then hides the packet
//! numbers that were never sent.

mod common;

use common::{ALPN, TIMEOUT, Target, acknowledges, answer, socket};
use quic_attack::{Ack, Attempt, Frame, Parameters, Received, Space, client_hello};

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
    // The first range ends at 2, so the second one has 0 and five numbers below it.
    let ack = Ack { largest: 1_000_000, first: 999_998, ranges: vec![(0, 5)], ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
    // All of it is below zero but the one packet that was sent.
    let ack = Ack { largest: 2, first: 0, ranges: vec![(0, 1 << 40)], ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_third_range_below_zero() {
    let ranges = vec![(0, 0), (0, 7)];
    let ack = Ack { largest: 4, first: 0, ranges, ..Ack::default() };
    assert_eq!(initial(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn initial_packets_never_sent() {
    assert_is_error(initial(Ack::range(0, 1_000_000)));
    assert_is_error(initial(Ack::range(1_000_000, 1_000_000)));
    let ranges = vec![(500_000, 10)];
    let ack = Ack { largest: 1_000_000, first: 3, ranges, ..Ack::default() };
    assert_is_error(initial(ack));
}

#[test]
fn data_second_range_below_zero() {
    let ack = Ack { largest: 1_000_000, first: 999_998, ranges: vec![(0, 5)], ..Ack::default() };
    assert_eq!(data(ack), Some(FRAME_ENCODING_ERROR));
}

#[test]
fn data_packets_never_sent() {
    assert_is_error(data(Ack::range(0, 1_000_000)));
}

/// RFC 9000, section 13.1, recommends PROTOCOL_VIOLATION; msquic uses FRAME_ENCODING_ERROR.
fn assert_is_error(code: Option<u64>) {
    assert!(matches!(code, Some(PROTOCOL_VIOLATION | FRAME_ENCODING_ERROR)), "{code:?}");
}

/// Sends `ack` in a 1-RTT packet; returns the code with which the server closes.
fn data(ack: Ack) -> Option<u64> {
    let target = Target::new();
    let (mut peer, _server) = target.peer();
    let ping = peer.send(Space::Data, &[Frame::Ack(ack), Frame::Ping]).unwrap();
    let is_done = |received: &Received| received.has_close() || acknowledges(received, ping);
    let last = peer.wait(TIMEOUT, is_done).unwrap()?;
    close_code(&last.packet.frames)
}

/// Sends `ack` in an Initial packet of an attempt that is not yet accepted, so that the server has
/// no other keys; returns the code with which the server closes.
fn initial(ack: Ack) -> Option<u64> {
    let target = Target::new();
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(7));
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    let has_ack = |frames: &[Frame]| frames.iter().any(|frame| matches!(frame, Frame::Ack(_)));
    answer(&socket, &mut attempt, |packet| has_ack(&packet.frames)).expect("no acknowledgement");
    socket.send(&attempt.datagram(&[Frame::Ack(ack), Frame::Ping])).unwrap();
    let ping = attempt.next_number - 1;
    let is_done = |frames: &[Frame]| {
        let acknowledges = |f: &Frame| matches!(f, Frame::Ack(ack) if ack.contains(ping));
        close_code(frames).is_some() || frames.iter().any(acknowledges)
    };
    close_code(&answer(&socket, &mut attempt, |packet| is_done(&packet.frames))?.frames)
}

fn close_code(frames: &[Frame]) -> Option<u64> {
    frames.iter().find_map(|frame| match frame {
        Frame::Close { code, .. } => Some(*code),
        _ => None,
    })
}
