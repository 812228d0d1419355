//! CRYPTO bytes behind the ClientHello, which arrive before the application accepts, change nothing
//! for the client.
//!
//! Guards fault U1 (finding A2): msquic 2.5.1 keeps a pointer to the client's ALPN list in memory
//! that growth of the CRYPTO stream frees. Run it under valgrind or AddressSanitizer too.

mod common;

use common::{Target, answer, settings, socket};
use futures::executor::block_on;
use quic_attack::{Attempt, Frame, Opened, Parameters, client_hello};

/// Enough to make the CRYPTO stream of msquic grow, which begins with 4096 bytes.
const FURTHER: usize = 9000;

#[test]
fn the_second_protocol_is_served() {
    attack(&["test/2"], 0);
}

#[test]
fn the_second_protocol_is_served_when_the_list_moves() {
    attack(&["test/2"], FURTHER);
}

#[test]
fn the_second_protocol_of_a_long_list_is_served_when_the_list_moves() {
    attack(&["zzzz/1", "zzzz/2", "test/2", "zzzz/3"], FURTHER);
}

fn attack(offered: &[&str], further: usize) {
    let target = Target::with(&["test/1", "test/2"], settings());
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(1));
    let hello = client_hello(offered, &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    let incoming = block_on(target.listener.accept_incoming()).unwrap();
    // A whole message of TLS would be read as one; the header says that 0xffff bytes are to come.
    let body = [&[0x0b, 0, 0xff, 0xff][..], &[b'x'; FURTHER]].concat();
    for datagram in attempt.crypto(hello.len() as u64, &body[..further]) {
        socket.send(&datagram).unwrap();
    }
    if further > 0 {
        // The acknowledgement of the last packet says that msquic has processed it.
        let last = attempt.next_number - 1;
        let seen = answer(&socket, &mut attempt, |packet| {
            packet.frames.iter().any(|frame| matches!(frame, Frame::Ack(ack) if ack.contains(last)))
        });
        assert!(seen.is_some(), "the further CRYPTO bytes were not acknowledged");
    }
    assert_eq!(incoming.alpn(), b"test/2");
    let (configuration, _registration) = configuration(&target);
    let connection = incoming.accept(&configuration).unwrap();
    let answer = answer(&socket, &mut attempt, |packet| has_hello(packet) || has_close(packet));
    let answer = answer.expect("no answer to the ClientHello");
    assert!(has_hello(&answer), "the server ended the attempt: {:?}", answer.frames);
    drop(connection);
}

fn configuration(target: &Target) -> (msquic_async::Configuration, msquic_async::Registration) {
    let registration = target.registration.clone();
    let alpn = ["test/1", "test/2"];
    let credential = common::credential();
    let configuration =
        msquic_async::Configuration::server(&registration, &alpn, &settings(), &credential);
    (configuration.unwrap(), registration)
}

fn has_hello(packet: &Opened) -> bool {
    packet.frames.iter().any(|frame| matches!(frame, Frame::Crypto { .. }))
}

fn has_close(packet: &Opened) -> bool {
    packet.frames.iter().any(|frame| matches!(frame, Frame::Close { .. }))
}
