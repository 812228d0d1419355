//! Many tasks that wait for the same event: each is served, and none waits forever.

use super::peers::{Pair, pair, pair_with, pattern, settings};
use crate::executors::run;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::task::{ArcWake, waker};
use msquic_async::StreamStartError;
use msquic_async::{
    ConnectionError, ReadError, ReadStream, Stream, StreamLimits, StreamType, WriteError,
    WriteStream,
};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Waits for all futures, each with a waker of its own.
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
fn several_readers_of_a_stream_all_reach_its_end() {
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
fn a_dropped_reader_passes_its_wake_on() {
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
        let limits = StreamLimits::new().send_buffer(1000).max_send_buffer(1000);
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

/// A task's waker, and its memory.
struct Task;

impl ArcWake for Task {
    fn wake_by_ref(_: &Arc<Self>) {}
}

#[test]
fn tasks_that_polled_and_ended_are_not_kept() {
    run(async || {
        let pair = pair().await;
        let mut tasks = Vec::new();
        for _ in 0..20_000 {
            let task = Arc::new(Task);
            let waker = waker(task.clone());
            let cx = &mut Context::from_waker(&waker);
            assert!(pair.listener.poll_accept(cx).is_pending());
            assert!(pair.server.poll_accept_inbound_stream(cx).is_pending());
            assert!(pair.server.poll_accept_inbound_uni_stream(cx).is_pending());
            assert!(pair.server.poll_receive_datagram(cx).is_pending());
            tasks.push(Arc::downgrade(&task));
        }
        let kept = tasks.iter().filter(|task| task.strong_count() > 0).count();
        assert!(kept <= 100, "{kept} tasks are kept");
    });
}

/// Counts the wakes of all futures that are polled with it, and passes them on.
struct Wakes {
    count: AtomicUsize,
    to: Mutex<Option<Waker>>,
}

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.count.fetch_add(1, Ordering::SeqCst);
        let to = wakes.to.lock().unwrap().clone();
        to.inspect(Waker::wake_by_ref);
    }
}

/// How many tasks open streams at once, and how many open streams the peer allows.
const OPENERS: usize = 1000;
const LIMIT: u16 = 10;

#[test]
fn openers_get_their_streams_in_order_and_are_woken_twice() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(LIMIT), StreamLimits::default()).await;
        let all_wakes = AtomicUsize::new(0);
        let opened = Mutex::new(Vec::new());
        let open = |number: usize| -> Waiting<'_, ()> {
            let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
            let (all_wakes, opened) = (&all_wakes, &opened);
            Box::pin(async move {
                let wakes = Arc::new(Wakes { count: AtomicUsize::new(0), to: Mutex::new(None) });
                let waker = waker(wakes.clone());
                let mut open = pin!(open);
                let stream = poll_fn(|cx| {
                    *wakes.to.lock().unwrap() = Some(cx.waker().clone());
                    open.as_mut().poll(&mut Context::from_waker(&waker))
                });
                let stream = stream.await.unwrap();
                all_wakes.fetch_add(wakes.count.load(Ordering::SeqCst), Ordering::SeqCst);
                opened.lock().unwrap().push((stream.id(), number));
                let write = stream.split().1.unwrap();
                write.enqueue(&["x".into()]).await.unwrap();
                poll_fn(|cx| write.poll_finish_write(cx)).await.unwrap();
            })
        };
        let accept = async {
            for _ in 0..OPENERS {
                let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                assert_eq!(stream.read_to_end(1).await.unwrap(), b"x");
            }
        };
        // In a list the futures are polled in order at first.
        futures::join!(all((0..OPENERS).map(open)), accept);
        let mut opened = opened.into_inner().unwrap();
        opened.sort_unstable(); // by the ids of the streams
        // Streams that get credit at the same moment may start in any order.
        for (place, (_, number)) in opened.iter().enumerate() {
            assert!(number.abs_diff(place) <= LIMIT.into(), "opener {number} is in place {place}");
        }
        // By the credit, and by the start.
        let wakes = all_wakes.into_inner();
        assert!(wakes <= 2 * OPENERS, "{wakes} wakes for {OPENERS} openers");
    });
}

