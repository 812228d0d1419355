//! Messages between two peers over loopback.

mod common;

use bytes::Bytes;
use common::{Pair, hostile_to, pair, pair_with, pattern, run};
use msquic_async::{Connection, StreamType};
use msquic_transport::{MsQuicNetConnection, MsQuicTransportConfig, STREAM_CODE_MESSAGE_TOO_LARGE};
use net_traits::{CloseReason, NetConnection, RecvError, SendError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

const MIB: usize = 1024 * 1024;

#[test]
fn echo_both_ways() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        for (one, other) in [(&client, &server), (&server, &client)] {
            one.send(b"hello").await.unwrap();
            let (message, _) = other.recv().await.unwrap();
            other.send_bytes(message).await.unwrap();
            assert_eq!(one.recv().await.unwrap().0, "hello");
        }
    });
}

#[test]
fn messages_of_all_sizes_arrive_unchanged() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        for size in [0, 1, 4091, 4092, 4096, MIB, 64 * MIB] {
            let message = pattern(size);
            let send = client.send_bytes(message.clone());
            let (sent, received) = tokio::join!(send, server.recv());
            sent.unwrap();
            assert!(received.unwrap().0 == message, "{size} bytes");
        }
    });
}

#[test]
fn a_thousand_messages_stay_in_order() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let send = async {
            for number in 0..1000_u32 {
                let mut message = pattern(number as usize * 7 % 5000).to_vec();
                message.extend(number.to_be_bytes());
                client.send(&message).await.unwrap();
            }
        };
        let receive = async {
            for number in 0..1000_u32 {
                let (message, _) = server.recv().await.unwrap();
                assert!(message.ends_with(&number.to_be_bytes()));
                assert_eq!(message.len(), number as usize * 7 % 5000 + 4);
            }
        };
        tokio::join!(send, receive);
    });
}

#[test]
fn many_tasks_may_send_on_one_connection() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..20_u8 {
            let client = client.clone();
            tasks.spawn(async move {
                for round in 0..50 {
                    client.send(&vec![task; 1 + round * 100]).await.unwrap();
                }
            });
        }
        let mut rounds = [0; 20];
        for _ in 0..20 * 50 {
            let (message, _) = server.recv().await.unwrap();
            let task = message[0];
            assert!(message.iter().all(|byte| *byte == task));
            assert_eq!(message.len(), 1 + rounds[task as usize] * 100);
            rounds[task as usize] += 1;
        }
        tasks.join_all().await;
    });
}

#[test]
fn a_message_over_the_limit_is_rejected_and_the_connection_stays_usable() {
    run(async {
        let small = MsQuicTransportConfig::new().max_message_size(1000);
        let Pair { client, server, .. } = pair_with(small.clone(), small).await;
        let error = client.send(&[0; 1001]).await;
        assert_eq!(error, Err(SendError::TooLarge { size: 1001, limit: 1000 }));
        client.send(&[1; 1000]).await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, vec![1; 1000]);
    });
}

#[test]
fn a_message_over_the_receivers_limit_stops_only_its_stream() {
    run(async {
        let small = MsQuicTransportConfig::new().max_message_size(1000);
        let Pair { client, server, .. } = pair_with(small, MsQuicTransportConfig::new()).await;
        client.send(&[0; 1001]).await.unwrap();
        let error = server.recv().await;
        assert_eq!(error, Err(RecvError::TooLarge { size: 1001, limit: 1000 }));
        // The sender gets an error, and the next message arrives on another stream.
        let stopped = loop {
            match client.send(&[1; 500]).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert!(matches!(stopped, SendError::Stopped { .. }), "{stopped:?}");
        client.send(b"next").await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "next");
    });
}

#[test]
fn a_stream_is_stopped_although_the_receiver_does_not_read() {
    run(async {
        let small = MsQuicTransportConfig::new().max_message_size(1000);
        let Pair { client, server, .. } = pair_with(small, MsQuicTransportConfig::new()).await;
        client.send(b"before").await.unwrap();
        client.send(&[0; 1001]).await.unwrap();
        let stopped = loop {
            match client.send(&[1; 500]).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        };
        assert_eq!(stopped, SendError::Stopped { code: STREAM_CODE_MESSAGE_TOO_LARGE });
        client.send(b"after").await.unwrap();
        assert_eq!(client.flush().await, Err(stopped), "some messages were lost");
        client.flush().await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "before");
        let error = server.recv().await;
        assert_eq!(error, Err(RecvError::TooLarge { size: 1001, limit: 1000 }));
        assert_eq!(server.recv().await.unwrap().0, "after");
    });
}

