//! Peers that make this side hold datagrams and answers.

mod common;

use common::{ALPN, HANG, dial_quic, listen, run, trusting};
use futures_util::FutureExt;
use net_relay::{Faults, Relay};
use net_traits::{
    CloseReason, Limit, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport, RecvError,
};
use quic_attack::{Frame, Identity, Parameters, Peer, Space};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnListener, QuinnTransport};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

const KIB: usize = 1024;

const PAUSE: Duration = Duration::from_millis(1);

struct Hostile {
    transport: QuinnTransport,
    _listener: QuinnListener,
    connection: QuinnConnection,
    peer: quinn::Connection,
}

/// Connects a scripted peer.
async fn scripted_peer(config: QuinnConfig) -> (QuinnTransport, QuinnConnection, Peer) {
    let (transport, listener) = listen(config).await;
    let address = listener.local_addr();
    let (connection, peer) = scripted_at(address, &listener).await;
    (transport, connection, peer)
}

/// Connects a scripted peer at an address that leads to the listener.
async fn scripted_at(address: SocketAddr, listener: &QuinnListener) -> (QuinnConnection, Peer) {
    let dial = tokio::task::spawn_blocking(move || {
        let identity = Identity::new(&[ALPN, &format!("{ALPN}+receipts/2")]);
        Peer::connect(address, &identity, Parameters::generous(), HANG).unwrap()
    });
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (peer, connection) = tokio::join!(dial, accept);
    (connection, peer.unwrap())
}

/// Sends packets of a scripted peer to a connection until its transport holds as many bytes, and none once it was
/// dropped.
fn scripted(frames: impl Fn(u64) -> Frame, expected: impl Fn(usize) -> bool) {
    scripted_many(1, frames, expected);
}

/// The same, with so many frames in each packet.
fn scripted_many(in_packet: u64, frames: impl Fn(u64) -> Frame, expected: impl Fn(usize) -> bool) {
    run(async {
        let (transport, connection, mut peer) = scripted_peer(QuinnConfig::new()).await;
        let mut number = 0;
        while !expected(transport.statistics().held_bytes) {
            if number < 2000 {
                let first = number * in_packet;
                let packet: Vec<_> = (first..first + in_packet).map(&frames).collect();
                peer.send(Space::Data, &packet).unwrap();
                number += 1;
            }
            sleep(PAUSE).await;
        }
        connection.abort(0, "");
        drop(connection); // with the last handle, quinn frees what it holds
        while transport.statistics().held_bytes > 0 {
            sleep(PAUSE).await;
        }
    });
}

/// A byte behind one more gap of a stream.
fn behind_gap(number: u64) -> Frame {
    Frame::Stream { stream: 2, offset: 2 * number + 1, fin: false, data: vec![0] }
}

#[test]
fn what_is_behind_gaps_does_not_outlive_its_connection() {
    const DELAY: Duration = Duration::from_millis(100);
    run(async {
        let config = QuinnConfig::new().stream_receive_window(4 * 1024);
        let (_, listener) = listen(config).await;
        let faults = Faults { delay: DELAY, ..Faults::default() };
        let relay = Relay::new(listener.local_addr(), faults, 7).unwrap();
        let (connection, mut peer) = scripted_at(relay.address(), &listener).await;
        for number in 0..1200 {
            peer.send(Space::Data, &[behind_gap(number)]).unwrap();
            sleep(PAUSE).await;
        }
        sleep(2 * DELAY).await; // the last packets arrive
        connection.abort(7, "");
        // One piece per round trip would take minutes.
        let reason = CloseReason::Local { code: 7, reason: String::new() };
        assert_eq!(connection.recv().await, Err(RecvError::Closed(reason)));
    });
}

#[test]
fn crypto_frames_behind_gaps_are_charged() {
    let behind = |number| Frame::Crypto { offset: 2 * number + 1, data: vec![0] };
    scripted_many(2, behind, |held| held >= 10 * KIB * KIB);
}

