//! Futures that are dropped repeatedly: no data is lost, and no memory accumulates.

use super::peers::{client_configuration, credential, listen, pair_with, settings};
use crate::executors::run;
use bytes::Bytes;
use futures::task::{ArcWake, waker};
use msquic_async::DatagramOutcome;
use msquic_async::{Connection, Registration, StreamLimits, StreamType};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Polls a new future once and drops it, repeatedly, until one is ready at its first poll.
macro_rules! retry {
    ($operation:expr) => {
        loop {
            if let Poll::Ready(output) = futures::poll!(pin!($operation)) {
                break output;
            }
            yield_once().await;
        }
    };
}

/// Lets other tasks and threads run.
async fn yield_once() {
    std::thread::yield_now();
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn every_cancel_safe_operation_completes_when_it_is_retried() {
    run(async || {
        let settings = settings().datagrams(true);
        let registration = Registration::new("test").unwrap();
        let limits = StreamLimits::new()
            .send_buffer(32 << 10)
            .max_send_buffer(32 << 10)
            .receive_buffer(32 << 10);
        let listener = listen(&registration, &settings, credential(), limits);
        let configuration = client_configuration(&registration, &settings, limits);
        let client = Connection::new(&registration, credential()).unwrap();
        let port = listener.local_addr().unwrap().port();

        // The attempt of a dropped start continues, and `accept` waits for it.
        let _ = futures::poll!(client.start(&configuration, "127.0.0.1", port));
        let server = retry!(listener.accept()).unwrap();
        retry!(client.accept()).unwrap();
        retry!(server.accept()).unwrap();
        retry!(server.receive_remote_certificate()).unwrap();

        let stream = client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
        let (Some(read), Some(mut write)) = stream.split() else { unreachable!() };
        let data = super::peers::pattern(500_000);
        let send = async {
            for chunk in data.chunks(10_000) {
                let chunk = Bytes::copy_from_slice(chunk);
                retry!(write.write_chunk(&chunk, false)).unwrap();
            }
            let last = [Bytes::from("the"), Bytes::from("end")];
            retry!(write.enqueue(&last)).unwrap();
            retry!(write.flush()).unwrap();
            retry!(write.finish_write()).unwrap();
            assert_eq!(retry!(write.stopped()), Ok(None));
        };
        let receive = async {
            let stream = retry!(server.accept_inbound_stream()).unwrap();
            let mut received = Vec::new();
            while let Some(chunk) = retry!(stream.read_chunk()).unwrap() {
                received.extend_from_slice(&chunk);
            }
            let (Some(read), _) = stream.split() else { unreachable!() };
            assert_eq!(retry!(read.received_reset()), Ok(None));
            assert!(received == [&data, &b"theend"[..]].concat());
        };
        futures::join!(send, receive);
        drop(read);

        let outcome = client.send_datagram_tracked(&"datagram".into()).unwrap();
        let room = Bytes::from_static(b"second");
        retry!(client.send_datagram_wait(&room)).unwrap();
        assert_eq!(retry!(server.receive_datagram()).unwrap(), "datagram");
        assert_eq!(retry!(server.receive_datagram()).unwrap(), "second");
        assert_eq!(outcome.await, DatagramOutcome::Acknowledged);

        retry!(listener.stop()).unwrap();
        client.shutdown(1, "");
        retry!(client.watch_shutdown());
        retry!(server.watch_shutdown());
        retry!(registration.wait_idle());
    });
}

#[test]
fn a_dropped_open_leaves_no_stream_behind() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(4), StreamLimits::default()).await;
        for _ in 0..100 {
            let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
            let _ = futures::poll!(pin!(open));
        }
        // Streams that got as far as the peer are reset; accepting them gives their place back.
        let drain = async {
            loop {
                let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                if let Ok(message) = stream.read_to_end(100).await {
                    return assert_eq!(message, b"alive");
                }
            }
        };
        let open = async {
            let mut stream = pair.client.open_send_stream().await.unwrap();
            stream.send("alive").await.unwrap();
            std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
        };
        futures::join!(drain, open);
    });
}

/// A waker whose clones can be counted.
struct Counted;

impl ArcWake for Counted {
    fn wake_by_ref(_: &Arc<Self>) {}
}

#[test]
fn ten_thousand_dropped_futures_leave_a_constant_number_of_wakers() {
    run(async || {
        let pair = pair_with(settings().datagrams(true), StreamLimits::default()).await;
        let mut stream =
            pair.client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
        stream.write_chunk(&"x".into(), false).await.unwrap();
        let accepted = pair.server.accept_inbound_stream().await.unwrap();
        assert_eq!(&*accepted.read_chunk().await.unwrap().unwrap(), b"x");

        let counted = Arc::new(Counted);
        let waker = waker(counted.clone());
        let mut cx = Context::from_waker(&waker);
        let (Some(read), Some(write)) = accepted.split() else { unreachable!() };
        for _ in 0..10_000 {
            let server = &pair.server;
            let mut pending: [Pin<Box<dyn Future<Output = ()> + '_>>; 8] = [
                Box::pin(async { drop(pair.listener.accept().await) }),
                Box::pin(async { drop(server.accept_inbound_stream().await) }),
                Box::pin(async { drop(server.accept_inbound_uni_stream().await) }),
                Box::pin(async { drop(server.watch_shutdown().await) }),
                Box::pin(async { drop(server.receive_datagram().await) }),
                Box::pin(async { drop(read.read_chunk().await) }),
                Box::pin(async { drop(read.received_reset().await) }),
                Box::pin(async { drop(write.stopped().await) }),
            ];
            assert!(pending.iter_mut().all(|future| future.as_mut().poll(&mut cx).is_pending()));
            assert!(pair.listener.poll_accept(&mut cx).is_pending());
            assert!(pair.server.poll_receive_datagram(&mut cx).is_pending());
        }
        // One for the waker itself, one here, and at most one for each thing that is polled.
        let wakers = Arc::strong_count(&counted);
        assert!(wakers <= 2 + 10, "{wakers} wakers are left");
    });
}

#[test]
fn an_attempt_to_a_closed_port_can_be_dropped() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        for _ in 0..20 {
            let client = Connection::new(&registration, credential()).unwrap();
            let start = client.start(&configuration, "127.0.0.1", 9);
            let _ = futures::poll!(start);
        }
        registration.wait_idle().await;
    });
}