#[test]
fn a_cancelled_recv_loses_nothing() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let send = async {
            for number in 0..300_u32 {
                client
                    .send(&[pattern(20_000).to_vec(), number.to_be_bytes().to_vec()].concat())
                    .await
                    .unwrap();
            }
        };
        let receive = async {
            let mut next = 0_u32;
            while next < 300 {
                tokio::select! {
                    biased;
                    message = server.recv() => {
                        assert!(message.unwrap().0.ends_with(&next.to_be_bytes()));
                        next += 1;
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        tokio::join!(send, receive);
    });
}

#[test]
fn messages_sent_before_the_close_are_delivered() {
    run(async {
        for count in [1_u32, 100] {
            let Pair { client, server, .. } = pair().await;
            let send = async {
                for number in 0..count {
                    client.send(&number.to_be_bytes().repeat(1000)).await.unwrap();
                }
                client.close(7, "all said").await;
            };
            let receive = async {
                for number in 0..count {
                    let (message, _) = server.recv().await.unwrap();
                    assert_eq!(message, number.to_be_bytes().repeat(1000));
                }
                server.recv().await.unwrap_err()
            };
            let ((), end) = tokio::join!(send, receive);
            let by_peer = CloseReason::Peer { code: 7, reason: "all said".into() };
            assert_eq!(end, RecvError::Closed(by_peer.clone()));
            assert_eq!(server.send(b"late").await, Err(SendError::Closed(by_peer.clone())));
            assert_eq!(server.watch_close().await, by_peer);
            let by_us = CloseReason::Local { code: 7, reason: "all said".into() };
            assert_eq!(client.watch_close().await, by_us);
            assert_eq!(client.send(b"late").await, Err(SendError::Closed(by_us)));
            client.close(8, "again").await;
        }
    });
}

#[test]
fn a_local_close_ends_pending_operations() {
    run(async {
        let Pair { client, server: _server, .. } = pair().await;
        let receive = tokio::spawn({
            let client = client.clone();
            async move { client.recv().await }
        });
        let watch = tokio::spawn({
            let client = client.clone();
            async move { client.watch_close().await }
        });
        tokio::task::yield_now().await;
        client.close(3, "").await;
        let by_us = CloseReason::Local { code: 3, reason: String::new() };
        assert_eq!(receive.await.unwrap(), Err(RecvError::Closed(by_us.clone())));
        assert_eq!(watch.await.unwrap(), by_us);
    });
}

#[test]
fn dropping_the_last_clone_closes() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let clone = client.clone();
        drop(client);
        clone.send(b"still here").await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "still here");
        drop(clone);
        let by_peer = CloseReason::Peer { code: 0, reason: String::new() };
        assert_eq!(server.watch_close().await, by_peer);
    });
}

/// Connects a bare QUIC peer, which can send invalid frames.
async fn hostile() -> (Connection, MsQuicNetConnection) {
    hostile_to(MsQuicTransportConfig::new().max_message_size(1000)).await
}

#[test]
fn streams_that_end_inside_a_message_do_not_end_the_connection() {
    run(async {
        let (client, server) = hostile().await;
        let open = || client.open_outbound_stream(StreamType::Unidirectional, false);

        let mut stream = open().await.unwrap();
        stream.write_all(&[0, 0, 0, 5, b'x']).await.unwrap();
        stream.shutdown().await.unwrap();
        let cut = RecvError::Truncated { received: 1, announced: 5 };
        assert_eq!(server.recv().await, Err(cut));

        let mut stream = open().await.unwrap();
        stream.write_all(&[0, 0, 0, 1, b'a', 0, 0]).await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "a");
        stream.abort_write(9).unwrap();
        assert_eq!(server.recv().await, Err(RecvError::Reset { code: 9 }));

        let mut stream = open().await.unwrap();
        stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let too_large = RecvError::TooLarge { size: u32::MAX.into(), limit: 1000 };
        assert_eq!(server.recv().await, Err(too_large));

        let mut stream = open().await.unwrap();
        stream.write_all(&[0, 0, 0, 2, b'o', b'k']).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "ok");
    });
}

#[test]
fn messages_of_any_number_of_streams_are_received() {
    run(async {
        let (client, server) = hostile().await;
        let send = async {
            for number in 0..200_u8 {
                let mut stream =
                    client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
                stream.write_all(&[0, 0, 0, 1, number]).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        };
        let receive = async {
            let mut seen = Vec::new();
            for _ in 0..200 {
                seen.push(server.recv().await.unwrap().0[0]);
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..200));
        };
        tokio::join!(send, receive);
    });
}

#[test]
fn bytes_are_sent_without_a_conversion() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let message = Bytes::from_static(b"static");
        client.send_bytes(message.clone()).await.unwrap();
        let (received, elapsed): (Bytes, Duration) = server.recv().await.unwrap();
        assert_eq!(received, message);
        assert!(elapsed < Duration::from_secs(60));
    });
}

#[test]
fn parts_are_sent_as_one_message() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let parts = [Bytes::from("head"), Bytes::new(), pattern(100_000), Bytes::from("tail")];
        client.send_parts(&parts).await.unwrap();
        client.send_parts(&[]).await.unwrap();
        assert!(server.recv().await.unwrap().0 == parts.concat());
        assert_eq!(server.recv().await.unwrap().0, "");
        let too_large = [pattern(40 * MIB), pattern(40 * MIB)];
        let error = client.send_parts(&too_large).await.unwrap_err();
        assert_eq!(error, SendError::TooLarge { size: 80 * MIB, limit: 64 * MIB });
    });
}

