//! Handlers that run on the thread that receives the messages.

mod common;

use bytes::Bytes;
use common::{ALPN, Pair, credentials, pair, pair_with, run};
use futures_util::FutureExt;
use msquic_transport::{MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig, serve_inline};
use net_traits::{
    CloseReason, NetConnection, NetIncomingRequest, NetListener, NetTransport, RecvError,
    TrustPolicy, close_code,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

type Received = Result<(Bytes, Duration), RecvError>;

fn echo(connection: &MsQuicNetConnection, received: Received) {
    connection.try_send(received.unwrap().0).unwrap();
}

/// A handler that passes the messages to a channel.
fn forward() -> (impl Fn(&MsQuicNetConnection, Received), mpsc::UnboundedReceiver<Bytes>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let handler = move |_: &MsQuicNetConnection, received: Received| {
        let _ = sender.send(received.unwrap().0); // the test may have ended
    };
    (handler, receiver)
}

fn number(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

async fn expect_code(connection: &MsQuicNetConnection, expected: u64) {
    let reason = connection.watch_close().await;
    let (CloseReason::Peer { code, .. } | CloseReason::Local { code, .. }) = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(code, expected);
}

#[test]
fn a_handler_gets_what_was_sent_before_the_end() {
    run(async {
        let Pair { client, server, .. } = &pair().await;
        for next in 0..100 {
            client.send_bytes(number(next)).await.unwrap();
        }
        client.close(5, "").await;
        expect_code(server, 5).await;
        let (handler, mut received) = forward();
        server.on_message(handler).await.unwrap();
        for expected in 0..100 {
            assert_eq!(received.recv().await, Some(number(expected)));
        }
        let end = RecvError::Closed(server.watch_close().await);
        assert_eq!(server.recv().await, Err(end));
    });
}

#[test]
fn a_late_handler_gets_what_has_arrived_first() {
    run(async {
        let Pair { client, server, .. } = &pair().await;
        let send = async |numbers| {
            for next in numbers {
                client.send_bytes(number(next)).await.unwrap();
            }
        };
        send(0..100).await;
        client.flush().await.unwrap();
        let (handler, mut received) = forward();
        let (handled, ()) = tokio::join!(server.on_message(handler), send(100..300));
        handled.unwrap();
        for expected in 0..300 {
            assert_eq!(received.recv().await, Some(number(expected)));
        }
    });
}

#[test]
fn answers_are_queued_by_the_handler() {
    run(async {
        let (for_server, for_client) = credentials();
        let (server, client) = (MsQuicTransport::new(), MsQuicTransport::new());
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = server.create_listener(address, &[ALPN], for_server).await.unwrap();
        let dial = async {
            let address = listener.local_addr();
            let connection = client.connect(address, &[ALPN], for_client).await.unwrap();
            for next in 0..100 {
                connection.send_bytes(number(next)).await.unwrap();
                assert_eq!(connection.recv().await.unwrap().0, number(next));
            }
            let close = connection.close(0, "").await;
            server.shutdown(Duration::from_secs(1), "").await;
            close
        };
        let (_end, close) = tokio::join!(serve_inline(&listener, echo), dial);
        assert!(close.is_confirmed(), "{close:?}");
    });
}

#[test]
fn recv_and_try_recv_leave_messages_to_the_handler() {
    run(async {
        let Pair { client, server, .. } = &pair().await;
        let (handler, mut received) = forward();
        let pending = tokio::spawn({
            let server = server.clone();
            async move { server.recv().await }
        });
        tokio::task::yield_now().await;
        server.on_message(handler).await.unwrap();
        client.send(b"one").await.unwrap();
        assert_eq!(received.recv().await.unwrap(), "one");
        assert_eq!(server.try_recv(), Ok(None));
        client.close(7, "").await;
        for end in [pending.await.unwrap(), server.recv().await] {
            assert!(matches!(&end, Err(RecvError::Closed(_))), "{end:?}");
        }
    });
}

#[test]
fn a_panic_closes_the_connection_and_is_the_last_call() {
    run(async {
        let Pair { client, server, .. } = &pair().await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let handler = move |_: &MsQuicNetConnection, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("as the test wants");
        };
        server.on_message(handler).await.unwrap();
        for next in 0..50 {
            let _ = client.send_bytes(number(next)).await; // the connection may be closed already
        }
        expect_code(server, close_code::HANDLER_PANICKED).await;
        expect_code(client, close_code::HANDLER_PANICKED).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_handler_may_drop_the_last_handle() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let last = Arc::new(Mutex::new(Some(server.clone())));
        let handler = move |_: &MsQuicNetConnection, _| drop(last.lock().unwrap().take());
        server.on_message(handler).await.unwrap();
        drop(server);
        client.send(b"drop").await.unwrap();
        expect_code(&client, 0).await;
    });
}

#[test]
fn a_handler_may_close_and_is_not_called_again() {
    run(async {
        for is_abort in [true, false] {
            let Pair { client, server, .. } = &pair().await;
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = calls.clone();
            let handler = move |connection: &MsQuicNetConnection, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                if is_abort {
                    return connection.abort(9, "");
                }
                let connection = connection.clone();
                let mut closing = Box::pin(async move { connection.close(9, "").await });
                assert!(closing.as_mut().now_or_never().is_none());
                tokio::spawn(closing);
            };
            server.on_message(handler).await.unwrap();
            for next in 0..50 {
                let _ = client.send_bytes(number(next)).await; // it may be closed already
            }
            expect_code(client, 9).await;
            expect_code(server, 9).await;
            assert_eq!(calls.load(Ordering::SeqCst), 1);
        }
    });
}

