//! Peers that violate the protocol, stay silent, or disappear.

mod common;

use common::{ALPN, HANG, dial_tls, listen, run, trusting};
use futures_util::FutureExt;
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetRequests, NetTransport, RecvError, RejectionBy, RequestError, SendAckedError, SendError,
    TrustError, TrustPolicy,
};
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsConnection, TcpTlsTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

/// Connects a bare TLS peer, and returns it and the local connection.
async fn raw(config: TcpTlsConfig) -> (TlsStream<TcpStream>, TcpTlsConnection) {
    let (_, listener) = listen(config).await;
    common::raw(&listener, ALPN).await
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&net_kit::frame::header(message.len()).unwrap()[..], message].concat()
}

#[test]
fn a_vanished_peer_is_not_reported_as_a_close() {
    run(async {
        let (mut peer, connection) = raw(TcpTlsConfig::default()).await;
        peer.write_all(&frame(b"last words")).await.unwrap();
        peer.flush().await.unwrap();
        drop(peer); // closes the socket without close_notify
        assert_eq!(connection.recv().await.unwrap().0, "last words");
        let end = connection.recv().await.unwrap_err();
        assert!(matches!(end, RecvError::Closed(CloseReason::Transport(_))), "{end}");
    });
}

#[test]
fn a_silent_peer_times_out_and_gets_no_close_notify() {
    run(async {
        let idle_timeout = Duration::from_millis(300);
        let config = TcpTlsConfig::new().idle_timeout(idle_timeout);
        let (mut peer, connection) = raw(config).await;
        assert_eq!(connection.watch_close().await, CloseReason::TimedOut);
        let mut received = Vec::new();
        let error = peer.read_to_end(&mut received).await.unwrap_err();
        let keep_alive = [0xff, 0xff, 0xff, 0xff, 1];
        assert!(received.chunks(5).all(|record| record == keep_alive), "{received:?}");
        // close_notify would give no error.
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(error.get_ref().is_some(), "TLS itself says that close_notify is missing: {error}");
    });
}

#[test]
fn an_invalid_record_ends_the_connection() {
    run(async {
        let (mut peer, connection) = raw(TcpTlsConfig::default()).await;
        peer.write_all(&[0xff, 0xff, 0xff, 0xff, 77]).await.unwrap();
        peer.flush().await.unwrap();
        let reason = connection.watch_close().await;
        assert!(
            matches!(&reason, CloseReason::ProtocolViolation(_)) && !reason.is_retryable(),
            "{reason}"
        );
    });
}

#[test]
fn a_peer_without_requests_gets_none() {
    run(async {
        let (mut peer, connection) = raw(TcpTlsConfig::default()).await;
        let asked = connection.request("anybody?".into(), Duration::from_secs(10)).await;
        assert_eq!(asked, Err(RequestError::Unsupported));
        assert!(matches!(connection.accept_request().await, Err(RequestError::Unsupported)));
        peer.write_all(&frame(b"hello")).await.unwrap();
        peer.flush().await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "hello", "the connection remains usable");
        let question = [&[0xff; 4][..], &[2], &1_u32.to_be_bytes(), &frame(b"why?")].concat();
        peer.write_all(&question).await.unwrap();
        peer.flush().await.unwrap();
        let reason = connection.watch_close().await;
        assert!(matches!(reason, CloseReason::ProtocolViolation(_)), "{reason}");
    });
}

#[test]
fn a_peer_without_receipts_gets_no_marked_message() {
    run(async {
        for alpn in [ALPN.to_owned(), format!("{ALPN}+requests/1")] {
            let (_, listener) = listen(TcpTlsConfig::default()).await;
            let (mut peer, connection) = common::raw(&listener, &alpn).await;
            let acked = connection.send_acked("marked".into()).await;
            assert_eq!(acked, Err(SendAckedError::Unsupported));
            connection.send(b"plain").await.unwrap();
            let mut received = [0; 9];
            peer.read_exact(&mut received).await.unwrap();
            assert_eq!(received, frame(b"plain")[..]);
            let receipt = [255, 255, 255, 255, 7, 0, 0, 0, 1, 1];
            peer.write_all(&receipt).await.unwrap();
            let end = connection.watch_close().await;
            assert!(matches!(end, CloseReason::ProtocolViolation(_)), "{end:?}");
        }
    });
}

