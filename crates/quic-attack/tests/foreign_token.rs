//! A token that another server gave is like none: the client is answered.
//!
//! Guards fault N5 (RFC 9000, section 8.1.3): msquic 2.5.1 drops the packets.

mod common;

use common::{ALPN, Target, answer, socket};
use quic_attack::{Attempt, Frame, Parameters, client_hello};

#[test]
fn an_attempt_with_a_foreign_token_is_answered() {
    let target = Target::new().serve();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut ignored = Vec::new();
    for (length, first) in
        [(0, 0), (40, 0x80), (40, 0xff), (1, 0x80), (40, 0x00), (64, 0x00), (64, 0x01), (300, 0x81)]
    {
        let mut token = vec![0; length];
        token.fill_with(|| rng.u8(..));
        token.iter_mut().take(1).for_each(|byte| *byte = first);
        if !is_answered(&target, Attempt::new(&mut rng).with_token(token)) {
            ignored.push(format!("{length} bytes from {first:#04x} on"));
        }
    }
    assert!(ignored.is_empty(), "attempts with these tokens were ignored: {ignored:?}");
}

fn is_answered(target: &Target, mut attempt: Attempt) -> bool {
    let socket = socket(target.address);
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    // An error is no answer: the client could not go on.
    let has_hello = |frames: &[Frame]| frames.iter().any(|f| matches!(f, Frame::Crypto { .. }));
    answer(&socket, &mut attempt, |packet| has_hello(&packet.frames)).is_some()
}