#[test]
fn a_handler_with_a_handle_of_its_connection_is_dropped_after_the_end() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let (alive, mut gone) = mpsc::unbounded_channel::<()>();
        let of_handler = (alive, server.clone());
        let handler = move |_: &MsQuicNetConnection, _| {
            let (_alive, _handle) = &of_handler;
        };
        server.on_message(handler).await.unwrap();
        client.send(b"hello").await.unwrap();
        client.close(0, "").await;
        drop(server);
        assert_eq!(gone.recv().await, None, "the handler is dropped");
    });
}

#[test]
fn a_receipt_is_sent_after_the_handler_has_returned() {
    run(async {
        let Pair { client, server, .. } = &pair().await;
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Mutex::new(released);
        let wait = move |_: &MsQuicNetConnection, _| released.lock().unwrap().recv().unwrap();
        server.on_message(wait).await.unwrap();
        let mut acked = std::pin::pin!(client.send_acked("important".into()));
        let early = timeout(Duration::from_millis(100), acked.as_mut()).await;
        assert!(early.is_err(), "the handler has not returned");
        release.send(()).unwrap();
        assert_eq!(acked.await, Ok(()));
    });
}

#[test]
fn nothing_of_a_revoked_peer_is_passed_on() {
    run(async {
        let (for_server, for_client) = credentials();
        let (transport, dialler) = (MsQuicTransport::new(), MsQuicTransport::new());
        for is_inside in [false, true] {
            let address = "127.0.0.1:0".parse().unwrap();
            let listener =
                transport.create_listener(address, &[ALPN], for_server.clone()).await.unwrap();
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let dial = dialler.connect(listener.local_addr(), &[ALPN], for_client.clone());
            let (server, client) = tokio::join!(accept, dial);
            let client = client.unwrap();
            let calls = Arc::new(AtomicUsize::new(0));
            let (counted, revoker) = (calls.clone(), transport.clone());
            let (reach, mut reached) = mpsc::unbounded_channel();
            let handler = move |_: &MsQuicNetConnection, _| {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                if number == 20 && is_inside {
                    // The first poll closes the connection; the rest waits for the handler.
                    let revoked = revoker.revoke(&TrustPolicy::reject_all()).now_or_never();
                    assert_eq!(revoked, None);
                }
                if number == 20 {
                    reach.send(()).unwrap();
                }
            };
            server.on_message(handler).await.unwrap();
            let flood = async { while client.send(b"more").await.is_ok() {} };
            let revoke = async {
                reached.recv().await.unwrap();
                if !is_inside {
                    assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, 1);
                }
                let calls_before = calls.load(Ordering::SeqCst);
                expect_code(&client, close_code::REVOKED).await;
                expect_code(&server, close_code::REVOKED).await;
                assert_eq!(calls.load(Ordering::SeqCst), calls_before);
                if is_inside {
                    assert_eq!(calls_before, 21);
                }
            };
            tokio::join!(flood, revoke);
        }
    });
}

#[test]
fn a_handler_that_is_stopped_leaves_nothing_behind() {
    type Stop = fn(&MsQuicNetConnection);
    let stops: [Stop; 3] = [
        |_| panic!("on purpose"),
        |connection| connection.abort(7, ""),
        |connection| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.close(7, "").await });
        },
    ];
    for stop in stops {
        run(async {
            // Fewer messages than are sent.
            let small = MsQuicTransportConfig::new().receive_queue(4096);
            let Pair { client, server, listener: _listener } =
                pair_with(small.clone(), small).await;
            let (owned, mut is_dropped) = mpsc::unbounded_channel::<()>();
            let handle = server.clone();
            let handler = move |connection: &MsQuicNetConnection, _: Received| {
                let _owned = (&owned, &handle);
                stop(connection);
            };
            server.on_message(handler).await.unwrap();
            let send = async {
                for _ in 0..100 {
                    let mut messages = (0..1000).map(number).collect();
                    if client.send_many(&mut messages).await.is_err() {
                        break; // the connection has ended
                    }
                }
            };
            let (end, ()) = tokio::join!(server.recv(), send);
            assert!(matches!(end, Err(RecvError::Closed(_))), "{end:?}");
            assert_eq!(is_dropped.recv().await, None, "the handler is dropped");
        });
    }
}