#[test]
fn an_aborted_stream_that_waits_for_credit_is_closed() {
    run(async || {
        let pair = pair_with(settings().peer_bidi_streams(1), StreamLimits::default()).await;
        let open = || Stream::open(&pair.client, StreamType::Bidirectional).unwrap();
        let (mut first, mut second, mut third) = (open(), open(), open());
        poll_fn(|cx| first.poll_start(cx, false)).await.unwrap();
        assert!(futures::poll!(poll_fn(|cx| second.poll_start(cx, false))).is_pending());
        assert!(futures::poll!(poll_fn(|cx| third.poll_start(cx, false))).is_pending());
        let early = second.write_chunk(&"early".into(), false).await;
        assert_eq!(early, Err(WriteError::NotStarted));

        second.abort_write(7).unwrap();
        let started = poll_fn(|cx| second.poll_start(cx, false)).await;
        assert_eq!(started, Err(StreamStartError::Closed));
        assert_eq!(second.read_chunk().await, Err(ReadError::Closed));
        assert_eq!(second.write_chunk(&"late".into(), false).await, Err(WriteError::Closed));

        // The answer is not wanted, the stream is.
        third.abort_read(8).unwrap();
        assert_eq!(third.read_chunk().await, Err(ReadError::Closed));
        let blocked = poll_fn(|cx| third.poll_start(cx, true)).await;
        assert_eq!(blocked, Err(StreamStartError::LimitReached), "it can be tried again");
        first.write_chunk(&"x".into(), true).await.unwrap();
        drop(pair.server.accept_inbound_stream().await.unwrap());
        drop(first);
        poll_fn(|cx| third.poll_start(cx, false)).await.unwrap();
        third.write_chunk(&"y".into(), true).await.unwrap();
        let accepted = pair.server.accept_inbound_stream().await.unwrap();
        assert_eq!(&*accepted.read_chunk().await.unwrap().unwrap(), b"y");
        assert_eq!(accepted.split().1.unwrap().stopped().await, Ok(Some(8)));
    });
}

#[test]
fn the_end_of_the_connection_reaches_those_who_wait_for_credit() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(0), StreamLimits::default()).await;
        let open = |_| -> Waiting<'_, _> {
            Box::pin(async {
                let open = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
                open.await.map(drop)
            })
        };
        let close = async { pair.server.shutdown(5, "") };
        let (opened, ()) = futures::join!(all((0..5).map(open)), close);
        for opened in opened {
            let Err(StreamStartError::ConnectionLost(ConnectionError::ClosedByPeer {
                code: 5,
                ..
            })) = opened
            else {
                panic!("{opened:?}");
            };
        }
    });
}

/// Prints how long many openers at once take, and as many one at a time.
#[test]
#[ignore = "prints figures: add --ignored --nocapture, and --release"]
#[expect(clippy::print_stdout, reason = "it prints figures")]
fn figures_of_4000_openers_with_credit_for_10() {
    const OPENERS: usize = 4000;
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(10), StreamLimits::default()).await;
        for at_once in [1, OPENERS, 1, OPENERS, 1, OPENERS] {
            let order = Mutex::new(Vec::new());
            let open = async |number: usize| {
                let stream = pair.client.open_outbound_stream(StreamType::Unidirectional, false);
                let write = stream.await.unwrap().split().1.unwrap();
                order.lock().unwrap().push(number);
                write.enqueue(&["opened".into()]).await.unwrap();
                write.finish().unwrap();
                assert_eq!(write.stopped().await, Ok(None));
            };
            let openers = futures::stream::iter(0..OPENERS).for_each_concurrent(at_once, open);
            let accept = async {
                for _ in 0..OPENERS {
                    let mut stream = pair.server.accept_inbound_uni_stream().await.unwrap();
                    assert_eq!(&stream.read_to_end(10).await.unwrap()[..], b"opened");
                }
            };
            let started = std::time::Instant::now();
            futures::join!(openers, accept);
            let elapsed = started.elapsed();
            let order = order.into_inner().unwrap().into_iter().enumerate();
            let distance = order.map(|(turn, number)| turn.abs_diff(number)).max().unwrap();
            println!("{at_once} at once: {elapsed:?}, at most {distance} places out of order");
        }
    });
}

/// Polls an operation that is repeated for ever, and checks that it gives the thread back.
macro_rules! gives_way {
    ($operation:expr) => {{
        let mut forever: Pin<&mut dyn Future<Output = ()>> = pin!(async {
            loop {
                drop($operation.await);
            }
        });
        assert!(futures::poll!(&mut forever).is_pending());
    }};
}

#[test]
fn operations_that_are_always_ready_let_other_tasks_run() {
    run(async || {
        let pair = pair_with(settings().datagrams(true), StreamLimits::default()).await;
        let (mut write, read) = uni(&pair).await;
        let Pair { listener, client, server, .. } = pair;
        let message = Bytes::from_static(b"message");
        let mut send = client.open_send_stream().await.unwrap();
        client.shutdown(0, "");
        server.watch_shutdown().await;
        listener.stop().await.unwrap();
        gives_way!(listener.accept());
        gives_way!(listener.accept_incoming());
        gives_way!(server.accept_inbound_stream());
        gives_way!(server.accept_inbound_uni_stream());
        gives_way!(server.receive_datagram());
        gives_way!(server.next_change());
        gives_way!(server.open_outbound_stream(StreamType::Bidirectional, false));
        gives_way!(server.send_datagram_wait(&message));
        gives_way!(read.read_chunk());
        gives_way!(write.write_chunk(&message, false));
        gives_way!(write.enqueue(std::slice::from_ref(&message)));
        gives_way!(send.send(message.clone()));
    });
}
