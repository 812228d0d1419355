//! What the tasks of a player have opened and accepted, and what they have found.

use crate::connection::ConnectionInner;
use crate::ffi::scripted::{self, Account};
use crate::ffi::slot::Slotted;
use crate::{
    Connection, ConnectionError, ReadStream, ReceiveEnd, ReceiveSink, SinkStream, Stream,
    WriteStream,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What the tasks have opened and accepted, and found.
#[derive(Default)]
pub(super) struct Handles {
    pub(super) readers: RefCell<Vec<Rc<Reader>>>,
    pub(super) writers: RefCell<Vec<Rc<Writer>>>,
    /// All that were opened and accepted, by number.
    all_readers: RefCell<Vec<(u64, Weak<Reader>)>>,
    all_writers: RefCell<Vec<(u64, Weak<Writer>)>>,
    /// The streams of the peer whose sinks were made for them.
    pub(super) sinks: Arc<Mutex<Vec<PeerSink>>>,
    /// Received bytes that are kept, with their offsets.
    pub(super) chunks: RefCell<Vec<(u64, Bytes)>>,
    /// Those that a listener has accepted, and further ones that were dialled.
    pub(super) accepted: RefCell<Vec<Connection>>,
    /// Why the connection has ended, as the first task found it.
    pub(super) reason: RefCell<Option<ConnectionError>>,
    /// The last datagrams that were received.
    pub(super) datagrams: RefCell<BTreeMap<*const ConnectionInner, u64>>,
}

pub(super) struct Reader {
    pub(super) stream: ReadStream,
    pub(super) read: Cell<u64>,
    /// How many tasks wait for bytes.
    pub(super) reads: Cell<usize>,
    pub(super) is_stopped: Cell<bool>,
    pub(super) sink: Arc<Received>,
}

pub(super) struct Writer {
    pub(super) stream: WriteStream,
    /// What was accepted, with the offsets.
    pub(super) accepted: RefCell<Vec<(u64, Vec<u8>)>>,
    pub(super) writes: Cell<u8>,
    pub(super) is_finished: Cell<bool>,
}

/// What a sink has received.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: AtomicU64,
    pub(super) ends: AtomicUsize,
    pub(super) is_set: AtomicBool,
    pub(super) is_stopped: AtomicBool,
    /// How many bytes it takes at once.
    pub(super) room: AtomicUsize,
}

/// A stream of the peer, and what its sink has received.
type PeerSink = (SinkStream, Arc<Received>);

pub(super) struct Sink {
    pub(super) received: Arc<Received>,
    /// The stream that it stops.
    pub(super) stops: Option<SinkStream>,
}

impl ReceiveSink for Sink {
    fn receive(&mut self, data: &[u8]) -> usize {
        let received = &self.received;
        assert_eq!(received.ends.load(Ordering::SeqCst), 0, "bytes after the end");
        let taken = data.len().min(received.room.load(Ordering::SeqCst));
        let offset = received.bytes.fetch_add(taken as u64, Ordering::SeqCst);
        check(&data[..taken], offset);
        if let Some(stream) = self.stops.take() {
            received.is_stopped.store(true, Ordering::SeqCst);
            stream.stop(1);
        }
        taken
    }

    fn end(&mut self, _: ReceiveEnd) {
        assert_eq!(self.received.ends.fetch_add(1, Ordering::SeqCst), 0, "two ends");
    }
}

/// The bytes are those that the peer has sent from the offset on.
pub(super) fn check(bytes: &[u8], offset: u64) {
    for (byte, offset) in bytes.iter().zip(offset..) {
        assert_eq!(*byte, scripted::byte(offset), "another byte at {offset}");
    }
}

impl Handles {
    pub(super) fn add(&self, stream: Stream) {
        let (read, write) = stream.split();
        self.add_reader(read);
        if let Some(write) = write {
            let id = write.id().expect("it was started");
            let writer = Writer::new(write);
            self.all_writers.borrow_mut().push((id, Rc::downgrade(&writer)));
            self.writers.borrow_mut().push(writer);
        }
    }

    pub(super) fn add_reader(&self, read: Option<ReadStream>) {
        if let Some(read) = read {
            let id = read.id().expect("it was started");
            let reader = Reader::new(read);
            self.all_readers.borrow_mut().push((id, Rc::downgrade(&reader)));
            self.readers.borrow_mut().push(reader);
        }
    }

    /// Records what was read, and may keep it.
    pub(super) fn read(&self, reader: &Reader, chunk: Bytes, keeps: bool) {
        let offset = reader.read.get();
        check(&chunk, offset);
        reader.read.set(offset + chunk.len() as u64);
        if keeps {
            self.chunks.borrow_mut().push((offset, chunk));
        }
    }

    /// Drops the chunk with this number, or a part of it. It has not changed.
    pub(super) fn release(&self, number: usize, part: Option<usize>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.is_empty() {
            return;
        }
        let index = number % chunks.len();
        let (offset, mut chunk) = chunks.swap_remove(index);
        check(&chunk, offset);
        if let Some(part) = part {
            let part = part.min(chunk.len());
            chunks.push((offset + part as u64, chunk.split_off(part)));
        }
    }

    /// Drops all chunks. None has changed.
    pub(super) fn release_all(&self) -> bool {
        let chunks = self.chunks.take();
        chunks.iter().for_each(|(offset, chunk)| check(chunk, *offset));
        !chunks.is_empty()
    }

