//! A close by the application before the handshake is complete is sent as APPLICATION_ERROR (0x0c),
//! and is reported as a close by the peer.
//!
//! Guards fault N26 (finding A7; RFC 9000, sections 10.2.3 and 20.1): msquic 2.5.1 sends 0x0b, and
//! reports 0x0c as an internal error.

mod common;

use common::{ALPN, Dial, TIMEOUT, Target, answer, host, socket};
use futures::executor::block_on;
use msquic_async::ConnectionError;
use msquic_async::ConnectionStartError;
use quic_attack::{Attempt, Frame, Parameters, Peer, Policy, Space, client_hello};

const APPLICATION_ERROR: u64 = 0x0c;

#[test]
fn a_server_that_rejects_sends_it() {
    let target = Target::new();
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(1));
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    for datagram in attempt.crypto(0, &hello) {
        socket.send(&datagram).unwrap();
    }
    block_on(target.listener.accept_incoming()).unwrap().refuse(7);
    let is_close = |frame: &Frame| matches!(frame, Frame::Close { .. });
    let closed = answer(&socket, &mut attempt, |packet| packet.frames.iter().any(is_close));
    assert_is_application_error(&closed.expect("no close").frames);
}

#[test]
fn a_client_that_closes_early_sends_it() {
    let host = host();
    let dial = Dial::start(host.local_addr().unwrap());
    let first = host.first(TIMEOUT).unwrap();
    dial.connection.shutdown(7, "secret");
    // The server does not answer, so the client has its Initial keys only.
    let policy = Policy { holds: true, ..Policy::default() };
    let mut peer = host.begin(&first, policy).unwrap();
    let closed = peer.wait(TIMEOUT, |received| received.has_close()).unwrap();
    assert_is_application_error(&closed.expect("no close").packet.frames);
}

#[test]
fn a_client_receives_it_in_an_initial_packet() {
    let host = host();
    let dial = Dial::start(host.local_addr().unwrap());
    let first = host.first(TIMEOUT).unwrap();
    let policy = Policy { holds: true, ..Policy::default() };
    let mut peer = host.begin(&first, policy).unwrap();
    peer.policy.holds = false;
    peer.send(Space::Initial, &[Frame::transport_close(APPLICATION_ERROR)]).unwrap();
    let (_, result) = dial.finish();
    let Err(ConnectionStartError::ConnectionLost(error)) = result else { panic!("{result:?}") };
    assert_is_close_of_the_peer(&error);
}

#[test]
fn a_client_receives_it_in_a_handshake_packet() {
    for shares in [false, true] {
        let (mut peer, dial) = unconfirmed(shares);
        peer.send(Space::Handshake, &[Frame::transport_close(APPLICATION_ERROR)]).unwrap();
        assert_is_close_of_the_peer(&block_on(dial.connection.watch_shutdown()));
    }
}

#[test]
fn the_application_code_is_used_if_it_is_in_the_same_datagram() {
    for shares in [false, true] {
        let (mut peer, dial) = unconfirmed(shares);
        let mut datagram =
            peer.seal(Space::Handshake, &[Frame::transport_close(APPLICATION_ERROR)]);
        datagram.extend(peer.seal(Space::Data, &[Frame::application_close(9)]));
        peer.transmit(0, datagram).unwrap();
        assert_code(&block_on(dial.connection.watch_shutdown()), 9);
    }
}

/// A client whose handshake is complete but not confirmed, so that it still accepts Handshake
/// packets. An acknowledgement of its 1-RTT packets would confirm it, too.
fn unconfirmed(shares: bool) -> (Peer, Dial) {
    let host = host();
    let dial = Dial::start_sharing(host.local_addr().unwrap(), shares);
    let first = host.first(TIMEOUT).unwrap();
    let acknowledged = vec![Space::Initial, Space::Handshake];
    let policy = Policy { acknowledged, confirms: false, ..Policy::default() };
    let mut peer = host.begin(&first, policy).unwrap();
    peer.handshake(TIMEOUT).unwrap();
    (peer, dial)
}

fn assert_is_application_error(frames: &[Frame]) {
    let close = frames.iter().find(|frame| matches!(frame, Frame::Close { .. }));
    let Some(Frame::Close { code, frame_type, reason }) = close else { panic!("{frames:?}") };
    assert_eq!(*code, APPLICATION_ERROR, "{close:?}");
    assert!(frame_type.is_some(), "a close of the application in an Initial packet: {close:?}");
    assert!(reason.is_empty(), "the reason must not be sent yet: {close:?}");
}

/// The application code is unknown, so either kind of close is acceptable.
fn assert_is_close_of_the_peer(error: &ConnectionError) {
    match error {
        ConnectionError::ClosedByPeer { .. } => {}
        ConnectionError::ClosedByTransport { status, code: APPLICATION_ERROR } => {
            let told = status.to_string();
            assert!(!told.to_lowercase().contains("internal"), "reported as {told:?}");
        }
        error => panic!("reported as {error:?}"),
    }
}

fn assert_code(error: &ConnectionError, expected: u64) {
    let ConnectionError::ClosedByPeer { code, .. } = error else { panic!("reported as {error:?}") };
    assert_eq!(*code, expected);
}
