//! Plays events and calls in an order that bytes choose, with a script instead of libmsquic. For the fuzz target
//! `events`; not for applications.
//!
//! The bytes choose events of a connection and of its streams, calls, polls, and drops of futures and handles. What is
//! promised is checked: bytes are read and sent once and in order, each task that waits is woken, all tasks end with
//! the connection and find the same reason, and each handle is closed.

use crate::ffi::scripted::{self, ConnectionStep, FINAL, SENT, StreamStep};
use crate::{
    Configuration, Connection, ConnectionError, ConnectionStartError, DatagramLimits, Listener,
    NetCredential, ReadStream, ReceiveEnd, ReceiveSink, Registration, Settings, Status, Stream,
    StreamType, WriteStream,
};
use bytes::Bytes;
use futures_util::task::{ArcWake, waker};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;

/// Plays what the bytes choose.
///
/// # Panics
///
/// If something that is promised does not hold.
pub fn play(credential: &NetCredential, bytes: &[u8]) {
    static SETUP: OnceLock<(Registration, Configuration, Configuration)> = OnceLock::new();
    scripted::install();
    let (registration, configuration, server) = SETUP.get_or_init(|| {
        let registration = Registration::new("events").expect("the script opens it");
        let settings = Settings::new().datagrams(true);
        let configuration =
            Configuration::client(&registration, &["events"], &settings, credential)
                .expect("the script opens it");
        let server = Configuration::server(&registration, &["events"], &settings, credential)
            .expect("the script opens it");
        (registration, configuration, server)
    });
    let limits = crate::StreamLimits::new().send_buffer(64).max_send_buffer(256).receive_buffer(64);
    let datagrams = DatagramLimits::new().send_queue(600).in_flight(1).receive_queue(600);
    let connection = Connection::new(registration, credential.clone()).expect("a connection");
    let mut player = Player {
        bytes: bytes.iter(),
        credential,
        configuration: configuration
            .clone()
            .with_stream_limits(limits)
            .with_datagram_limits(datagrams),
        connection: Some(connection),
        registration,
        server: server.clone().with_stream_limits(limits).with_datagram_limits(datagrams),
        listener: None,
        tasks: Vec::new(),
        handles: Rc::default(),
        datagrams: 0,
    };
    if player.next() >= ESTABLISH {
        player.establish();
    }
    while let Some(step) = player.bytes.next() {
        player.step(*step);
    }
    player.end();
}

struct Player<'a> {
    bytes: std::slice::Iter<'a, u8>,
    credential: &'a NetCredential,
    configuration: Configuration,
    connection: Option<Connection>,
    registration: &'a Registration,
    server: Configuration,
    listener: Option<Rc<Listener>>,
    tasks: Vec<Task>,
    handles: Rc<Handles>,
    /// How many were indicated.
    datagrams: u64,
}

/// A future and whether it was woken.
struct Task {
    name: &'static str,
    future: Pin<Box<dyn Future<Output = ()>>>,
    is_woken: Arc<Woken>,
}

impl Task {
    fn new(name: &'static str, future: impl Future<Output = ()> + 'static) -> Self {
        let is_woken = Arc::new(Woken(AtomicBool::new(true)));
        Self { name, future: Box::pin(future), is_woken }
    }
}

struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::SeqCst);
    }
}

/// What the tasks have opened and accepted, and found.
#[derive(Default)]
struct Handles {
    readers: RefCell<Vec<Rc<Reader>>>,
    writers: RefCell<Vec<Rc<Writer>>>,
    /// By a listener.
    accepted: RefCell<Vec<Connection>>,
    /// Why the connection has ended, as the first task found it.
    reason: RefCell<Option<ConnectionError>>,
    /// The last datagram that was received.
    datagram: Cell<u64>,
}

struct Reader {
    stream: ReadStream,
    read: Cell<u64>,
    /// How many tasks wait for bytes.
    reads: Cell<usize>,
    is_stopped: Cell<bool>,
    sink: Arc<Received>,
}

