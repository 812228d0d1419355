//! Flow control of a connection: data that waits on some streams leaves room for the other ones.

mod common;

use common::{ALPN, HANG, listen, run, trusting};
use futures_util::future::join_all;
use net_traits::{
    Bytes, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests, NetTransport,
};
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnTransport};

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