#[test]
fn a_marked_message_over_the_limit_is_rejected() {
    run(async {
        let (_, listener) = listen(TcpTlsConfig::new().max_message_size(1000)).await;
        let transport = TcpTlsTransport::new();
        let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        let rejected = dialled.send_acked(vec![0; 1001].into()).await;
        assert_eq!(rejected, Err(SendAckedError::NotSent(SendError::Stopped { code: 1 })));
        assert!(matches!(accepted.recv().await, Err(RecvError::TooLarge { .. })));
        let (acked, received) = tokio::join!(dialled.send_acked("short".into()), accepted.recv());
        assert_eq!((acked, received.unwrap().0), (Ok(()), "short".into()));
    });
}

#[test]
fn too_many_open_questions_end_the_connection() {
    run(async {
        let (_, listener) = listen(TcpTlsConfig::default()).await;
        let alpn = format!("{ALPN}+requests/1");
        let (mut peer, connection) = common::raw(&listener, &alpn).await;
        assert_eq!(connection.alpn_negotiated(), "test/1");
        for id in 0..17_u32 {
            let question = [&[0xff; 4][..], &[2], &id.to_be_bytes(), &frame(b"why?")].concat();
            peer.write_all(&question).await.unwrap();
        }
        peer.flush().await.unwrap();
        let reason = connection.watch_close().await;
        assert!(matches!(reason, CloseReason::ProtocolViolation(_)), "{reason}");
    });
}

#[test]
fn an_answer_is_returned_although_the_close_arrives_with_it() {
    run(async {
        let (_, listener) = listen(TcpTlsConfig::default()).await;
        let alpn = format!("{ALPN}+requests/1");
        let (mut peer, connection) = common::raw(&listener, &alpn).await;
        let answer = async {
            let mut question = [0; 4 + 1 + 4 + 4 + 4];
            peer.read_exact(&mut question).await.unwrap();
            let answer = [&[0xff; 4][..], &[3], &question[5..9], &frame(b"because")].concat();
            let close = [&[0xff; 4][..], &[0], &7_u64.to_be_bytes(), &0_u16.to_be_bytes()].concat();
            peer.write_all(&[answer, close].concat()).await.unwrap(); // one TLS record
            peer.flush().await.unwrap();
        };
        let ask = async {
            let asked = connection.request("why?".into(), HANG);
            tokio::pin!(asked);
            // Polled again once both have arrived.
            assert!((&mut asked).now_or_never().is_none());
            connection.watch_close().await;
            asked.await
        };
        let (asked, ()) = tokio::join!(ask, answer);
        assert_eq!(asked.unwrap(), "because");
    });
}

#[test]
fn a_close_record_carries_its_code_and_reason() {
    run(async {
        let (mut peer, connection) = raw(TcpTlsConfig::default()).await;
        let close = [&[0xff; 4][..], &[0], &7_u64.to_be_bytes(), &3_u16.to_be_bytes(), b"bye"];
        peer.write_all(&close.concat()).await.unwrap();
        peer.flush().await.unwrap();
        let reason = CloseReason::Peer { code: 7, reason: "bye".to_owned() };
        assert_eq!(connection.watch_close().await, reason);
        assert_eq!(peer.read(&mut [0; 10]).await.unwrap(), 0, "the stream ends");
    });
}

#[test]
fn a_slow_reader_still_gets_the_close_after_all_messages() {
    run(async {
        // The receive queue holds one message; the others are in socket buffers when the sender
        // closes.
        let config = TcpTlsConfig::new().receive_queue(1000);
        let (_, listener) = listen(config).await;
        let dial = async {
            let transport = TcpTlsTransport::new();
            let connection =
                transport.connect(listener.local_addr(), &[ALPN], trusting()).await.unwrap();
            for number in 0..20_u8 {
                connection.send(&vec![number; 10_000]).await.unwrap();
            }
            connection.close(5, "all said").await;
        };
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let read = async {
            let connection = accept.await;
            for number in 0..20_u8 {
                assert_eq!(connection.recv().await.unwrap().0, vec![number; 10_000]);
            }
            connection.watch_close().await
        };
        let ((), reason) = tokio::join!(dial, read);
        assert_eq!(reason, CloseReason::Peer { code: 5, reason: "all said".to_owned() });
    });
}

