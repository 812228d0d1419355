//! Flow control of a connection: data that waits on some streams leaves room for the other ones.

mod common;

use common::{ALPN, HANG, listen, raw_with, run, trusting};
use futures_util::future::join_all;
use net_traits::{
    Bytes, CloseOutcome, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport,
};
use quinn::TransportConfig;
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The messages of the peer that arrive at once.
const MESSAGES: u8 = 16;

/// A peer that sends several messages at once, and the connection with it.
async fn meet(config: QuinnConfig) -> (QuinnConnection, QuinnConnection) {
    let (_, listener) = listen(config).await;
    let peer = QuinnTransport::with_config(QuinnConfig::new().send_streams(MESSAGES.into()));
    let peer = peer.unwrap();
    let dial = peer.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap(), accepted)
}

/// Sends messages of 4 MiB on all streams at once; all of them arrive.
async fn send_all(peer: &QuinnConnection, connection: &QuinnConnection) {
    let message = |number| Bytes::from(vec![number; 4 * MIB]);
    let send = join_all((0..MESSAGES).map(|number| peer.send_bytes(message(number))));
    let receive = async {
        let mut left: Vec<_> = (0..MESSAGES).collect();
        while !left.is_empty() {
            let (received, _) = connection.recv().await.unwrap();
            left.retain(|number| received != message(*number));
        }
    };
    let (sent, ()) = tokio::join!(send, receive);
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
}

#[test]
fn paused_messages_do_not_keep_the_oldest_from_its_window() {
    run(async {
        let config = QuinnConfig::new().max_inbound_streams(17).max_unfinished(64 * KIB);
        let (peer, connection) = meet(config).await;
        send_all(&peer, &connection).await;
    });
}

#[test]
fn questions_that_are_not_read_do_not_keep_messages_from_their_windows() {
    run(async {
        let config = QuinnConfig::new().max_inbound_streams(17).max_unfinished(64 * KIB);
        let (peer, connection) = &meet(config).await;
        let ask = || peer.request(vec![7; MIB].into(), HANG);
        let questions = join_all((0..16).map(|_| ask()));
        let rest = async {
            let mut questions = Vec::new();
            for _ in 0..16 {
                questions.push(connection.accept_request().await.unwrap());
            }
            send_all(peer, connection).await;
            for mut question in questions {
                assert_eq!(question.question().await.unwrap().len(), MIB);
                question.answer("yes".into()).await.unwrap();
            }
        };
        let (answers, ()) = tokio::join!(questions, rest);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}

#[test]
fn a_stop_at_the_end_of_a_window_ends_a_close() {
    const WINDOW: u16 = 10_000;
    run(async {
        for pause in [0, 1, 20] {
            let mut options = TransportConfig::default();
            options.stream_receive_window(WINDOW.into());
            let config =
                QuinnConfig::new().no_progress_timeout(10 * HANG).older_peer_delay(Duration::ZERO);
            let (peer, connection) = raw_with(config, options).await;
            connection.send(&vec![7; usize::from(WINDOW) - 4]).await.unwrap();
            let mut stream = peer.accept_uni().await.unwrap();
            let stop = async {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                stream.stop(3_u8.into()).unwrap();
            };
            let (outcome, ()) = tokio::join!(connection.close(9, ""), stop);
            let bytes = u64::from(WINDOW) - 4;
            let is_told = matches!(outcome, CloseOutcome::Undelivered { messages: 1, bytes: all, .. } if all == bytes);
            assert!(is_told, "{pause}: {outcome:?}");
        }
    });
}
