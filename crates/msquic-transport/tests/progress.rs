//! Peers that read slowly or not at all, silent connections, and the timeouts that end operations.

mod common;

use bytes::Bytes;
use common::{Pair, hostile_to, pair, pair_with, pattern, run};
use msquic_async::StreamStartError;
use msquic_async::StreamType;
use msquic_transport::MsQuicTransportConfig;
use net_traits::{CloseOutcome, CloseReason, NetConnection, SendError};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const MIB: usize = 1024 * 1024;

#[test]
fn a_slow_reader_bounds_the_sender() {
    run(async {
        let config = MsQuicTransportConfig::new()
            .receive_queue(256 * 1024)
            .stream_op_timeout(Duration::from_millis(500));
        let Pair { client, server, .. } = pair_with(config.clone(), config).await;
        let message = pattern(64 * 1024);
        client.send_bytes(message.clone()).await.unwrap();
        server.recv().await.unwrap(); // the stream works, and is not read further
        let mut sent = 0;
        let stuck = loop {
            match client.send_bytes(message.clone()).await {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "64 MiB were sent without a reader");
        };
        assert_eq!(stuck, SendError::TimedOut { after: Duration::from_millis(500) });
        // Queued messages are not lost, and the connection remains usable.
        for _ in 0..sent {
            assert!(server.recv().await.unwrap().0 == message);
        }
        client.send(b"after").await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "after");
    });
}

#[test]
fn watch_close_wakes_early_and_late_waiters() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        for _ in 0..100_000 {
            let polled = futures_util::FutureExt::now_or_never(client.watch_close());
            assert_eq!(polled, None);
        }
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.watch_close().await })
            })
            .collect();
        tokio::task::yield_now().await;
        server.close(9, "bye").await;
        let expected = CloseReason::Peer { code: 9, reason: "bye".into() };
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), expected);
        }
        assert_eq!(client.watch_close().await, expected);
    });
}

#[test]
fn a_peer_that_reads_nothing_is_a_timeout_as_configured() {
    run(async {
        let after = Duration::from_millis(300);
        let config = MsQuicTransportConfig::new().stream_op_timeout(after);
        let Pair { client, server, .. } = pair_with(MsQuicTransportConfig::new(), config).await;
        let error = loop {
            if let Err(error) = client.send_bytes(pattern(MIB)).await {
                break error;
            }
        };
        assert_eq!(error, SendError::TimedOut { after });
        assert!(error.is_retryable());
        // The connection remains usable, and queued messages arrive when the peer reads.
        assert!(server.recv().await.unwrap().0 == pattern(MIB));
    });
}

#[test]
fn a_peer_that_takes_a_byte_now_and_then_blocks_no_operation() {
    run(async {
        let after = Duration::from_millis(500);
        let config = MsQuicTransportConfig::new()
            .stream_op_timeout(Duration::from_secs(3600))
            .operation_timeout(after);
        let (client, server) = hostile_to(config).await;
        server.send(b"to open the stream").await.unwrap();
        let mut stream = client.accept_inbound_uni_stream().await.unwrap();
        let take = async {
            while stream.read_exact(&mut [0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let time_out = async {
            let error = loop {
                if let Err(error) = server.send_bytes(pattern(MIB)).await {
                    break error;
                }
            };
            assert_eq!(error, SendError::TimedOut { after });
            assert_eq!(server.flush().await, Err(SendError::TimedOut { after }));
            let outcome = server.close(1, "enough").await;
            assert!(matches!(outcome, CloseOutcome::Undelivered { .. }), "{outcome:?}");
        };
        tokio::select! {
            biased;
            () = time_out => {}
            () = take => panic!("the connection is lost"),
        }
    });
}

#[test]
fn an_unread_stream_times_out_although_another_makes_progress() {
    run(async {
        let after = Duration::from_millis(100);
        let config = MsQuicTransportConfig::new().stream_op_timeout(after);
        let (client, server) = hostile_to(config).await;
        server.send(b"to open the stream").await.unwrap();
        let mut stuck = client.accept_inbound_uni_stream().await.unwrap();
        stuck.read_exact(&mut [0; 22]).await.unwrap();
        let take_urgent = async {
            // On a busy machine opening a stream may time out; the next message opens another.
            while let Ok(mut stream) = client.accept_inbound_uni_stream().await {
                let mut message = [0; 8];
                while stream.read_exact(&mut message).await.is_ok() {}
            }
        };
        let send_urgent = async {
            loop {
                let sent = server.send_urgent(Bytes::from_static(b"tick")).await;
                // On a busy machine this stream may be late as well.
                assert!(matches!(sent, Ok(()) | Err(SendError::TimedOut { .. })), "{sent:?}");
                tokio::time::sleep(after / 10).await;
            }
        };
        let send = async {
            loop {
                if let Err(error) = server.send_bytes(pattern(MIB)).await {
                    break error;
                }
            }
        };
        let error = tokio::select! {
            error = send => error,
            () = take_urgent => panic!("the connection is lost"),
            () = send_urgent => unreachable!("it never ends"),
        };
        // The shorter timeout applies only if a busy machine sent nothing at all meanwhile.
        let is_timeout =
            [after, 10 * after].iter().any(|after| error == SendError::TimedOut { after: *after });
        assert!(is_timeout, "{error:?}");
    });
}

#[test]
fn a_silent_connection_times_out_unless_it_is_kept_alive() {
    run(async {
        let idle = Duration::from_secs(2);
        let config = |keep_alive| {
            MsQuicTransportConfig::new().idle_timeout(idle).keep_alive_interval(keep_alive)
        };
        let silent = pair_with(config(Duration::ZERO), config(Duration::ZERO)).await;
        let kept = pair_with(config(Duration::ZERO), config(idle / 10)).await;
        assert_eq!(silent.client.watch_close().await, CloseReason::TimedOut);
        assert_eq!(silent.server.watch_close().await, CloseReason::TimedOut);
        kept.client.send(b"still here").await.unwrap();
        assert_eq!(kept.server.recv().await.unwrap().0, "still here");
    });
}

#[test]
fn a_peer_may_use_all_its_streams() {
    run(async {
        let (client, server) =
            hostile_to(MsQuicTransportConfig::new().max_inbound_streams(2)).await;
        let open = || client.open_outbound_stream(StreamType::Unidirectional, true);
        let mut streams = Vec::new();
        let refused = loop {
            match open().await {
                Ok(stream) => streams.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!((streams.len(), refused), (2, StreamStartError::LimitReached));
        drop(server);
    });
}