struct Writer {
    stream: WriteStream,
    /// What was accepted, with the offsets.
    accepted: RefCell<Vec<(u64, Vec<u8>)>>,
    writes: Cell<u8>,
}

/// What a sink has received.
#[derive(Default)]
struct Received {
    bytes: AtomicU64,
    ends: AtomicUsize,
    is_set: AtomicBool,
    /// How many bytes it takes at once.
    room: AtomicUsize,
}

struct Sink(Arc<Received>);

impl ReceiveSink for Sink {
    fn receive(&mut self, data: &[u8]) -> usize {
        assert_eq!(self.0.ends.load(Ordering::SeqCst), 0, "bytes after the end");
        let taken = data.len().min(self.0.room.load(Ordering::SeqCst));
        let offset = self.0.bytes.fetch_add(taken as u64, Ordering::SeqCst);
        check(&data[..taken], offset);
        taken
    }

    fn end(&mut self, _: ReceiveEnd) {
        assert_eq!(self.0.ends.fetch_add(1, Ordering::SeqCst), 0, "two ends");
    }
}

/// The bytes are those that the peer has sent from the offset on.
fn check(bytes: &[u8], offset: u64) {
    for (byte, offset) in bytes.iter().zip(offset..) {
        assert_eq!(*byte, scripted::byte(offset), "another byte at {offset}");
    }
}

impl Handles {
    fn add(&self, stream: Stream) {
        let (read, write) = stream.split();
        self.readers.borrow_mut().extend(read.map(Reader::new));
        self.writers.borrow_mut().extend(write.map(Writer::new));
    }