    /// Streams whose handles were dropped are reset or stopped, and those that have ended are closed, so that the peer
    /// gets credit for others. No chunk is kept.
    pub(super) fn check_streams(&self) {
        let (readers, writers) = (self.all_readers.borrow(), self.all_writers.borrow());
        for (id, writer) in &*writers {
            let Account { is_sending, is_fin_sent, .. } = scripted::account(*id);
            let is_dropped = writer.strong_count() == 0;
            assert!(!is_dropped || !is_sending || is_fin_sent, "a dropped writer resets nothing");
        }
        for (id, reader) in &*readers {
            let is_dropped = reader.strong_count() == 0;
            assert!(
                !is_dropped || !scripted::account(*id).is_receiving,
                "a dropped reader stops nothing"
            );
        }
        let ids = readers.iter().map(|(id, _)| id).chain(writers.iter().map(|(id, _)| id));
        for id in ids {
            if scripted::account(*id).is_complete {
                scripted::wait_until_stream_closed(*id);
            }
        }
    }

    /// The sinks that were made for streams of the peer get all bytes, and the end.
    pub(super) fn check_sinks(&self) {
        let sinks = self.sinks.lock().clone();
        for (stream, received) in sinks {
            let account = scripted::account(stream.id());
            let ends = received.ends.load(Ordering::SeqCst);
            if account.is_receiving {
                assert_eq!((account.left, account.held, ends), (0, 0, 0), "a sink is not resumed");
            } else {
                assert_eq!(ends, 1, "a sink has no end");
            }
            if !received.is_stopped.load(Ordering::SeqCst) {
                let bytes = received.bytes.load(Ordering::SeqCst);
                assert_eq!(bytes, account.received, "bytes are missing in a sink");
            }
            if account.is_complete {
                scripted::wait_until_stream_closed(stream.id());
            }
        }
    }

    /// Resumes all sinks, which take everything from now on.
    pub(super) fn resume_sinks(&self) {
        for reader in &*self.readers.borrow() {
            reader.sink.room.store(usize::MAX, Ordering::SeqCst);
            reader.stream.resume();
        }
        let sinks = self.sinks.lock().clone();
        for (stream, received) in sinks {
            received.room.store(usize::MAX, Ordering::SeqCst);
            stream.resume();
        }
    }

    /// Streams of the peer that wait to be accepted stay open, so that the peer gets no credit for others.
    pub(super) fn check_waiting(&self, connection: usize) {
        let (readers, writers) = (self.all_readers.borrow(), self.all_writers.borrow());
        for (id, is_closed) in scripted::ended_peer_streams(connection) {
            let id = id as u64;
            let has_ended = |(stream, received): &PeerSink| {
                stream.id() == id && received.ends.load(Ordering::SeqCst) > 0
            };
            let is_accepted = readers.iter().any(|(it, _)| *it == id)
                || writers.iter().any(|(it, _)| *it == id)
                || self.sinks.lock().iter().any(has_ended);
            assert!(is_accepted || !is_closed, "a stream is closed before it is accepted");
        }
    }

    /// The error with which a task found the end is that of all.
    pub(super) fn found(&self, error: ConnectionError) {
        if matches!(error, ConnectionError::NotStarted) {
            return;
        }
        let first = &mut *self.reason.borrow_mut();
        match first {
            // The reason phrase of the peer arrives last.
            Some(ConnectionError::ClosedByPeer { code, .. }) => {
                assert!(
                    matches!(error, ConnectionError::ClosedByPeer { code: now, .. } if now == *code)
                );
            }
            Some(first) => assert_eq!(*first, error, "another reason"),
            None => *first = Some(error),
        }
    }
}

impl Reader {
    pub(super) fn new(stream: ReadStream) -> Rc<Self> {
        Rc::new(Self {
            stream,
            read: Cell::new(0),
            reads: Cell::new(0),
            is_stopped: Cell::new(false),
            sink: Arc::default(),
        })
    }
}

/// Counts a task that reads.
pub(super) struct Reading<'a>(&'a Reader);

impl<'a> Reading<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        reader.reads.set(reader.reads.get() + 1);
        Self(reader)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.reads.set(self.0.reads.get() - 1);
    }
}

impl Writer {
    pub(super) fn new(stream: WriteStream) -> Rc<Self> {
        Rc::new(Self {
            stream,
            accepted: RefCell::default(),
            writes: Cell::new(0),
            is_finished: Cell::new(false),
        })
    }

    /// The content of the next write.
    pub(super) fn content(&self, length: usize) -> Vec<u8> {
        self.writes.set(self.writes.get().wrapping_add(1));
        vec![self.writes.get(); length]
    }

    pub(super) fn accept(&self, end: u64, content: Vec<u8>) {
        self.accepted.borrow_mut().push((end - content.len() as u64, content));
    }

    /// What was sent is what was accepted.
    pub(super) fn check(&self) {
        let Some(id) = self.stream.id() else { return };
        let account = scripted::account(id);
        let sent = account.sent;
        assert_eq!(self.stream.completed(), account.completed, "other completions");
        let mut accepted = 0;
        for (offset, content) in &*self.accepted.borrow() {
            let (start, end) = (*offset as usize, *offset as usize + content.len());
            accepted += content.len();
            let sent = &sent[start.min(sent.len())..end.min(sent.len())];
            assert_eq!(sent, &content[..sent.len()], "other bytes at {start}");
        }
        assert!(sent.len() <= accepted, "{} bytes sent of {accepted}", sent.len());
    }
}

impl Reader {
    /// All that has arrived was read.
    pub(super) fn check_end(&self) {
        if self.sink.is_set.load(Ordering::SeqCst) || self.is_stopped.get() {
            return;
        }
        let id = self.stream.id().expect("it has received");
        assert_eq!(self.read.get(), scripted::account(id).received, "bytes are missing");
    }
}

/// The number of the handle; `None` once it is closed.
pub(super) fn number(connection: &Connection) -> Option<usize> {
    connection.inner().native().with(|handle| Ok(handle.addr())).ok()
}
