//! Bytes that arrive again with other values do not change the data that the reader sees.
//!
//! Guards fault U5: msquic 2.5.1 copies a frame with one new byte completely over the received
//! bytes.

mod common;

use common::{ALPN, TIMEOUT, Target, acknowledges, answer, settings, socket};
use futures::executor::block_on;
use quic_attack::process::rounds;
use quic_attack::{Attempt, Frame, Parameters, Space, client_hello};

#[test]
fn a_stream_keeps_the_first_bytes_around_a_hole() {
    let target = Target::new();
    let (mut peer, server) = target.peer();
    let part = |offset, byte: u8, length| Frame::Stream {
        stream: 2,
        offset,
        fin: false,
        data: vec![byte; length],
    };
    for frame in [part(5, b'A', 5), part(15, b'B', 5), part(0, b'C', 30)] {
        let number = peer.send(Space::Data, &[frame]).unwrap();
        peer.wait(TIMEOUT, |r| acknowledges(r, number)).unwrap().expect("not acknowledged");
    }
    peer.send(Space::Data, &[end(2, 30)]).unwrap();
    let mut stream = block_on(server.accept_inbound_uni_stream()).unwrap();
    let read = block_on(stream.read_to_end(100)).unwrap();
    assert_eq!(read, b"CCCCCAAAAACCCCCBBBBBCCCCCCCCCC");
}

/// Random overlapping frames, compared with a model that keeps the first byte at each offset.
#[test]
fn streams_keep_the_first_bytes_of_random_frames() {
    // Enough streams for all rounds, so that no round waits for credit.
    let target = Target::with(&[ALPN], settings().peer_uni_streams(u16::MAX));
    let (mut peer, server) = target.peer();
    let mut rng = fastrand::Rng::with_seed(9);
    for round in 0..rounds(100) as u64 {
        let stream = 2 + 4 * round;
        let length = rng.usize(1..150);
        let mut model: Vec<Option<u8>> = vec![None; length];
        let mut frames = Vec::new();
        // All in one packet, since packets may overtake each other; the last frame leaves no hole.
        let parts = rng.usize(1..5);
        for part in 0..=parts {
            let is_last = part == parts;
            let start = if is_last { 0 } else { rng.usize(..length) };
            let end = if is_last { length } else { rng.usize(start..length) + 1 };
            let byte = rng.u8(..);
            model[start..end].iter_mut().for_each(|slot| *slot = slot.or(Some(byte)));
            let data = vec![byte; end - start];
            frames.push(Frame::Stream { stream, offset: start as u64, fin: false, data });
        }
        frames.push(end(stream, length as u64));
        peer.send(Space::Data, &frames).unwrap();
        let mut reader = block_on(server.accept_inbound_uni_stream()).unwrap();
        let read = block_on(reader.read_to_end(1000)).unwrap();
        let expected: Vec<_> = model.into_iter().flatten().collect();
        assert_eq!(read, expected, "stream {stream}");
        peer.receive(std::time::Instant::now()).unwrap();
    }
}

#[test]
fn a_client_hello_around_a_hole_keeps_its_first_bytes() {
    let target = Target::new().serve();
    let socket = socket(target.address);
    let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(3));
    let hello = client_hello(&[ALPN], &Parameters::generous(), &attempt.src);
    let without_last = Frame::Crypto { offset: 0, data: hello[..hello.len() - 1].to_vec() };
    let mut other = vec![b'x'; hello.len()];
    *other.last_mut().unwrap() = *hello.last().unwrap();
    let other = Frame::Crypto { offset: 0, data: other };
    socket.send(&attempt.datagram(&[without_last, other])).unwrap();
    let is_answer = |f: &Frame| matches!(f, Frame::Crypto { .. } | Frame::Close { .. });
    let answer = answer(&socket, &mut attempt, |packet| packet.frames.iter().any(is_answer));
    let frames = answer.expect("no answer").frames;
    assert!(frames.iter().any(|f| matches!(f, Frame::Crypto { .. })), "{frames:?}");
}

fn end(stream: u64, offset: u64) -> Frame {
    Frame::Stream { stream, offset, fin: true, data: Vec::new() }
}
