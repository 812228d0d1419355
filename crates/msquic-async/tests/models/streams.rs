//! Writers and readers of a stream, and the thread of its events.

use super::StreamType;
use super::inner::StreamInner;
use crate::connection::{ConnectionError, StreamConnection, StreamCredit};
use crate::ffi::calls::Calls;
use crate::ffi::connection::NativeConnection;
use crate::ffi::receive::Received;
use crate::ffi::stream::{StreamEvent, StreamHandler};
use crate::support::Model;
use crate::waiters::{Place, Waiters};
use crate::{StreamLimits, block_on, bounded_model};
use bytes::Bytes;
use loom::thread;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

pub(crate) const MODELS: &[Model] = &[
    ("each_byte_is_sent_once_and_in_order", each_byte_is_sent_once_and_in_order),
    ("a_completion_makes_room_for_a_writer", a_completion_makes_room_for_a_writer),
    ("the_end_wakes_a_writer_that_waits", the_end_wakes_a_writer_that_waits),
    ("finishing_comes_after_what_was_written", finishing_comes_after_what_was_written),
    ("readers_read_each_byte_once", readers_read_each_byte_once),
    ("a_reader_that_leaves_bytes_wakes_the_next", a_reader_that_leaves_bytes_wakes_the_next),
];

/// The connection of the stream.
struct Connection {
    native: Arc<NativeConnection>,
    limits: StreamLimits,
    queued: Arc<AtomicUsize>,
    credit: Arc<StreamCredit>,
}

impl StreamConnection for Connection {
    fn native(&self) -> &Arc<NativeConnection> {
        &self.native
    }

    fn error(&self) -> Option<ConnectionError> {
        None
    }

    fn is_closing(&self) -> bool {
        false
    }

    fn stream_limits(&self) -> StreamLimits {
        self.limits
    }

    fn queued_bytes(&self) -> &Arc<AtomicUsize> {
        &self.queued
    }

    fn stream_credit(&self, _: StreamType) -> &Arc<StreamCredit> {
        &self.credit
    }

    fn poll_over(&self, _: &Context<'_>) -> Poll<ConnectionError> {
        Poll::Pending
    }

    fn count_opened(&self, _: StreamType) {}

    fn sink_ended(&self, _: u64) {}