    /// The error with which a task found the end is that of all.
    fn found(&self, error: ConnectionError) {
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
    fn new(stream: ReadStream) -> Rc<Self> {
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
struct Reading<'a>(&'a Reader);

impl<'a> Reading<'a> {
    fn new(reader: &'a Reader) -> Self {
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
    fn new(stream: WriteStream) -> Rc<Self> {
        Rc::new(Self { stream, accepted: RefCell::default(), writes: Cell::new(0) })
    }

    /// The content of the next write.
    fn content(&self, length: usize) -> Vec<u8> {
        self.writes.set(self.writes.get().wrapping_add(1));
        vec![self.writes.get(); length]
    }

    fn accept(&self, end: u64, content: Vec<u8>) {
        self.accepted.borrow_mut().push((end - content.len() as u64, content));
    }

    /// What was sent is what was accepted.
    fn check(&self) {
        let Some(id) = self.stream.id() else { return };
        let sent = scripted::account(id).sent;
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

impl Player<'_> {
    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// Establishes the connection, accepts streams of the peer, and gets credit for others.
    fn establish(&mut self) {
        let connection = self.connection.clone().expect("it was just opened");
        let start = connection.start(&self.configuration, "127.0.0.1", 4433);
        self.spawn("start", async move { drop(start.await) });
        self.run();
        let certificate = self.credential.certificate_chain()[0].to_vec();
        for id in scripted::connections() {
            scripted::connection(id, ConnectionStep::Certificate(certificate.clone()));
            scripted::connection(id, ConnectionStep::Connected);
            scripted::connection(id, ConnectionStep::StreamsAvailable(3, 3));
            scripted::connection(id, ConnectionStep::DatagramState(Some(200)));
        }
        self.run();
        self.accept_streams(connection);
    }

    fn accept_streams(&mut self, connection: Connection) {
        let (handles, other) = (self.handles.clone(), connection.clone());
        self.spawn("accept_inbound_stream", async move {
            while let Ok(stream) = connection.accept_inbound_stream().await {
                handles.add(stream);
            }
        });
        let handles = self.handles.clone();
        self.spawn("accept_inbound_uni_stream", async move {
            while let Ok(stream) = other.accept_inbound_uni_stream().await {
                handles.readers.borrow_mut().push(Reader::new(stream));
            }
        });
    }

    fn step(&mut self, step: u8) {
        match step % 8 {
            0 => self.connection_event(),
            1 | 2 => self.stream_event(),
            3 => self.connection_call(),
            4 => self.read_call(),
            5 => self.write_call(),
            6 => self.run(),
            _ => self.disturb(),
        }
    }

    fn connection_event(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let connections = scripted::connections();
        if connections.is_empty() {
            return;
        }
        let id = connections[usize::from(which) % connections.len()];
        let step = match choice % 15 {
            0 => {
                let chain = self.credential.certificate_chain();
                ConnectionStep::Certificate(if value == 0 { vec![] } else { chain[0].to_vec() })
            }
            1 => ConnectionStep::Connected,
            2 => ConnectionStep::StreamsAvailable((value & 3).into(), (value >> 2 & 3).into()),
            3 => ConnectionStep::DatagramState((value > 0).then_some(value.into())),
            4 => {
                let number = self.datagrams + 1;
                if scripted::connection(id, ConnectionStep::Datagram(number.to_be_bytes().to_vec()))
                {
                    self.datagrams = number;
                }
                return;
            }
            5 => ConnectionStep::DatagramSent((value & 7).into(), SENT),
            6 => {
                ConnectionStep::DatagramSent((value & 7).into(), FINAL[usize::from(value >> 3) % 3])
            }
            7 => ConnectionStep::DatagramSent((value & 7).into(), scripted::CANCELED),
            8 | 9 => ConnectionStep::PeerStream { unidirectional: value & 1 == 0 },
            10 => ConnectionStep::PeerAddress,
            11 => ConnectionStep::ShutdownByPeer(value.into()),
            12 => {
                scripted::attempt();
                return;
            }
            13 => ConnectionStep::ShutdownByTransport(Status::CONNECTION_IDLE),
            _ => ConnectionStep::Complete,
        };
        scripted::connection(id, step);
    }

    fn stream_event(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let streams = scripted::streams();
        if streams.is_empty() {
            return;
        }
        let step = match choice % 12 {
            0 => StreamStep::Start(match value {
                0 => Status::STREAM_LIMIT_REACHED,
                1 => Status::OUT_OF_MEMORY,
                _ => Status::SUCCESS,
            }),
            1 | 2 => StreamStep::SendComplete { canceled: value == 0 },
            3 => StreamStep::IdealSendBuffer(u64::from(value) << 2),
            4..=6 => StreamStep::Receive(value.into()),
            7 => StreamStep::PeerSendShutdown,
            8 => StreamStep::PeerSendAborted(value.into()),
            9 => StreamStep::PeerReceiveAborted(value.into()),
            10 => StreamStep::SendShutdownComplete,
            _ => StreamStep::Complete,
        };
        scripted::stream(streams[usize::from(which) % streams.len()], step);
    }

    fn spawn(&mut self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        if self.tasks.len() < MAX_TASKS {
            self.tasks.push(Task::new(name, future));
        }
    }

    fn connection_call(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let handles = self.handles.clone();
        if choice % 20 >= 16 {
            return self.listener_call(choice % 20);
        }
        let all: Vec<_> =
            self.connection.iter().chain(&*handles.accepted.borrow()).cloned().collect();
        if all.is_empty() {
            return;
        }
        let index = usize::from(which) % all.len();
        let connection = all[index].clone();
        // The reason is kept for one connection.
        let is_first = index == 0 && self.connection.is_some();
        let stream_type =
            if value & 1 == 0 { StreamType::Unidirectional } else { StreamType::Bidirectional };
        match choice % 20 {
            0 => {
                let start = connection.start(&self.configuration, "127.0.0.1", 4433);
                self.spawn("start", async move { drop(start.await) });
            }
            1 => self.spawn("accept", async move {
                if let Err(ConnectionStartError::ConnectionLost(error)) = connection.accept().await
                    && is_first
                {
                    handles.found(error);
                }
            }),
            2 => self.spawn("watch_shutdown", async move {
                let error = connection.watch_shutdown().await;
                if is_first {
                    handles.found(error);
                }
            }),
            3 => self.spawn("receive_remote_certificate", async move {
                drop(connection.receive_remote_certificate().await);
            }),
            4 | 5 => self.spawn("open", async move {
                let fails = value & 2 != 0;
                if let Ok(stream) = connection.open_outbound_stream(stream_type, fails).await {
                    handles.add(stream);
                }
            }),
            6 | 7 => self.accept_streams(connection),
            8 => self.spawn("receive_datagram", async move {
                while let Ok(datagram) = connection.receive_datagram().await {
                    let number = u64::from_be_bytes(datagram[..].try_into().expect("a number"));
                    assert!(number > handles.datagram.replace(number), "received twice");
                }
            }),
            9 => drop(connection.send_datagram(&Bytes::from(vec![value; value.into()]))),
            10 => self.spawn("send_datagram_wait", async move {
                drop(connection.send_datagram_wait(&Bytes::from(vec![value; value.into()])).await);
            }),
            11 => {
                if let Ok(track) = connection.send_datagram_tracked(&Bytes::from(vec![value; 8])) {
                    self.spawn("track", async move { _ = track.await });
                }
            }
            12 => {
                self.spawn(
                    "next_change",
                    async move { while connection.next_change().await.is_ok() {} },
                )
            }
            13 => self.spawn("address_changed", async move {
                while connection.address_changed().await.is_ok() {}
            }),
            14 if value > 100 => connection.shutdown(value.into(), ""),
            15 if value > 200 => self.connection = None,
            _ => {}
        }
    }

    fn listener_call(&mut self, choice: u8) {
        if choice == 16 && self.listener.is_none() {
            let (configuration, credential) = (self.server.clone(), self.credential.clone());
            let listener = Listener::new(self.registration, configuration, credential)
                .expect("the configuration is of the registration");
            listener.set_backlog(2);
            let _ = listener.start(&["events"], Some(([127, 0, 0, 1], 0).into()));
            self.listener = Some(Rc::new(listener));
        }
        let (Some(listener), handles) = (self.listener.clone(), self.handles.clone()) else {
            return;
        };
        match choice {
            17 => self.spawn(LISTENER, async move {
                while let Ok(connection) = listener.accept().await {
                    handles.accepted.borrow_mut().push(connection);
                }
            }),
            18 => self.spawn(LISTENER, async move { _ = listener.stop().await }),
            19 => {
                self.tasks.retain(|task| task.name != LISTENER);
                self.listener = None;
            }
            _ => {}
        }
    }

    /// Stops the listener, which ends the tasks that wait for it.
    fn stop_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.tasks.push(Task::new(LISTENER, async move { _ = listener.stop().await }));
        }
        self.run();
        scripted::wait_for_stop();
        self.run();
        assert!(self.tasks.iter().all(|task| task.name != LISTENER), "a task waits for a listener");
    }

    fn read_call(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let readers = self.handles.readers.borrow();
        if readers.is_empty() {
            return;
        }
        let index = usize::from(which) % readers.len();
        let reader = readers[index].clone();
        drop(readers);
        match choice % 8 {
            0 | 1 => self.spawn("read", async move {
                let _reading = Reading::new(&reader);
                loop {
                    match reader.stream.read_chunk().await {
                        Ok(Some(chunk)) => {
                            let offset = reader.read.get();
                            check(&chunk, offset);
                            reader.read.set(offset + chunk.len() as u64);
                        }
                        Ok(None) => {
                            reader.check_end();
                            return;
                        }
                        Err(_) => return,
                    }
                }
            }),
            2 => self.spawn("poll_read_chunk", async move {
                let _reading = Reading::new(&reader);
                let read = if value & 1 == 0 {
                    poll_fn(|cx| reader.stream.poll_read_chunk(cx)).await
                } else {
                    reader.stream.read_chunk().await
                };
                if let Ok(Some(chunk)) = read {
                    let offset = reader.read.get();
                    check(&chunk, offset);
                    reader.read.set(offset + chunk.len() as u64);
                }
            }),
            3 => self.spawn("received_reset", async move {
                drop(reader.stream.received_reset().await);
            }),
            4 => {
                let offset = reader.read.get();
                let sink = reader.sink.clone();
                if !sink.is_set.swap(true, Ordering::SeqCst) {
                    sink.bytes.store(offset, Ordering::SeqCst);
                    sink.room.store(value.into(), Ordering::SeqCst);
                    assert!(reader.stream.set_sink(Box::new(Sink(sink))).is_ok());
                }
            }
            5 => {
                reader.sink.room.store(value.into(), Ordering::SeqCst);
                reader.stream.resume();
            }
            6 if value > 100 => {
                let _ = reader.stream.abort_read(value.into());
                reader.is_stopped.set(true);
            }
            7 => _ = self.handles.readers.borrow_mut().remove(index),
            _ => {}
        }
    }

    fn write_call(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let writers = self.handles.writers.borrow();
        if writers.is_empty() {
            return;
        }
        let index = usize::from(which) % writers.len();
        let writer = writers[index].clone();
        drop(writers);
        match choice % 10 {
            0 | 1 => self.spawn("enqueue", async move {
                let content = writer.content(value.into());
                let chunk = [Bytes::from(content.clone())];
                if let Ok(end) = writer.stream.enqueue(&chunk).await {
                    writer.accept(end, content);
                }
            }),
            2 | 3 => {
                let content = writer.content(value.into());
                let chunk = [Bytes::from(content.clone())];
                if let Ok(Some(end)) = writer.stream.try_enqueue(&[], &chunk) {
                    writer.accept(end, content);
                }
            }
            4 => self.spawn("flush", async move {
                drop(writer.stream.flush().await);
            }),
            5 => self.spawn("stopped", async move {
                drop(writer.stream.stopped().await);
            }),
            6 => drop(writer.stream.finish()),
            7 => self.spawn("poll_finish_write", async move {
                if poll_fn(|cx| writer.stream.poll_finish_write(cx)).await.is_ok() {
                    let id = writer.stream.id().expect("it was started");
                    assert!(scripted::account(id).is_fin_acknowledged, "it is not acknowledged");
                }
            }),
            8 if value > 100 => drop(writer.stream.abort_write(value.into())),
            9 if value > 100 => {
                writer.check();
                self.handles.writers.borrow_mut().remove(index);
            }
            _ => {}
        }
    }

    /// Polls the tasks that were woken, until none is.
    fn run(&mut self) {
        let mut rounds = 0;
        loop {
            let mut was_woken = false;
            for index in (0..self.tasks.len()).rev() {
                let task = &mut self.tasks[index];
                if !task.is_woken.0.swap(false, Ordering::SeqCst) {
                    continue;
                }
                was_woken = true;
                let waker = waker(task.is_woken.clone());
                if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    drop(self.tasks.swap_remove(index));
                }
            }
            if !was_woken {
                return;
            }
            rounds += 1;
            assert!(rounds < MAX_ROUNDS, "tasks wake each other without end");
        }
    }

    /// Drops a task, polls one with another waker, or has the next call fail.
    fn disturb(&mut self) {
        let (choice, which) = (self.next(), self.next());
        if choice % 4 == 3 {
            return scripted::fail_next(which & 1 == 0);
        }
        if self.tasks.is_empty() {
            return;
        }
        let index = usize::from(which) % self.tasks.len();
        if choice % 4 == 0 {
            drop(self.tasks.swap_remove(index));
        } else {
            self.tasks[index].is_woken = Arc::new(Woken(AtomicBool::new(true)));
        }
    }

    /// Ends the connection, and then all tasks.
    fn end(mut self) {
        scripted::fail_next(false);
        self.stop_listener();
        self.settle();
        if let Some(connection) = &self.connection {
            connection.shutdown(3, "");
        }
        self.end_connection();
        if self.connection.is_none() && !scripted::connections().is_empty() {
            // It was not started, and only tasks have it, which may wait for ever.
            self.tasks.clear();
            self.end_connection();
        }
        for reader in &*self.handles.readers.borrow() {
            reader.sink.room.store(usize::MAX, Ordering::SeqCst);
            reader.stream.resume();
            if reader.sink.is_set.load(Ordering::SeqCst) {
                assert_eq!(reader.sink.ends.load(Ordering::SeqCst), 1, "a sink without an end");
            }
        }
        self.handles.writers.borrow().iter().for_each(|writer| writer.check());
        let waiting: Vec<_> = self.tasks.iter().map(|task| task.name).collect();
        assert!(waiting.is_empty(), "tasks wait after the end: {waiting:?}");
        let handles = std::mem::take(&mut self.handles);
        drop((self, handles));
        scripted::reset();
    }
}

impl Player<'_> {
    /// On a connection that goes on, everything that is written is sent, and everything that arrives is read.
    fn settle(&mut self) {
        for reader in &*self.handles.readers.borrow() {
            reader.sink.room.store(usize::MAX, Ordering::SeqCst);
            reader.stream.resume();
        }
        self.run();
        self.settle_streams();
        if !scripted::is_connected() {
            return;
        }
        // Each gets its credit.
        for _ in 0..MAX_TASKS {
            for id in scripted::connections() {
                scripted::connection(id, ConnectionStep::StreamsAvailable(1, 1));
            }
            self.run();
            self.settle_streams();
        }
        for task in &self.tasks {
            assert!(
                !matches!(task.name, "enqueue" | "flush" | "open"),
                "{} waits for nothing",
                task.name
            );
        }
        for reader in &*self.handles.readers.borrow() {
            let Some(id) = reader.stream.id() else { continue };
            let account = scripted::account(id);
            if reader.is_stopped.get() {
                continue; // what has arrived was discarded
            }
            let is_reading = reader.reads.get() > 0;
            let has_sink = reader.sink.is_set.load(Ordering::SeqCst);
            if has_sink || is_reading {
                assert_eq!(account.left, 0, "nothing resumes the stream");
            }
            if has_sink {
                assert_eq!(reader.sink.bytes.load(Ordering::SeqCst), account.taken, "not received");
            } else if is_reading {
                assert_eq!(reader.read.get(), account.taken, "not read");
            }
        }
        for writer in &*self.handles.writers.borrow() {
            let Some(id) = writer.stream.id() else { continue };
            let account = scripted::account(id);
            let accepted = writer.accepted.borrow().iter().map(|(_, content)| content.len()).sum();
            assert!(!account.is_sending || account.sent.len() == accepted, "not sent");
        }
    }

    fn settle_streams(&mut self) {
        while scripted::settle() {
            self.run();
        }
    }

    /// What follows from the end may start further streams, which end as well.
    fn end_connection(&mut self) {
        loop {
            self.run();
            if !scripted::end() {
                return;
            }
        }
    }
}

impl Reader {
    /// All that has arrived was read.
    fn check_end(&self) {
        if self.sink.is_set.load(Ordering::SeqCst) {
            return;
        }
        let id = self.stream.id().expect("it has received");
        assert_eq!(self.read.get(), scripted::account(id).taken, "bytes are missing");
    }
}

/// From this first byte on, the connection is established before the other steps.
const ESTABLISH: u8 = 32;

/// The name of the tasks that have the listener.
const LISTENER: &str = "listener";

/// How many tasks there are at most, and how often they are polled in a run.
const MAX_TASKS: usize = 64;
const MAX_ROUNDS: usize = 10_000;
