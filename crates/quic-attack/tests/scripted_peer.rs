//! The scripted peer connects with msquic in both roles, which the attacks rely on.

mod common;

use common::{Dial, TIMEOUT, Target, acknowledges, host};
use futures::executor::block_on;
use quic_attack::{Frame, Peer, Space};

#[test]
fn a_client_talks_to_a_listener() {
    let target = Target::new();
    let (mut peer, server) = target.peer();
    send_stream(&mut peer, 2);
    let mut stream = block_on(server.accept_inbound_uni_stream()).unwrap();
    assert_eq!(block_on(stream.read_to_end(100)).unwrap(), b"hello");
    server.shutdown(7, "bye");
    let close = peer.wait(TIMEOUT, |received| received.has_close()).unwrap().unwrap();
    let expected = Frame::Close { code: 7, frame_type: None, reason: b"bye".to_vec() };
    assert_eq!(close.close(), Some(&expected));
}

#[test]
fn a_server_is_dialled_by_a_client() {
    let host = host();
    let dial = Dial::start(host.local_addr().unwrap());
    let mut peer = host.accept(TIMEOUT).unwrap();
    let (client, result) = dial.finish();
    result.unwrap();
    send_stream(&mut peer, 3);
    let mut stream = block_on(client.accept_inbound_uni_stream()).unwrap();
    assert_eq!(block_on(stream.read_to_end(100)).unwrap(), b"hello");
    peer.send(Space::Data, &[Frame::application_close(9)]).unwrap();
    let why = block_on(client.watch_shutdown());
    assert!(matches!(why, msquic_async::ConnectionError::ClosedByPeer { code: 9, .. }), "{why}");
}

fn send_stream(peer: &mut Peer, stream: u64) {
    let frame = Frame::Stream { stream, offset: 0, fin: true, data: b"hello".to_vec() };
    let number = peer.send(Space::Data, &[frame]).unwrap();
    let acknowledged = peer.wait(TIMEOUT, |received| acknowledges(received, number)).unwrap();
    assert!(acknowledged.is_some(), "the stream frame was not acknowledged");
}
