//! Received bytes that are lent by msquic (zero-copy receive), and returned by other threads.

use super::peers::{Pair, pair_with, pattern, settings};
use crate::executors::{run, run_tokio};
use msquic_async::{ReadError, ReadStream, Settings, StreamLimits, StreamRecvBuffer, StreamType};
use std::future::poll_fn;
use std::sync::mpsc;
use std::thread;

fn held() -> Settings {
    settings().zero_copy_receive(true)
}

/// A thread that drops chunks, two at a time, the later one first.
fn dropper() -> mpsc::Sender<StreamRecvBuffer> {
    let (chunks, queue) = mpsc::channel::<StreamRecvBuffer>();
    thread::spawn(move || {
        while let Ok(first) = queue.recv() {
            drop(queue.try_recv());
            drop(first);
        }
    });
    chunks
}

/// Reads one message of `length` bytes and lets others drop its chunks.
async fn read(stream: &mut ReadStream, expected: &[u8], drop: &mpsc::Sender<StreamRecvBuffer>) {
    let mut start = 0;
    while start < expected.len() {
        let chunk = stream.read_chunk().await.unwrap().unwrap();
        assert!(*chunk == expected[start..start + chunk.len()]);
        start += chunk.len();
        drop.send(chunk).unwrap();
    }
}

/// Messages go to and fro on one stream.
async fn ping_pong(messages: usize) {
    let Pair { client, server, registration, .. } =
        pair_with(held(), StreamLimits::default()).await;
    let message = pattern(100);
    let ping = async {
        let open = client.open_outbound_stream(StreamType::Bidirectional, false);
        let (Some(mut stream), Some(mut write)) = open.await.unwrap().split() else {
            unreachable!()
        };
        let chunks = dropper();
        for _ in 0..messages {
            write.write_chunk(&message, false).await.unwrap();
            read(&mut stream, &message, &chunks).await;
        }
        write.finish_write().await.unwrap();
        assert_eq!(stream.read_chunk().await, Ok(None));
    };
    let pong = async {
        let stream = server.accept_inbound_stream().await.unwrap();
        let (Some(mut stream), Some(mut write)) = stream.split() else { unreachable!() };
        let chunks = dropper();
        for _ in 0..messages {
            read(&mut stream, &message, &chunks).await;
            write.write_chunk(&message, false).await.unwrap();
        }
        assert_eq!(stream.read_chunk().await, Ok(None));
        write.finish_write().await.unwrap();
    };
    futures::future::join(ping, pong).await;
    drop((client, server));
    registration.wait_idle().await;
}

#[test]
fn messages_to_and_fro_never_stall() {
    run(async || ping_pong(1000).await);
}

#[test]
#[ignore = "takes minutes"]
fn very_many_messages_to_and_fro_never_stall() {
    run_tokio(async || {
        let pairs = (0..3).map(|_| ping_pong(100_000));
        futures::future::join_all(pairs).await;
    });
}

/// The memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "measures the memory of the process, so it has to run alone"]
fn memory_is_flat_when_chunks_are_dropped() {
    run_tokio(async || {
        let pair = pair_with(held(), StreamLimits::default()).await;
        let data = pattern(60_000);
        let mut before = 0;
        for round in 0..4000 {
            if round == 1000 {
                before = resident();
            }
            let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
            let mut write = open.await.unwrap().split().1.unwrap();
            write.write_chunk(&data, true).await.unwrap();
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            let mut chunks = Vec::new();
            let mut length = 0;
            while length < data.len() {
                chunks.push(stream.read_chunk().await.unwrap().unwrap());
                length += chunks.last().unwrap().len();
            }
            // The stream goes before its chunks, and these from the last to the first.
            drop(stream);
            while chunks.pop().is_some() {}
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes more after 3000 streams");
    });
}

#[test]
fn bytes_that_other_threads_drop_arrive_whole() {
    run(async || {
        let pair = pair_with(held(), StreamLimits::default()).await;
        let data = pattern(2_000_000);
        let send = async {
            let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
            let mut write = open.await.unwrap().split().1.unwrap();
            write.write_chunk(&data, true).await.unwrap();
            write.finish_write().await.unwrap();
        };
        let receive = async {
            let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            read(&mut stream, &data, &dropper()).await;
            assert_eq!(stream.read_chunk().await, Ok(None));
        };
        futures::future::join(send, receive).await;
    });
}

#[test]
fn unread_bytes_outlive_their_connection_without_keeping_it_open() {
    run(async || {
        let Pair { client, server, listener, registration } =
            pair_with(held(), StreamLimits::default()).await;
        let data = pattern(1000);
        let open = client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap().split().1.unwrap();
        write.write_chunk(&data, false).await.unwrap();
        let stream = server.accept_inbound_uni_stream().await.unwrap();
        let mut received = vec![0];
        assert_eq!(poll_fn(|cx| stream.poll_read(cx, &mut received)).await, Ok(1));
        registration.shutdown(1);
        registration.wait_idle().await;
        let error = loop {
            match stream.read_chunk().await {
                Ok(chunk) => received.extend_from_slice(&chunk.expect("the stream has no end")),
                Err(error) => break error,
            }
        };
        assert!(received == data[..received.len()]);
        assert!(matches!(error, ReadError::ConnectionLost(_)), "{error:?}");
        drop((client, server, listener, write));
    });
}

#[test]
fn chunks_outlive_stream_connection_and_registration() {
    run(async || {
        let Pair { client, server, listener, registration } =
            pair_with(held(), StreamLimits::default()).await;
        let data = pattern(1000);
        let open = client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut write = open.await.unwrap().split().1.unwrap();
        write.write_chunk(&data, false).await.unwrap();
        let stream = server.accept_inbound_uni_stream().await.unwrap();
        let chunk = stream.read_chunk().await.unwrap().unwrap();
        drop((write, stream));
        client.shutdown(0, "");
        server.watch_shutdown().await;
        client.watch_shutdown().await;
        drop((client, server, listener, registration));
        assert!(*chunk == data[..chunk.len()]);
        thread::spawn(move || drop(chunk)).join().unwrap();
    });
}
