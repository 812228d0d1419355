//! Peers of older versions: a flush does not ask them, and a close waits for them without FIN.

mod common;

use common::{ALPN, HANG, listen, raw, raw_with, run, trusting};
use net_traits::{
    CloseOutcome, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport,
};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, TransportConfig};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};
use std::time::Duration;
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;

/// Connects a bare peer that accepts no requests, like those of older versions.
async fn older_peer(config: QuinnConfig) -> (Connection, QuinnConnection) {
    let mut options = TransportConfig::default();
    options.max_concurrent_bidi_streams(0_u8.into());
    raw_with(config, options).await
}

/// Reads a stream, and returns what arrived and the end.
async fn read(mut stream: RecvStream) -> (Vec<u8>, Result<(), ReadError>) {
    let mut received = Vec::new();
    loop {
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
            end => return (received, end.map(drop)),
        }
    }
}

#[test]
fn a_flush_to_an_older_peer_waits_until_quinn_has_the_messages() {
    run(async {
        let (_reads_nothing, connection) = older_peer(QuinnConfig::new()).await;
        connection.send(&[7; 100_000]).await.unwrap();
        connection.flush().await.unwrap();
    });
}

#[test]
fn a_close_does_not_finish_the_streams_of_messages() {
    run(async {
        let (peer, connection) = older_peer(QuinnConfig::new().send_streams(3)).await;
        for _ in 0..30 {
            connection.send(&[7; 100_000]).await.unwrap();
        }
        connection.send_urgent("urgent".into()).await.unwrap();
        let read_all = async {
            let mut streams = JoinSet::new();
            while let Ok(stream) = peer.accept_uni().await {
                streams.spawn(read(stream));
            }
            streams.join_all().await
        };
        let (outcome, streams) = tokio::join!(connection.close(9, ""), read_all);
        assert_eq!(outcome, CloseOutcome::Acknowledged);
        let bytes: usize = streams.iter().map(|(bytes, _)| bytes.len()).sum();
        assert_eq!(bytes, 30 * (4 + 100_000) + 4 + "urgent".len());
        for (_, end) in streams {
            match end {
                Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close))) => {
                    assert_eq!(close.error_code, 9_u8.into());
                }
                end => panic!("{end:?}"),
            }
        }
    });
}

#[test]
fn a_close_gives_an_older_peer_time_to_read() {
    run(async {
        let (peer, connection) = older_peer(QuinnConfig::new().older_peer_delay(HANG)).await;
        connection.send(b"hello").await.unwrap();
        let read = async {
            let mut stream = peer.accept_uni().await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            for _ in 0..10 {
                // A round trip, after which a close would have arrived.
                let mut stream = peer.open_uni().await.unwrap();
                stream.write_all(b"\0\0\0\x04more").await.unwrap();
                stream.finish().unwrap();
                assert_eq!(stream.stopped().await, Ok(None));
            }
            peer.close(5_u8.into(), b"read");
        };
        let (outcome, ()) = tokio::join!(connection.close(9, ""), read);
        assert_eq!(outcome, CloseOutcome::Acknowledged);
    });
}

#[test]
fn a_close_does_not_wait_for_other_peers() {
    run(async {
        let config =
            || QuinnConfig::new().older_peer_delay(10 * HANG).no_progress_timeout(10 * HANG);
        let (_accepts_requests, connection) = raw(config()).await;
        connection.send(b"hello").await.unwrap();
        assert_eq!(connection.close(9, "").await, CloseOutcome::Acknowledged);

        let (_older, connection) = older_peer(config().older_peer_delay(Duration::ZERO)).await;
        connection.send(b"hello").await.unwrap();
        assert_eq!(connection.close(9, "").await, CloseOutcome::Acknowledged);

        let (_got_nothing, connection) = older_peer(config()).await;
        assert_eq!(connection.close(9, "").await, CloseOutcome::Acknowledged);

        // The version tells that this peer is none of those, although it accepts no requests.
        let (_, listener) = listen(config()).await;
        let without_requests =
            QuinnTransport::with_config(QuinnConfig::new().max_inbound_requests(0)).unwrap();
        let dial = without_requests.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (_peer, connection) = tokio::join!(dial, accept);
        connection.send(b"hello").await.unwrap();
        assert_eq!(connection.close(9, "").await, CloseOutcome::Acknowledged);
    });
}

#[test]
fn answers_that_were_begun_arrive_before_a_close() {
    run(async {
        let mut options = TransportConfig::default();
        options.stream_receive_window(10_000_u16.into());
        let (peer, connection) = raw_with(QuinnConfig::new(), options).await;
        let (mut write, mut answer) = peer.open_bi().await.unwrap();
        write.write_all(b"how?").await.unwrap();
        write.finish().unwrap();
        let mut question = connection.accept_request().await.unwrap();
        assert_eq!(question.question().await.unwrap(), "how?");
        connection.send(b"hello").await.unwrap();
        let (answered, outcome, read) = tokio::join!(
            question.answer(vec![7; MIB].into()),
            connection.close(9, ""),
            answer.read_to_end(MIB),
        );
        answered.unwrap();
        assert_eq!(outcome, CloseOutcome::Acknowledged);
        assert_eq!(read.unwrap(), vec![7; MIB]);
    });
}

#[test]
fn questions_that_are_being_written_do_not_delay_a_close() {
    run(async {
        let mut options = TransportConfig::default();
        options.stream_receive_window(10_000_u16.into());
        let (peer, connection) = raw_with(QuinnConfig::new(), options).await;
        let asking = connection.clone();
        let asked = tokio::spawn(async move { asking.request(vec![7; MIB].into(), HANG).await });
        let (_answer, mut question) = peer.accept_bi().await.unwrap();
        question.read_exact(&mut [0; 20_000]).await.unwrap();
        connection.send(b"hello").await.unwrap();
        let (outcome, (_, end)) = tokio::join!(connection.close(9, ""), read(question));
        assert_eq!(outcome, CloseOutcome::Acknowledged);
        assert!(end.is_err() && asked.await.unwrap().is_err());
    });
}
