//! Truncated, malformed, reflected, replayed and random packets neither harm the endpoint nor leak
//! memory.

mod common;

use common::{ALPN, Target, socket};
use quic_attack::process::{resident_kib, rounds};
use quic_attack::{Attempt, Frame, Parameters, client_hello, mangle};
use std::net::UdpSocket;

#[test]
fn garbage_is_survived() {
    let target = Target::new().serve();
    let socket = socket(target.address);
    socket.set_nonblocking(true).unwrap();
    let mut rng = fastrand::Rng::with_seed(42);
    let mut attacker = Attacker::new(&mut rng);
    let rounds = rounds(100_000);
    // Half-open attempts last until their timeout, so memory settles before it is measured.
    for _ in 0..rounds / 4 {
        attacker.round(&socket, &mut rng);
    }
    target.connects().expect("an honest client is served after a quarter of the packets");
    let before = resident_kib();
    for _ in 0..rounds - rounds / 4 {
        attacker.round(&socket, &mut rng);
    }
    target.connects().expect("an honest client is served");
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "resident memory grew by {grown} KiB");
}

/// Recorded packets, to be replayed and damaged.
struct Attacker {
    hello: Vec<u8>,
    attempt: Attempt,
    answers: Vec<Vec<u8>>,
    sent: usize,
}

impl Attacker {
    fn new(rng: &mut fastrand::Rng) -> Self {
        let mut attempt = Attempt::new(rng);
        let bytes = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
        let hello = attempt.datagram(&[Frame::Crypto { offset: 0, data: bytes }]);
        Self { hello, attempt, answers: Vec::new(), sent: 0 }
    }

    fn round(&mut self, socket: &UdpSocket, rng: &mut fastrand::Rng) {
        let packet = match rng.u8(..16) {
            0..=3 => mangle::random(rng, 1400),
            4..=7 => mangle::random_long(rng),
            8..=10 => mangle::mangle(rng, &self.hello),
            11 => self.hello.clone(),
            12 => self.answer(rng).unwrap_or_default(),
            13 => {
                let answer = self.answer(rng).unwrap_or_default();
                mangle::mangle(rng, &answer)
            }
            // Correctly encrypted packets with invalid frames, for the existing attempt.
            14 => {
                let body = mangle::random(rng, 900);
                let mut attempt = std::mem::replace(&mut self.attempt, Attempt::new(rng));
                let datagram = attempt.datagram(&[Frame::Raw(body)]);
                self.attempt = attempt;
                datagram
            }
            _ => {
                let half = self.hello.len() / 2;
                self.hello[..half].to_vec()
            }
        };
        if !packet.is_empty() {
            let _ = socket.send(&packet); // the buffer may be full
        }
        self.sent += 1;
        if self.sent.is_multiple_of(64) {
            self.collect(socket);
            std::thread::yield_now();
        }
    }

    /// Keeps some of the answers.
    fn collect(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok(length) = socket.recv(&mut buffer) {
            if self.answers.len() == 64 {
                self.answers.remove(0);
            }
            self.answers.push(buffer[..length].to_vec());
        }
    }

    fn answer(&self, rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let at = (!self.answers.is_empty()).then(|| rng.usize(..self.answers.len()));
        at.map(|at| self.answers[at].clone())
    }
}

/// What the allocator may hold back; a leak of 64 bytes for each packet of the short form is more.
const MAX_GROWTH_KIB: u64 = 4 * 1024;
