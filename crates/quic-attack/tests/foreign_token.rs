//! The server ignores a token of another server and answers the client.
//!
//! Guards fault N5 (RFC 9000, section 8.1.3): msquic 2.5.1 drops the packets.

mod common;

use common::{ALPN, TIMEOUT, Target, socket};
use quic_attack::{Attempt, Frame, Parameters, client_hello};
use std::net::UdpSocket;
use std::time::Instant;

#[test]
fn an_attempt_with_a_foreign_token_is_answered() {
    let target = Target::new().serve();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut attempts: Vec<_> = TOKENS.map(|token| start(&target, &mut rng, token)).into();
    let deadline = Instant::now() + TIMEOUT;
    while !attempts.is_empty() && Instant::now() < deadline {
        attempts.retain_mut(|(_, socket, attempt)| !is_answered(socket, attempt));
    }
    let ignored: Vec<_> = attempts.iter().map(|(token, ..)| token).collect();
    assert!(ignored.is_empty(), "attempts with these tokens were ignored: {ignored:x?}");
}

fn start(target: &Target, rng: &mut fastrand::Rng, (length, first): Token) -> Started {
    let mut token = vec![0; length];
    token.fill_with(|| rng.u8(..));
    token.iter_mut().take(1).for_each(|byte| *byte = first);
    let mut attempt = Attempt::new(rng).with_token(token);
    let socket = socket(target.address);
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    ((length, first), socket, attempt)
}

/// Returns whether there is a ServerHello. A close is no answer: the client could not go on.
fn is_answered(socket: &UdpSocket, attempt: &mut Attempt) -> bool {
    let mut buffer = [0; 2048];
    let Ok(length) = socket.recv(&mut buffer) else { return false };
    let opened = attempt.open(&buffer[..length]).unwrap_or_default();
    opened.iter().flat_map(|packet| &packet.frames).any(|f| matches!(f, Frame::Crypto { .. }))
}

/// The length of a token and its first byte, whose first bit msquic interprets.
type Token = (usize, u8);

type Started = (Token, UdpSocket, Attempt);

const TOKENS: [Token; 8] =
    [(0, 0x00), (1, 0x80), (40, 0x00), (40, 0x80), (40, 0xff), (64, 0x00), (64, 0x01), (300, 0x81)];
