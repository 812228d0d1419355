//! Many tasks that wait for the same thing: each gets its turn, and none waits for ever.

use super::peers::{Pair, pair, pair_with, pattern, settings};
use crate::executors::run;
use futures::stream::{FuturesUnordered, StreamExt};
use msquic_async::{ReadError, ReadStream, StreamLimits, StreamType, WriteError, WriteStream};
use std::future::poll_fn;
use std::pin::Pin;

type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Waits for all, each with a waker of its own.
async fn all<T>(waiting: impl IntoIterator<Item = Waiting<'_, T>>) -> Vec<T> {
    waiting.into_iter().collect::<FuturesUnordered<_>>().collect().await
}

async fn uni(pair: &Pair) -> (WriteStream, ReadStream) {
    let stream = pair.client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
    let write = stream.split().1.unwrap();
    write.enqueue(&["x".into()]).await.unwrap();
    let read = pair.server.accept_inbound_uni_stream().await.unwrap();
    assert_eq!(&*read.read_chunk().await.unwrap().unwrap(), b"x");
    (write, read)
}

#[test]
fn several_readers_of_a_stream_all_come_to_its_end() {
    run(async || {
        let pair = pair().await;
        let (write, read) = uni(&pair).await;
        let chunks = async || {
            let mut bytes = 0;
            while let Some(chunk) = read.read_chunk().await.unwrap() {
                bytes += chunk.len();
            }
            bytes
        };
        let polled = async || {
            let mut bytes = 0;
            let mut buffer = [0; 7];
            loop {
                match poll_fn(|cx| read.poll_read(cx, &mut buffer)).await.unwrap() {
                    0 => return bytes,
                    length => bytes += length,
                }
            }
        };
        let readers: [Waiting<'_, usize>; 4] =
            [Box::pin(chunks()), Box::pin(chunks()), Box::pin(polled()), Box::pin(polled())];
        let send = async {
            for _ in 0..100 {
                write.enqueue(&[pattern(100)]).await.unwrap();
                write.flush().await.unwrap();
            }
            write.finish().unwrap();
        };
        let (bytes, ()) = futures::join!(all(readers), send);
        assert_eq!(bytes.iter().sum::<usize>(), 100 * 100);
        assert_eq!(read.read_chunk().await, Ok(None));
    });
}

#[test]
fn a_reader_that_leaves_passes_its_turn_on() {
    run(async || {
        let pair = pair().await;
        let (write, read) = uni(&pair).await;
        let mut first = Box::pin(read.read_chunk());
        let mut second = Box::pin(read.read_chunk());
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        write.enqueue(&["y".into()]).await.unwrap();
        write.finish().unwrap();
        assert_eq!(write.stopped().await, Ok(None)); // it has arrived: the first was woken
        drop(first);
        assert_eq!(&*second.await.unwrap().unwrap(), b"y");
    });
}

#[test]
fn several_writers_of_a_full_stream_all_get_room() {
    run(async || {
        let limits =
            StreamLimits { send_buffer: 1000, max_send_buffer: 1000, ..StreamLimits::default() };
        let pair = pair_with(settings().send_buffering(false), limits).await;
        let (write, mut read) = uni(&pair).await;
        let chunk = pattern(5000);
        let polled = async || {
            for _ in 0..50 {
                poll_fn(|cx| write.poll_write_chunk(cx, &chunk, false)).await.unwrap();
            }
        };
        let queued = async || {
            for _ in 0..50 {
                write.enqueue(std::slice::from_ref(&chunk)).await.unwrap();
            }
        };
        let writers: [Waiting<'_, ()>; 4] =
            [Box::pin(polled()), Box::pin(queued()), Box::pin(polled()), Box::pin(queued())];
        let write_all = async {
            all(writers).await;
            let finish =
                |_| -> Waiting<'_, _> { Box::pin(poll_fn(|cx| write.poll_finish_write(cx))) };
            assert_eq!(all((0..3).map(finish)).await, vec![Ok(()); 3]);
        };
        let (received, ()) = futures::join!(read.read_to_end(usize::MAX), write_all);
        assert_eq!(received.unwrap().len(), 4 * 50 * 5000);
    });
}

#[test]
fn several_waiters_learn_of_an_abort() {
    run(async || {
        let pair = pair().await;
        let (write, read) = uni(&pair).await;
        let reset = |_| -> Waiting<'_, _> {
            Box::pin(async { (read.read_chunk().await.map(drop), read.received_reset().await) })
        };
        let stopped = |_| -> Waiting<'_, _> { Box::pin(write.stopped()) };
        let abort = async { write.abort_write(7).unwrap() };
        let (resets, stopped, ()) =
            futures::join!(all((0..3).map(reset)), all((0..3).map(stopped)), abort);
        assert_eq!(resets, vec![(Err(ReadError::Reset(7)), Ok(Some(7))); 3]);
        assert_eq!(stopped, vec![Err(WriteError::Closed); 3]);
    });
}

#[test]
fn several_tasks_accept_by_polling() {
    run(async || {
        let pair = pair().await;
        let bidi = |_| -> Waiting<'_, _> {
            Box::pin(async {
                let accepted = poll_fn(|cx| pair.server.poll_accept_inbound_stream(cx)).await;
                accepted.map(|stream| stream.id()).is_ok()
            })
        };
        let uni = |_| -> Waiting<'_, _> {
            Box::pin(async {
                let accepted = poll_fn(|cx| pair.server.poll_accept_inbound_uni_stream(cx)).await;
                accepted.map(|stream| stream.id()).is_ok()
            })
        };
        let open = async {
            for stream_type in [StreamType::Bidirectional, StreamType::Unidirectional] {
                for _ in 0..3 {
                    let open = pair.client.open_outbound_stream(stream_type, false);
                    let mut stream = open.await.unwrap();
                    stream.write_chunk(&"x".into(), true).await.unwrap();
                    poll_fn(|cx| stream.poll_finish_write(cx)).await.unwrap();
                }
            }
            pair.client.shutdown(0, "");
        };
        let waiting = (0..5).map(bidi).chain((0..5).map(uni));
        let (accepted, ()) = futures::join!(all(waiting), open);
        assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 3 + 3);
    });
}