#[test]
fn connection_ids_that_the_peer_retires_are_charged() {
    // The peer does not acknowledge, so that new ones cannot be sent. They have to exist before it retires them:
    // quinn has eight.
    run(async {
        let (transport, listener) = listen(QuinnConfig::new()).await;
        loop {
            let (connection, mut peer) = scripted_at(listener.local_addr(), &listener).await;
            let retire = async {
                for number in 1..2000 {
                    peer.send(Space::Data, &[Frame::RetireConnectionId(number)]).unwrap();
                    sleep(PAUSE).await;
                }
                while transport.statistics().held_bytes < 100 * KIB {
                    sleep(PAUSE).await;
                }
            };
            tokio::select! {
                () = retire => break,
                _ = connection.recv() => {} // it was too fast for this machine
            }
        }
    });
}

/// The frame of a stream with 1000 bytes.
fn stream(stream: u64, offset: u64) -> Frame {
    Frame::Stream { stream, offset, fin: false, data: vec![0; 1000] }
}

#[test]
fn a_gap_that_is_not_filled_ends_the_connection() {
    run(async {
        let config = QuinnConfig::new().message_timeout(Duration::from_secs(1));
        let (transport, connection, mut peer) = scripted_peer(config).await;
        peer.send(Space::Data, &[stream(2, 1)]).unwrap();
        let Err(RecvError::Closed(CloseReason::Local { code, .. })) = connection.recv().await
        else {
            panic!("the connection stays");
        };
        assert_eq!(code, Limit::MessageTimeout.code());
        assert_eq!(transport.statistics().held_bytes, 0);
    });
}

#[test]
fn a_gap_of_an_answer_that_is_not_read_does_not_end_the_connection() {
    run(async {
        let config = QuinnConfig::new().message_timeout(Duration::from_secs(1));
        let (transport, connection, mut peer) = scripted_peer(config).await;
        let mut request = pin!(connection.request("question".into(), HANG));
        let [first, second] = [(0, false), (1000, true)].map(|(offset, fin)| Frame::Stream {
            stream: 1,
            offset,
            fin,
            data: vec![0; 1000],
        });
        assert_eq!(request.as_mut().now_or_never(), None);
        peer.send(Space::Data, &[second]).unwrap();
        while transport.statistics().held_bytes < 1000 {
            assert_eq!(request.as_mut().now_or_never(), None);
            sleep(PAUSE).await;
        }
        sleep(Duration::from_secs(3)).await; // the application does something else
        peer.send(Space::Data, &[first]).unwrap();
        assert_eq!(request.await.unwrap(), vec![0; 2000]);
    });
}

#[test]
fn what_is_behind_a_gap_is_charged() {
    let behind = |number| stream(2, 1 + 1000 * number);
    scripted(behind, |held| held >= 100_000);
}

#[test]
fn a_question_behind_a_gap_is_charged() {
    let behind = |number| stream(4 * (number % 16), 1 + 1000 * (number / 16));
    scripted(behind, |held| held >= 100_000);
}

#[test]
fn single_bytes_behind_gaps_are_charged_with_what_they_cost() {
    scripted(behind_gap, |held| held >= 100 * 100);
}

#[test]
fn a_question_that_is_not_accepted_is_charged() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new()).await;
        let mut questions = Vec::new();
        for _ in 0..16 {
            let (mut write, read) = hostile.peer.open_bi().await.unwrap();
            write.write_all(&[7; 500 * KIB]).await.unwrap();
            questions.push((write, read));
        }
        hostile.held(|bytes| bytes >= 16 * 500 * KIB).await;
        for (write, _) in &mut questions {
            write.finish().unwrap();
        }
        hostile.held(|bytes| bytes >= 16 * 500 * KIB).await;
        for _ in 0..16 {
            let mut question = hostile.connection.accept_request().await.unwrap();
            assert_eq!(question.question().await.unwrap().len(), 500 * KIB);
            question.answer("".into()).await.unwrap();
        }
        hostile.held(|bytes| bytes == 0).await;
    });
}

