//! Streams between two peers over loopback.

use super::peers::{Pair, pair, pair_with, pattern, settings};
use crate::executors::{run, run_tokio};
use bytes::Bytes;
use msquic_async::ConnectionError;
use msquic_async::{
    ReadError, ReceiveEnd, ReceiveSink, StreamLimits, StreamType, WriteError, WriteStream,
};
use msquic_async::{ReadToEndError, StreamStartError};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

#[test]
fn echo_both_ways() {
    run(echo);
}

pub(crate) async fn echo() {
    let Pair { client, server, registration, .. } = pair().await;
    for (opener, acceptor) in [(&client, &server), (&server, &client)] {
        let open = async {
            let mut stream =
                opener.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"hello");
        };
        let echo = async {
            let stream = acceptor.accept_inbound_stream().await.unwrap();
            let (Some(mut read), Some(mut write)) = stream.split() else { unreachable!() };
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        };
        futures::future::join(open, echo).await;
    }
    drop((client, server));
    registration.wait_idle().await;
}

async fn transfer(pair: &Pair, data: &Bytes) -> Bytes {
    let write = async {
        let stream =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        let mut write = stream.split().1.unwrap();
        write.write_chunk(data, true).await.unwrap();
        write.finish_write().await.unwrap();
    };
    let read = async {
        let mut read = pair.server.accept_inbound_uni_stream().await.unwrap();
        Bytes::from(read.read_to_end(usize::MAX).await.unwrap())
    };
    futures::future::join(write, read).await.1
}

#[test]
fn all_sizes_arrive_unchanged() {
    run(async || {
        let pair = pair().await;
        for size in [0, 1, 4095, 4096, 100_000, 64 << 20] {
            let data = pattern(size);
            assert!(transfer(&pair, &data).await == data, "{size} bytes");
        }
    });
}

#[test]
fn unbuffered_sends_arrive_unchanged() {
    run(async || {
        let pair = pair_with(settings().send_buffering(false), StreamLimits::default()).await;
        let data = pattern(10 << 20);
        assert!(transfer(&pair, &data).await == data);
    });
}

