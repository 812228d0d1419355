//! Peers that occupy memory with unfinished messages, or with questions that are not accepted.

mod common;

use common::{ALPN, HANG, dial_tls, listen, run, trusting};
use futures_util::future::join_all;
use net_traits::{
    CloseReason, Limit, NetConnection, NetIncomingRequest, NetListener, NetQuestion, NetRequests,
    NetTransport,
};
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1024 * 1024;

#[test]
fn connections_with_unfinished_messages_are_limited_and_ended() {
    const CONNECTIONS: usize = 16;
    run(async {
        let config = TcpTlsConfig::new()
            .max_message_size(MIB)
            .max_memory(4 * MIB)
            .message_timeout(Duration::from_secs(1));
        let (transport, listener) = listen(config).await;
        let credential = trusting();
        let size = MIB - 1;
        let header = u32::try_from(size).unwrap().to_be_bytes();
        let message = [&header[..], &vec![7; size - 1]].concat();
        let one = async || {
            let dial = dial_tls(listener.local_addr(), ALPN, Some(&credential));
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let (peer, connection) = tokio::join!(dial, accept);
            let mut peer = peer.unwrap();
            let attack = async {
                // The connection may be ended meanwhile.
                let _ = peer.write_all(&message).await;
                let _ = peer.flush().await;
                while peer.read_u8().await.is_ok() {}
            };
            let ((), reason) = tokio::join!(attack, connection.watch_close());
            match reason {
                CloseReason::Local { code, .. } => code,
                reason => panic!("{reason}"),
            }
        };
        let attacks = join_all((0..CONNECTIONS).map(|_| one()));
        let watch = async {
            let mut most = 0;
            loop {
                most = most.max(transport.statistics().held_bytes);
                tokio::task::yield_now().await;
                if transport.statistics().refused_message_timeout > 0 {
                    return most;
                }
            }
        };
        let (codes, most) = tokio::join!(attacks, watch);
        let limits = [Limit::Memory.code(), Limit::MessageTimeout.code()];
        assert!(codes.iter().all(|code| limits.contains(code)), "{codes:?}");
        // The buffer that exceeds the limit is charged before a connection is ended.
        assert!((2 * MIB..=5 * MIB).contains(&most), "{most} bytes held");
        let statistics = transport.statistics();
        assert!(statistics.refused_memory > 0, "{statistics:?}");
        assert_eq!(statistics.held_bytes, 0);
    });
}

#[test]
fn questions_that_are_not_accepted_are_charged() {
    const QUESTION: usize = 100_000;
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::new()).await;
        let dialler = TcpTlsTransport::new();
        let dial = dialler.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (peer, connection) = tokio::join!(dial, accept);
        let peer = peer.unwrap();
        let ask = join_all((0..4).map(|_| peer.request(vec![7; QUESTION].into(), HANG)));
        let answer = async {
            while transport.statistics().held_bytes < 4 * QUESTION {
                tokio::task::yield_now().await;
            }
            for _ in 0..4 {
                let mut question = connection.accept_request().await.unwrap();
                assert_eq!(question.question().await.unwrap().len(), QUESTION);
                question.answer("short".into()).await.unwrap();
            }
        };
        let (answers, ()) = tokio::join!(ask, answer);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(transport.statistics().held_bytes, 0);
    });
}