#[test]
fn try_send_never_waits_and_reports_a_full_queue() {
    run(async {
        let Pair { client, server, .. } = pair().await;
        let mut sent = 0_u32;
        let mut is_full = false;
        while !(is_full && sent > 100) {
            match client.try_send(vec![7; 10_000].into()) {
                Ok(()) => sent += 1,
                // First the stream is not open; later the queue is full.
                Err(SendError::WouldBlock) => {
                    is_full = sent > 0;
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let drain = async {
            for _ in 0..sent {
                assert_eq!(server.recv().await.unwrap().0.len(), 10_000);
            }
        };
        let (flushed, ()) = tokio::join!(client.flush(), drain);
        flushed.unwrap();
        server.close(0, "").await;
        let reason = client.watch_close().await;
        for _ in 0..2 {
            let late = client.try_send("late".into());
            assert_eq!(late, Err(SendError::Closed(reason.clone())));
            assert_eq!(client.flush().await, Err(SendError::Closed(reason.clone())));
        }
    });
}

#[test]
fn an_urgent_message_overtakes_a_large_one() {
    run(async {
        // The receiver's queue is full, so the large message is still in progress.
        let full = MsQuicTransportConfig::new().receive_queue(1);
        let Pair { client, server, .. } = pair_with(full, MsQuicTransportConfig::new()).await;
        client.send(b"fills the queue").await.unwrap();
        client.send_bytes(pattern(60 * MIB)).await.unwrap();
        client.send_urgent("urgent".into()).await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "fills the queue");
        let (first, second) = (server.recv().await.unwrap().0, server.recv().await.unwrap().0);
        assert_eq!(first, "urgent");
        assert_eq!(second.len(), 60 * MIB);
    });
}

#[test]
fn with_several_streams_a_large_message_does_not_delay_small_ones() {
    run(async {
        let several = MsQuicTransportConfig::new().send_streams(4);
        let Pair { client, server, .. } = pair_with(MsQuicTransportConfig::new(), several).await;
        client.send_bytes(pattern(60 * MIB)).await.unwrap();
        for number in 0..100_u8 {
            client.send(&[number]).await.unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..101 {
            seen.push(server.recv().await.unwrap().0);
        }
        assert_ne!(seen[0].len(), 60 * MIB, "small ones waited");
        let mut small: Vec<_> = seen.iter().filter(|it| it.len() == 1).map(|it| it[0]).collect();
        small.sort_unstable();
        assert_eq!(small, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn each_direction_has_its_own_limit() {
    run(async {
        let config = MsQuicTransportConfig::new().max_sent_message(10).max_received_message(20);
        let Pair { client, server, .. } = pair_with(MsQuicTransportConfig::new(), config).await;
        let error = client.send(&[0; 11]).await.unwrap_err();
        assert_eq!(error, SendError::TooLarge { size: 11, limit: 10 });
        server.send(&[0; 20]).await.unwrap();
        assert_eq!(client.recv().await.unwrap().0.len(), 20);
        server.send(&[0; 21]).await.unwrap();
        let error = client.recv().await.unwrap_err();
        assert_eq!(error, RecvError::TooLarge { size: 21, limit: 20 });
    });
}

#[test]
fn a_cancelled_send_is_sent_whole_or_not_at_all() {
    run(async {
        const SIZE: usize = 20_000;
        let small = MsQuicTransportConfig::new().send_queue(SIZE).max_send_queue(SIZE);
        let Pair { client, server, .. } = pair_with(MsQuicTransportConfig::new(), small).await;
        let send = async {
            let mut queued = Vec::new();
            for number in 0..500_u32 {
                let message = [&number.to_be_bytes()[..], &pattern(SIZE)].concat();
                let send = client.send(&message);
                // Some are cancelled at their first wait, some later, some not at all.
                let sent = match number % 3 {
                    0 => futures_util::FutureExt::now_or_never(send),
                    1 => tokio::time::timeout(Duration::from_micros(100), send).await.ok(),
                    _ => Some(send.await),
                };
                if let Some(result) = sent {
                    result.unwrap();
                    queued.push(number);
                }
            }
            client.close(0, "").await;
            queued
        };
        let receive = async {
            let mut received = Vec::new();
            while let Ok((message, _)) = server.recv().await {
                let (number, rest) = message.split_at(4);
                assert!(rest == &*pattern(SIZE));
                received.push(u32::from_be_bytes(number.try_into().unwrap()));
            }
            received
        };
        let (queued, received) = tokio::join!(send, receive);
        // A cancelled message may have been queued; none is truncated, lost or reordered.
        assert!(received.is_sorted_by(|one, next| one < next));
        assert!(queued.iter().all(|number| received.binary_search(number).is_ok()));
    });
}

#[test]
fn a_runtime_that_ends_does_not_keep_streams_from_being_opened() {
    let Pair { client, server, .. } = run(async { pair().await });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(client.try_send("early".into()), Err(SendError::WouldBlock))
    });
    drop(runtime); // with the task that opens the stream
    run(async {
        while client.try_send("late".into()).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.recv().await.unwrap().0, "late");
    });
}
