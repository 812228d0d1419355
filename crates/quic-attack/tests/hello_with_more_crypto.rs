//! CRYPTO bytes after the ClientHello, which arrive before the application accepts, have no effect
//! on the client.
//!
//! Guards fault U1 (finding A2): msquic 2.5.1 keeps a pointer to the client's ALPN list in memory
//! that growth of the CRYPTO stream frees. Run it under valgrind or AddressSanitizer too.

mod common;

use common::{Target, answer, settings, socket};
use futures::executor::block_on;
use msquic_async::Configuration;
use quic_attack::{Attempt, Frame, Opened, Parameters, client_hello};

/// Too few to make the CRYPTO stream of msquic grow, which begins with 4096 bytes.
const FEW: usize = 100;

/// Enough to make it grow.
const MANY: usize = 9000;

#[test]
fn the_second_protocol_is_served() {
    assert_eq!(attack(&["test/2"], 0), Outcome::Served);
}

#[test]
fn the_second_protocol_is_served_with_bytes_after_the_hello() {
    assert_eq!(attack(&["test/2"], FEW), Outcome::Served);
}

#[test]
fn the_second_protocol_is_served_when_the_list_moves() {
    assert_eq!(attack(&["test/2"], MANY), Outcome::Served);
}

#[test]
fn the_second_protocol_of_a_long_list_is_served_when_the_list_moves() {
    assert_eq!(attack(&["zzzz/1", "zzzz/2", "test/2", "zzzz/3"], MANY), Outcome::Served);
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Closed(u64),
    Ignored,
}

/// Offers protocols, and sends `further` CRYPTO bytes after a gap of one byte, so that TLS never
/// sees them, before the server accepts.
fn attack(offered: &[&str], further: usize) -> Outcome {
    let target = Target::with(&["test/1", "test/2"], settings());
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(1));
    let hello = client_hello(offered, &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    let incoming = block_on(target.listener.accept_incoming()).unwrap();
    for datagram in attempt.crypto(hello.len() as u64 + 1, &vec![b'x'; further]) {
        socket.send(&datagram).unwrap();
    }
    if further > 0 {
        // The acknowledgement of the last packet shows that msquic has processed it.
        let last = attempt.next_number - 1;
        let has_ack = |f: &Frame| matches!(f, Frame::Ack(ack) if ack.contains(last));
        let seen = answer(&socket, &mut attempt, |packet| packet.frames.iter().any(has_ack));
        assert!(seen.is_some(), "the further CRYPTO bytes were not acknowledged");
    }
    assert_eq!(incoming.alpn(), b"test/2");
    let configuration = configuration(&target);
    let _connection = incoming.accept(&configuration).unwrap();
    let answer = answer(&socket, &mut attempt, |packet| outcome(packet) != Outcome::Ignored);
    answer.map_or(Outcome::Ignored, |packet| outcome(&packet))
}

fn outcome(packet: &Opened) -> Outcome {
    for frame in &packet.frames {
        match frame {
            Frame::Crypto { .. } => return Outcome::Served,
            Frame::Close { code, .. } => return Outcome::Closed(*code),
            _ => {}
        }
    }
    Outcome::Ignored
}

fn configuration(target: &Target) -> Configuration {
    let (alpn, credential) = (["test/1", "test/2"], common::credential());
    Configuration::server(&target.registration, &alpn, &settings(), &credential).unwrap()
}