#[test]
fn silent_sockets_do_not_lock_out_other_peers() {
    run(async {
        let limits = TcpTlsConfig::new().handshake_timeout(Duration::from_secs(3600));
        for limits in [
            limits.clone().max_handshakes(3),
            limits.clone().max_handshakes_per_ip(3),
            limits.clone().max_connections_per_ip(3),
            limits.clone().max_connections(3),
        ] {
            let (_, listener) = listen(limits).await;
            let address = listener.local_addr();
            let mut silent = Vec::new();
            for _ in 0..10 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let accept_all = async {
                let mut accepting = tokio::task::JoinSet::new();
                loop {
                    let request = listener.accept().await.unwrap();
                    accepting.spawn(async move { request.accept().await.ok() });
                }
            };
            let dial = async {
                let transport = TcpTlsTransport::new();
                while let Err(error) = transport.connect(address, &[ALPN], trusting()).await {
                    let refused =
                        matches!(error, ConnectError::Refused(_) | ConnectError::Closed(_));
                    assert!(refused && error.is_retryable(), "{error:?}");
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! { () = accept_all => {}, () = dial => {} }
        }
    });
}

#[test]
fn garbage_instead_of_a_handshake_is_a_typed_error() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::default()).await;
        let mut peer = TcpStream::connect(listener.local_addr()).await.unwrap();
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = listener.accept().await.unwrap().accept().await.unwrap_err();
        assert!(matches!(error, ConnectError::Closed(CloseReason::Transport(_))), "{error:?}");
        assert_eq!(transport.statistics().handshakes, 0, "only its socket is kept for a while");
    });
}

#[test]
fn failed_handshakes_do_not_lock_out_other_peers() {
    run(async {
        let limits = TcpTlsConfig::new;
        for limits in [limits().max_connections_per_ip(1), limits().max_connections(1)] {
            let (transport, listener) = listen(limits).await;
            let mut peer = TcpStream::connect(listener.local_addr()).await.unwrap();
            peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            listener.accept().await.unwrap().accept().await.unwrap_err();
            // This side keeps the socket of the peer for a while, which counts for no limit.
            let dialler = TcpTlsTransport::new();
            let dial = dialler.connect(listener.local_addr(), &[ALPN], trusting());
            let accept = async { listener.accept().await.unwrap().accept().await };
            let _pair = tokio::try_join!(dial, accept).unwrap();
            assert_eq!(transport.statistics().connections, 1);
        }
    });
}

#[test]
fn a_certificate_without_its_key_is_rejected() {
    run(async {
        let (_, listener) = listen(TcpTlsConfig::default()).await;
        let (own, victim) = (trusting(), trusting());
        let key = own.private_key().clone_key();
        let chain = victim.certificate_chain().to_vec();
        let thief = NetCredential::new(chain, key, TrustPolicy::Any).unwrap();
        let dial = async {
            if let Ok(mut stream) = dial_tls(listener.local_addr(), ALPN, Some(&thief)).await {
                assert!(stream.read_u8().await.is_err(), "it gets no data");
            }
        };
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap_err() };
        let ((), error) = tokio::join!(dial, accept);
        let ConnectError::Rejected(rejection) = error else { panic!("{error:?}") };
        let cause = TrustError::Unproven { identity: victim.identity() };
        assert_eq!((rejection.by, rejection.cause.as_deref()), (RejectionBy::Us, Some(&cause)));
    });
}

#[test]
fn a_connection_that_cannot_be_written_ends_even_if_messages_are_not_received() {
    run(async {
        let config = TcpTlsConfig::new().receive_queue(64 * 1024);
        let (mut peer, connection) = raw(config).await;
        for _ in 0..4 {
            peer.write_all(&frame(&[7; 32 * 1024])).await.unwrap();
        }
        peer.flush().await.unwrap();
        peer.get_ref().0.set_zero_linger().unwrap();
        drop(peer); // resets
        while !matches!(connection.send(b"?").await, Err(SendError::Closed(_))) {}
        let reason = connection.watch_close().await;
        assert!(matches!(reason, CloseReason::Transport(_)), "{reason}");
    });
}