#[test]
fn many_small_writes_stay_in_order() {
    run(async || {
        let pair = pair().await;
        let write = async {
            let mut stream =
                pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
            for number in 0..200_000_u32 {
                stream.write_all(&number.to_be_bytes()).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        let read = async {
            let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            for number in 0..200_000_u32 {
                assert_eq!(stream.read_u32().await.unwrap(), number);
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        futures::future::join(write, read).await;
    });
}

#[test]
fn partly_filled_read_buffers_keep_what_they_hold() {
    run(async || {
        let pair = pair().await;
        let mut stream =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        stream.write_all(b"world").await.unwrap();
        let mut read = pair.server.accept_inbound_uni_stream().await.unwrap();
        let mut space = [0; 10];
        let mut buffer = tokio::io::ReadBuf::new(&mut space);
        buffer.put_slice(b"hello");
        while buffer.remaining() > 0 {
            poll_fn(|cx| {
                tokio::io::AsyncRead::poll_read(std::pin::Pin::new(&mut read), cx, &mut buffer)
            })
            .await
            .unwrap();
        }
        assert_eq!(buffer.filled(), b"helloworld");
    });
}

#[test]
fn a_slow_reader_stops_the_writer() {
    run_tokio(async || {
        let limits = StreamLimits::new()
            .send_buffer(64 << 10)
            .max_send_buffer(64 << 10)
            .receive_buffer(64 << 10);
        let pair = pair_with(settings().send_buffering(false), limits).await;
        let mut write =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        let chunk = pattern(16 << 10);
        let mut written = 0;
        // 64 KiB queued here, 64 KiB of budget there, and a window in between that msquic doubles a
        // few times while the budget fills.
        let bound = 1 << 20;
        loop {
            let write = write.write_chunk(&chunk, false);
            match tokio::time::timeout(std::time::Duration::from_millis(300), write).await {
                Ok(length) => written += length.unwrap(),
                Err(_) => break,
            }
            assert!(written <= bound, "{written} bytes were taken and none was read");
        }
        let mut read = pair.server.accept_inbound_uni_stream().await.unwrap();
        let (finished, received) =
            futures::future::join(async { write.write_chunk(&chunk, true).await }, async {
                read.read_to_end(usize::MAX).await.unwrap()
            })
            .await;
        finished.unwrap();
        assert_eq!(received.len(), written + chunk.len());
        assert!(received.chunks(chunk.len()).all(|part| part == chunk));
    });
}

#[test]
fn both_sides_learn_the_code_of_an_abort() {
    run(async || {
        let pair = pair().await;
        let mut stream =
            pair.client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut accepted = pair.server.accept_inbound_stream().await.unwrap();

        accepted.abort_read(7).unwrap();
        let stopped = loop {
            if let Err(error) = stream.write_chunk(&"more".into(), false).await {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(stopped, WriteError::Stopped(7));
        assert_eq!(accepted.read_chunk().await, Err(ReadError::Closed));

        accepted.abort_write(9).unwrap();
        assert_eq!(stream.read_chunk().await, Err(ReadError::Reset(9)));
        let closed = accepted.write_chunk(&"more".into(), false).await;
        assert_eq!(closed, Err(WriteError::Closed));
    });
}

#[test]
fn what_arrived_is_read_before_the_loss_is_reported() {
    run(async || {
        let pair = pair().await;
        let mut stream =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        stream.write_all(b"last words").await.unwrap();
        stream.shutdown().await.unwrap(); // acknowledged: all of it has arrived
        let mut second =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        second.write_all(b"unfinished").await.unwrap();
        let unread = pair.server.accept_inbound_uni_stream().await.unwrap();
        let second_read = pair.server.accept_inbound_uni_stream().await.unwrap();
        assert_eq!(&*second_read.read_chunk().await.unwrap().unwrap(), b"unfinished");

        pair.client.shutdown(5, "enough");
        pair.server.watch_shutdown().await;
        assert_eq!(&*unread.read_chunk().await.unwrap().unwrap(), b"last words");
        assert_eq!(unread.read_chunk().await, Ok(None));
        let Err(ReadError::ConnectionLost(ConnectionError::ClosedByPeer { code: 5, .. })) =
            second_read.read_chunk().await
        else {
            panic!("the loss is not reported");
        };
    });
}

#[test]
fn streams_that_arrived_are_accepted_after_the_close() {
    run(async || {
        let pair = pair().await;
        for _ in 0..3 {
            let mut stream =
                pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.shutdown().await.unwrap();
        }
        pair.client.shutdown(1, "");
        pair.server.watch_shutdown().await;
        for _ in 0..3 {
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            assert_eq!(&*stream.read_chunk().await.unwrap().unwrap(), b"x");
        }
        let end = pair.server.accept_inbound_uni_stream().await.map(|_| ());
        assert!(matches!(end, Err(ConnectionError::ClosedByPeer { code: 1, .. })), "{end:?}");
    });
}

#[test]
fn opening_waits_for_the_limit_or_fails_as_asked() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(1), StreamLimits::default()).await;
        let open = |fail| pair.client.open_outbound_stream(StreamType::Unidirectional, fail);
        let mut first = open(true).await.unwrap();
        first.write_all(b"x").await.unwrap();
        assert_eq!(open(true).await.map(|_| ()), Err(StreamStartError::LimitReached));

        // A finished stream that was not accepted gives no credit; accepting and reading it does.
        first.shutdown().await.unwrap();
        assert_eq!(open(true).await.map(|_| ()), Err(StreamStartError::LimitReached));
        let read = async {
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            while stream.read_chunk().await.unwrap().is_some() {}
        };
        let (opened, ()) = futures::future::join(open(false), read).await;
        opened.unwrap();
    });
}

#[test]
fn dropping_a_pending_open_frees_its_place() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(1), StreamLimits::default()).await;
        let open = || pair.client.open_outbound_stream(StreamType::Unidirectional, false);
        let mut first = open().await.unwrap();
        first.write_all(b"x").await.unwrap();
        for _ in 0..20 {
            assert!(futures::poll!(Box::pin(open())).is_pending());
        }
        let accept = pair.server.accept_inbound_uni_stream().await.unwrap();
        drop((first, accept));
        open().await.unwrap();
    });
}

#[test]
fn a_send_stream_confirms_each_message() {
    run(async || {
        let pair = pair().await;
        let send = async {
            let mut stream = pair.client.open_send_stream().await.unwrap();
            for size in [0, 1, 10_000, 3 << 20] {
                stream.send(pattern(size)).await.unwrap();
            }
            poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
            assert_eq!(stream.send("late").await, Err(WriteError::Closed));
        };
        let receive = async {
            let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            let all = stream.read_to_end(usize::MAX).await.unwrap();
            assert_eq!(all.len(), 1 + 10_000 + (3 << 20));
        };
        futures::future::join(send, receive).await;
    });
}