#[test]
fn a_stream_that_waits_for_room_is_charged() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new().receive_queue(64 * KIB)).await;
        let mut stream = hostile.peer.open_uni().await.unwrap();
        let flood = async {
            let message = [&1000_u32.to_be_bytes()[..], &[7; 1000]].concat();
            loop {
                stream.write_all(&message).await.unwrap();
            }
        };
        tokio::select! {
            () = hostile.held(|bytes| bytes >= 300 * KIB) => {}
            () = flood => unreachable!(),
        }
        let drain = async { while hostile.connection.recv().await.is_ok() {} };
        tokio::select! {
            () = hostile.held(|bytes| bytes <= 4 * KIB) => {} // the last message may have begun
            () = drain => unreachable!("the connection stays"),
        }
    });
}

#[test]
fn what_was_read_before_a_stream_is_not_charged_to_it() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new().receive_queue(64 * KIB)).await;
        let message = &[&1000_u32.to_be_bytes()[..], &[7; 1000]].concat();
        let mut first = hostile.peer.open_uni().await.unwrap();
        let send = async {
            for _ in 0..20_000 {
                first.write_all(message).await.unwrap();
            }
        };
        let receive = async {
            for _ in 0..20_000 {
                hostile.connection.recv().await.unwrap();
            }
        };
        tokio::join!(send, receive);
        for _ in 0..200 {
            first.write_all(message).await.unwrap(); // fills the inbox
        }
        hostile.held(|bytes| bytes >= 100 * KIB).await;
        let mut second = hostile.peer.open_uni().await.unwrap();
        second.write_all(message).await.unwrap();
        for _ in 0..10 {
            sleep(Duration::from_millis(100)).await; // memory is charged four times per second
            let held = hostile.transport.statistics().held_bytes;
            assert!(held < 7 * KIB * KIB, "{held}");
        }
    });
}

/// Connects a bare QUIC peer.
async fn hostile_to(config: QuinnConfig) -> Hostile {
    let (transport, listener) = listen(config).await;
    let credential = trusting();
    let dial = dial_quic(listener.local_addr(), ALPN, Some(&credential));
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (peer, connection) = tokio::join!(dial, accept);
    Hostile { transport, _listener: listener, connection, peer: peer.unwrap() }
}

impl Hostile {
    /// Waits until the transport holds so many bytes.
    async fn held(&self, expected: impl Fn(usize) -> bool) {
        while !expected(self.transport.statistics().held_bytes) {
            sleep(PAUSE).await;
        }
    }
}

#[test]
fn datagrams_that_are_not_received_are_charged() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new()).await;
        let flood = async {
            loop {
                // It fails while the queue of the peer is full.
                let _ = hostile.peer.send_datagram(vec![0; 1000].into());
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = hostile.held(|bytes| bytes >= 60 * KIB) => {}
            () = flood => unreachable!(),
        }
        let datagrams = hostile.connection.datagrams().unwrap();
        let drain = async { while datagrams.recv_datagram().await.is_ok() {} };
        tokio::select! {
            () = hostile.held(|bytes| bytes == 0) => {}
            () = drain => unreachable!("the connection stays"),
        }
    });
}

#[test]
fn an_answer_is_charged_while_it_is_read() {
    run(async {
        let hostile = &hostile_to(QuinnConfig::new()).await;
        let ask = hostile.connection.request("how much?".into(), HANG);
        let answer = async {
            let (mut write, _read) = hostile.peer.accept_bi().await.unwrap();
            write.write_all(&[7; 500 * KIB]).await.unwrap();
            hostile.held(|bytes| bytes >= 500 * KIB).await;
            write.finish().unwrap();
            write.stopped().await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, answer);
        assert_eq!(answer.unwrap().len(), 500 * KIB);
        assert_eq!(hostile.transport.statistics().held_bytes, 0);
    });
}