    fn close_reason_in_stream_event(&self, _: Calls<'_>) {}
}

/// A stream of the peer, with this many bytes of room in either direction.
pub(super) fn stream(room: usize) -> Arc<StreamInner> {
    let limits = StreamLimits::new().send_buffer(room).max_send_buffer(room).receive_buffer(room);
    let connection = Connection {
        native: Arc::new(NativeConnection),
        limits,
        queued: Arc::default(),
        credit: Arc::default(),
    };
    StreamInner::new(Arc::new(connection), StreamType::Bidirectional, false)
}

pub(super) fn event(stream: &Arc<StreamInner>, event: StreamEvent) {
    stream.on_event(event, Calls(PhantomData));
}

/// Waits as the futures of a stream do.
fn wait<T>(waiters: &Waiters, mut check: impl FnMut() -> Option<T>) -> T {
    let mut place = Place::default();
    block_on(poll_fn(|cx| place.poll_until(waiters, cx, &mut check)))
}

/// Writes, and waits until all is completed.
fn write(stream: &StreamInner, bytes: &'static [u8]) {
    let written = wait(&stream.room, || stream.try_enqueue(&[], &[Bytes::from_static(bytes)]));
    let offset = written.unwrap();
    let mut place = super::progress::Place::default();
    let completed = block_on(poll_fn(|cx| {
        place.poll_until(&stream.progress, offset, cx, || stream.completed(offset))
    }));
    assert_eq!(completed, Ok(()));
}

/// Completes what is sent, until that is `bytes`.
fn complete(stream: &Arc<StreamInner>, bytes: usize) {
    let mut completed = 0;
    loop {
        let sent =
            stream.native.wait(|called| (called.sends > completed).then_some(called.sent.len()));
        completed += 1;
        event(stream, StreamEvent::SendComplete { canceled: false });
        if sent >= bytes && stream.native.record(|called| called.sends == completed) {
            return;
        }
    }
}

fn each_byte_is_sent_once_and_in_order() {
    bounded_model(|| {
        let stream = stream(100);
        let writers = [&b"ab"[..], b"cd"].map(|bytes| {
            let stream = stream.clone();
            thread::spawn(move || write(&stream, bytes))
        });
        complete(&stream, 4);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let sent = stream.native.record(|called| called.sent.clone());
        assert!(sent == b"abcd" || sent == b"cdab", "{sent:?}");
        assert_eq!(stream.pending_writes(), (0, 0));
    });
}

fn a_completion_makes_room_for_a_writer() {
    bounded_model(|| {
        let stream = stream(1);
        let writers = [&b"a"[..], b"b"].map(|bytes| {
            let stream = stream.clone();
            thread::spawn(move || write(&stream, bytes))
        });
        complete(&stream, 2);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let mut sent = stream.native.record(|called| called.sent.clone());
        sent.sort_unstable();
        assert_eq!(sent, b"ab");
    });
}

fn the_end_wakes_a_writer_that_waits() {
    bounded_model(|| {
        let stream = stream(1);
        assert!(stream.try_enqueue(b"a", &[]).is_some());
        let writer = thread::spawn({
            let stream = stream.clone();
            move || wait(&stream.room, || stream.try_enqueue(b"b", &[]))
        });
        let waiter = thread::spawn({
            let stream = stream.clone();
            move || wait(&stream.send_ended, || stream.stopped())
        });
        event(&stream, StreamEvent::PeerReceiveAborted { code: 7 });
        event(&stream, StreamEvent::SendComplete { canceled: true });
        assert!(writer.join().unwrap().is_err());
        assert_eq!(waiter.join().unwrap(), Ok(Some(7)));
        assert_eq!(stream.native.record(|called| called.sends), 1);
    });
}

fn finishing_comes_after_what_was_written() {
    bounded_model(|| {
        let stream = stream(100);
        let writer = thread::spawn({
            let stream = stream.clone();
            move || matches!(stream.try_enqueue(b"ab", &[]), Some(Ok(_)))
        });
        let finisher = thread::spawn({
            let stream = stream.clone();
            move || wait(&stream.send_ended, || stream.try_finish())
        });
        let mut completed = 0;
        while !stream.native.wait(|called| (called.sends > completed).then_some(called.is_finished))
        {
            completed += 1;
            event(&stream, StreamEvent::SendComplete { canceled: false });
        }
        event(&stream, StreamEvent::SendShutdownComplete { graceful: true });
        assert_eq!(finisher.join().unwrap(), Ok(()));
        let was_written = writer.join().unwrap();
        let sent = stream.native.record(|called| called.sent.clone());
        assert_eq!(sent, if was_written { &b"ab"[..] } else { b"" });
    });
}

/// Offers bytes until all are taken, as libmsquic does.
pub(super) fn offer(stream: &Arc<StreamInner>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        stream.native.record(|called| called.is_enabled = false);
        let taken = stream.on_receive(Received { bytes: rest, is_copied: true, is_last: false });
        rest = &rest[taken..];
        if rest.is_empty() {
            return;
        }
        stream.native.wait(|called| called.is_enabled.then_some(()));
    }
}

/// Waits for one byte.
fn read(stream: &StreamInner) -> Option<Bytes> {
    wait(&stream.readable, || stream.try_read(|queue| queue.chunk(1))).unwrap()
}

fn readers_read_each_byte_once() {
    bounded_model(|| {
        let stream = stream(2);
        let readers = [(); 2].map(|()| {
            let stream = stream.clone();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                while let Some(byte) = read(&stream) {
                    bytes.extend_from_slice(&byte);
                }
                bytes
            })
        });
        offer(&stream, b"abc");
        event(&stream, StreamEvent::PeerSendShutdown);
        let read = readers.map(|reader| reader.join().unwrap());
        assert!(read.iter().all(|read| read.is_sorted()), "{read:?}");
        let mut read = read.concat();
        read.sort_unstable();
        assert_eq!(read, b"abc");
    });
}

fn a_reader_that_leaves_bytes_wakes_the_next() {
    bounded_model(|| {
        let stream = stream(2);
        let readers = [(); 2].map(|()| {
            let stream = stream.clone();
            thread::spawn(move || read(&stream).unwrap())
        });
        offer(&stream, b"ab");
        let mut read = readers.map(|reader| reader.join().unwrap());
        read.sort_unstable();
        assert_eq!(read, ["a", "b"]);
    });
}