#[test]
fn concurrent_enqueues_never_interleave() {
    run_tokio(async || {
        let pair = pair().await;
        let stream =
            pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        let write = Arc::new(stream.split().1.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16_u8 {
            let write: Arc<WriteStream> = write.clone();
            tasks.spawn(async move {
                for round in 0..100 {
                    let piece = Bytes::from(vec![task; 1000 * (round % 20) + 1]);
                    let header = Bytes::from((piece.len() as u32).to_be_bytes().to_vec());
                    write.enqueue(&[header, piece]).await.unwrap();
                }
            });
        }
        let read = async {
            let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            for _ in 0..16 * 100 {
                let length = stream.read_u32().await.unwrap() as usize;
                let mut piece = vec![0; length];
                stream.read_exact(&mut piece).await.unwrap();
                assert!(piece.iter().all(|byte| *byte == piece[0]));
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        };
        let written = async {
            tasks.join_all().await;
            write.flush().await.unwrap();
            write.finish().unwrap();
        };
        futures::future::join(written, read).await;
    });
}

/// Takes at most `room` bytes, then waits until there is room.
struct LimitedSink(Arc<LimitedState>);

#[derive(Default)]
struct LimitedState {
    taken: Mutex<(Vec<u8>, usize)>,
    full: Notify,
    end: Mutex<Option<ReceiveEnd>>,
    ended: Notify,
}

impl ReceiveSink for LimitedSink {
    fn receive(&mut self, data: &[u8]) -> usize {
        let mut taken = self.0.taken.lock().unwrap();
        let part = data.len().min(taken.1);
        taken.0.extend_from_slice(&data[..part]);
        taken.1 -= part;
        if part < data.len() {
            self.0.full.notify_one();
        }
        part
    }

    fn end(&mut self, end: ReceiveEnd) {
        *self.0.end.lock().unwrap() = Some(end);
        self.0.ended.notify_one();
    }
}

#[test]
fn a_sink_gets_every_byte_once_and_may_pause() {
    run(async || {
        let pair = pair().await;
        let data = pattern(3 << 20);
        let write = async {
            let mut stream =
                pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
            stream.write_all(&data).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let read = async {
            let stream = pair.server.accept_inbound_uni_stream().await.unwrap();
            let state = Arc::new(LimitedState::default());
            assert!(stream.set_sink(Box::new(LimitedSink(state.clone()))).is_ok());
            assert!(stream.set_sink(Box::new(LimitedSink(state.clone()))).is_err());
            let feed = async {
                loop {
                    state.full.notified().await;
                    state.taken.lock().unwrap().1 += 10_007;
                    stream.resume();
                }
            };
            tokio::select! {
                () = feed => {}
                () = state.ended.notified() => {}
            }
            assert_eq!(*state.end.lock().unwrap(), Some(ReceiveEnd::Finished));
            assert!(state.taken.lock().unwrap().0 == data);
        };
        futures::future::join(write, read).await;
    });
}

#[test]
fn a_sink_learns_of_a_reset_and_of_its_own_stop() {
    run(async || {
        let pair = pair().await;
        for stop_here in [false, true] {
            let mut stream =
                pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            let read = pair.server.accept_inbound_uni_stream().await.unwrap();
            let state = Arc::new(LimitedState::default());
            state.taken.lock().unwrap().1 = 100;
            assert!(read.set_sink(Box::new(LimitedSink(state.clone()))).is_ok());
            let expected = if stop_here {
                read.abort_read(3).unwrap();
                ReadError::Closed
            } else {
                stream.abort_write(4).unwrap();
                ReadError::Reset(4)
            };
            state.ended.notified().await;
            assert_eq!(*state.end.lock().unwrap(), Some(ReceiveEnd::Failed(expected)));
        }
    });
}

#[test]
fn the_end_of_each_direction_can_be_awaited_on_its_own() {
    run(async || {
        let pair = pair().await;
        let open = async || {
            let stream =
                pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
            let mut write = stream.split().1.unwrap();
            write.write_chunk(&"x".into(), false).await.unwrap();
            (write, pair.server.accept_inbound_uni_stream().await.unwrap())
        };
        let (mut write, mut read) = open().await;
        let (finished, all) = futures::join!(write.finish_write(), read.read_to_end(1));
        assert_eq!((finished, all), (Ok(()), Ok(b"x".to_vec())));
        assert_eq!(write.stopped().await, Ok(None));
        assert_eq!(read.received_reset().await, Ok(None));

        let (write, read) = open().await;
        let (stopped, ()) = futures::join!(write.stopped(), async { read.abort_read(5).unwrap() });
        assert_eq!(stopped, Ok(Some(5)));
        assert_eq!(read.received_reset().await, Err(ReadError::Closed));

        let (write, read) = open().await;
        let (reset, ()) =
            futures::join!(read.received_reset(), async { write.abort_write(6).unwrap() });
        assert_eq!(reset, Ok(Some(6)));
        assert_eq!(write.stopped().await, Err(WriteError::Closed));

        let (write, mut read) = open().await;
        write.set_priority(0xffff).await.unwrap();
        assert_eq!(read.read_to_end(0).await, Err(ReadToEndError::TooLong { limit: 0 }));
    });
}
