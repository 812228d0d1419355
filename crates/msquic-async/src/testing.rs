//! Plays events and calls in an order that bytes choose, with a script instead of libmsquic. For the fuzz target
//! `events`; not for applications.
//!
//! The bytes choose events of a connection and of its streams, calls, polls, and drops of futures and handles. What is
//! promised is checked: bytes are read and sent once and in order, held bytes are returned once, tickets are used once,
//! each task that waits is woken, all tasks end with the connection and find the same reason, and each handle is closed.

mod handles;
mod sessions;
mod settle;

use crate::ffi::scripted::{self, ConnectionStep, FINAL, SENT, StreamStep};
use crate::settings::ZeroCopy;
use crate::{
    Configuration, Connection, ConnectionStartError, DatagramLimits, Listener, NetCredential,
    Registration, Resumption, Settings, Status, StreamType,
};
use bytes::Bytes;
use futures_util::task::{ArcWake, waker};
use handles::{Handles, Reader, Reading, Received, Sink, number};
use sessions::Sessions;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

/// Plays what the bytes choose.
///
/// # Panics
///
/// If something that is promised does not hold.
pub fn play(credential: &NetCredential, bytes: &[u8]) {
    static SETUP: OnceLock<Setup> = OnceLock::new();
    scripted::install();
    let Setup { registration, resumption, configurations } = SETUP.get_or_init(|| {
        let resumption = Resumption::new();
        let registration = Registration::new("events").expect("the script opens it");
        let open = |zero_copy_receive| {
            let settings = Settings::new().datagrams(true).resumption(resumption.clone());
            let settings = Settings { zero_copy_receive, ..settings };
            let client = Configuration::client(&registration, &["events"], &settings, credential);
            let server = Configuration::server(&registration, &["events"], &settings, credential);
            (client.expect("the script opens it"), server.expect("the script opens it"))
        };
        let configurations = [ZeroCopy::No, ZeroCopy::OneByOne, ZeroCopy::Trusted].map(open);
        Setup { registration, resumption, configurations }
    });
    let mut bytes = bytes.iter();
    let first = usize::from(bytes.next().copied().unwrap_or(0));
    let (configuration, server) = &configurations[first % configurations.len()];
    let limits = crate::StreamLimits::new().send_buffer(64).max_send_buffer(256).receive_buffer(64);
    let datagrams = DatagramLimits::new().send_queue(600).in_flight(1).receive_queue(600);
    let connection = Connection::new(registration, credential.clone()).expect("a connection");
    let mut player = Player {
        bytes,
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
        sessions: Rc::new(Sessions::new(resumption.clone())),
        goes_on: first / configurations.len() % 2 == 1,
        resumes: first / configurations.len() % 8 > 3,
        reads_all: first / configurations.len() % 4 > 1,
        datagrams: 0,
    };
    if first >= ESTABLISH {
        player.establish();
    }
    if player.goes_on {
        player.start_streams();
    }
    if player.resumes {
        player.issue_tickets();
    }
    while let Some(step) = player.bytes.next() {
        player.step(*step);
        scripted::check_calls();
    }
    player.end();
}

/// From now on each unidirectional stream of the peer has a sink. Some stop their streams when bytes arrive.
fn set_sinks(connection: &Connection, handles: &Handles, value: u8) {
    let sinks = handles.sinks.clone();
    connection.set_inbound_uni_sinks(move |stream| {
        let received = Arc::new(Received::default());
        received.room.store(value.into(), Ordering::SeqCst);
        sinks.lock().push((stream.clone(), received.clone()));
        let stops = (value % 8 == 2).then_some(stream);
        Box::new(Sink { received, stops })
    });
}

/// What all plays share.
struct Setup {
    registration: Registration,
    resumption: Resumption,
    /// Of clients and servers. They hold received bytes in different ways.
    configurations: [(Configuration, Configuration); 3],
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
    sessions: Rc<Sessions>,
    /// Connections end only after the steps.
    goes_on: bool,
    /// There are tickets before the steps.
    resumes: bool,
    /// All streams are read after the steps.
    reads_all: bool,
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

impl Player<'_> {
    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    /// Establishes the connection, accepts streams of the peer, and gets credit for others.
    fn establish(&mut self) {
        let connection = self.connection.clone().expect("it was just opened");
        self.start(connection.clone(), 0);
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
                handles.add_reader(Some(stream));
            }
        });
    }

    /// Starts a stream of each kind on both sides.
    fn start_streams(&mut self) {
        for id in scripted::connections() {
            scripted::connection(id, ConnectionStep::PeerStream { unidirectional: false });
            scripted::connection(id, ConnectionStep::PeerStream { unidirectional: true });
        }
        for stream_type in [StreamType::Bidirectional, StreamType::Unidirectional] {
            if let Some(connection) = self.connection.clone() {
                self.open(connection, stream_type, true);
            }
        }
        self.run();
        for id in scripted::streams() {
            scripted::stream(id, StreamStep::Start(Status::SUCCESS));
        }
        self.run();
    }

    /// Accepts a connection, which gets a ticket, and another one, whose handshake goes on. The client gets tickets.
    fn issue_tickets(&mut self) {
        let clients = scripted::connections();
        for _ in 0..4 {
            clients.iter().for_each(|id| self.sessions.receive(*id, true));
        }
        self.listener_call(16);
        self.listener_call(17);
        self.run();
        for is_first in [true, false] {
            scripted::attempt();
            self.run();
            if is_first {
                scripted::finish(&self.credential.certificate_chain()[0]);
            }
        }
        self.run();
    }

    fn open(&mut self, connection: Connection, stream_type: StreamType, fails_on_blocked: bool) {
        let handles = self.handles.clone();
        self.spawn("open", async move {
            let open = connection.open_outbound_stream(stream_type, fails_on_blocked);
            if let Ok(stream) = open.await {
                handles.add(stream);
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
            6 => {
                scripted::run_call();
                self.run();
            }
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
        let choice = choice % 18;
        let step = match if self.goes_on && ENDS.contains(&choice) { 8 } else { choice } {
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
            14 => ConnectionStep::Complete,
            15 => return self.sessions.receive(id, value > 0),
            _ => return self.sessions.resume(id, which, value),
        };
        scripted::connection(id, step);
    }

    fn stream_event(&mut self) {
        let (which, choice, value) = (self.next(), self.next(), self.next());
        let streams = scripted::streams();
        if streams.is_empty() {
            return;
        }
        let step = match choice % 13 {
            0 => StreamStep::Start(match value {
                0 => Status::STREAM_LIMIT_REACHED,
                1 => Status::OUT_OF_MEMORY,
                _ => Status::SUCCESS,
            }),
            1 | 2 => StreamStep::SendComplete { canceled: value == 0 },
            3 => StreamStep::IdealSendBuffer(u64::from(value) << 2),
            // One in sixteen is the last.
            4..=6 => StreamStep::Receive { count: value.into(), is_last: value % 16 == 7 },
            7 => StreamStep::PeerSendShutdown,
            8 => StreamStep::PeerSendAborted(value.into()),
            9 => StreamStep::PeerReceiveAborted(value.into()),
            10 => StreamStep::SendShutdownComplete,
            11 => StreamStep::Complete,
            _ => StreamStep::Rest,
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
        match choice % 23 {
            20 => return self.dial(value),
            21 if value > 200 => return self.sessions.forget(),
            choice @ 16..20 => return self.listener_call(choice),
            _ => {}
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
        match choice % 23 {
            0 => self.start(connection, value),
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
            4 | 5 => self.open(connection, stream_type, value & 2 != 0),
            6 | 7 => self.accept_streams(connection),
            8 => self.spawn("receive_datagram", async move {
                while let Ok(datagram) = connection.receive_datagram().await {
                    let number = u64::from_be_bytes(datagram[..].try_into().expect("a number"));
                    let last = &mut *handles.datagrams.borrow_mut();
                    let before = last.insert(Arc::as_ptr(connection.inner()), number);
                    assert!(before < Some(number), "received twice");
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
            22 if value & 1 == 0 => set_sinks(&connection, &handles, value),
            22 => {
                let sinks = handles.sinks.lock().clone();
                if let Some((stream, received)) = sinks.get(usize::from(which) % sinks.len().max(1))
                {
                    received.room.store(value.into(), Ordering::SeqCst);
                    stream.resume();
                }
            }
            14 if value > 100 && !self.goes_on => connection.shutdown(value.into(), ""),
            15 if value > 200 && !self.goes_on => self.connection = None,
            _ => {}
        }
    }

    fn start(&mut self, connection: Connection, value: u8) {
        let (sessions, configuration) = (self.sessions.clone(), self.configuration.clone());
        let port = 4433 + u16::from(value & 1);
        self.spawn("start", async move { sessions.start(&connection, &configuration, port).await });
    }

    /// Starts a further connection.
    fn dial(&mut self, value: u8) {
        let credential = self.credential.clone();
        let connection = Connection::new(self.registration, credential).expect("a connection");
        self.handles.accepted.borrow_mut().push(connection.clone());
        self.start(connection, value);
    }

    fn listener_call(&mut self, choice: u8) {
        if choice == 16 && self.listener.is_none() {
            let (configuration, credential) = (self.server.clone(), self.credential.clone());
            let listener = Listener::new(self.registration, configuration, credential)
                .expect("the configuration is of the registration");
            listener.set_backlog(2);
            if !cfg!(miri) {
                // It tries the port with a UDP socket, which miri has not.
                let _ = listener.start(&["events"], Some(([127, 0, 0, 1], 0).into()));
            }
            self.listener = Some(Rc::new(listener));
        }
        let Some(listener) = self.listener.clone() else { return };
        let (handles, sessions) = (self.handles.clone(), self.sessions.clone());
        match choice {
            17 => self.spawn(LISTENER, async move {
                while let Ok(connection) = listener.accept().await {
                    sessions.begin(number(&connection).expect("it has just begun"));
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
        let handles = self.handles.clone();
        let keeps = value & 2 != 0;
        match choice % 10 {
            0 | 1 => self.read_all(reader, keeps),
            2 if value & 1 == 0 => self.spawn("poll_read_chunk", async move {
                let _reading = Reading::new(&reader);
                if let Ok(Some(chunk)) = poll_fn(|cx| reader.stream.poll_read_chunk(cx)).await {
                    handles.read(&reader, chunk.into_bytes(), keeps);
                }
            }),
            2 => self.read_one(reader, keeps),
            8 => self.spawn("poll_read", async move {
                let _reading = Reading::new(&reader);
                let mut part = [0; 100];
                let part = &mut part[..usize::from(value % 100)];
                if let Ok(read) = poll_fn(|cx| reader.stream.poll_read(cx, part)).await {
                    let read = Bytes::copy_from_slice(&part[..read]);
                    handles.read(&reader, read, false);
                }
            }),
            9 => handles.release(which.into(), keeps.then_some(value.into())),
            3 => self.spawn("received_reset", async move {
                drop(reader.stream.received_reset().await);
            }),
            4 => {
                let offset = reader.read.get();
                let sink = reader.sink.clone();
                if !sink.is_set.swap(true, Ordering::SeqCst) {
                    sink.bytes.store(offset, Ordering::SeqCst);
                    sink.room.store(value.into(), Ordering::SeqCst);
                    assert!(
                        reader
                            .stream
                            .set_sink(Box::new(Sink { received: sink, stops: None }))
                            .is_ok()
                    );
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

    fn read_all(&mut self, reader: Rc<Reader>, keeps: bool) {
        let handles = self.handles.clone();
        self.spawn("read", async move {
            let _reading = Reading::new(&reader);
            loop {
                match reader.stream.read_chunk().await {
                    Ok(Some(chunk)) => handles.read(&reader, chunk.into_bytes(), keeps),
                    Ok(None) | Err(_) => return reader.check_end(),
                }
            }
        });
    }

    fn read_one(&mut self, reader: Rc<Reader>, keeps: bool) {
        let handles = self.handles.clone();
        self.spawn("read_chunk", async move {
            let _reading = Reading::new(&reader);
            if let Ok(Some(chunk)) = reader.stream.read_chunk().await {
                handles.read(&reader, chunk.into_bytes(), keeps);
            }
        });
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
        match choice % 11 {
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
            6 => writer.is_finished.set(writer.stream.finish().is_ok()),
            7 => self.spawn("poll_finish_write", async move {
                writer.is_finished.set(true);
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
            // More small ones than are sent one by one.
            10 => {
                for _ in 0..value % 64 {
                    let content = writer.content(1);
                    let chunk = [Bytes::from(content.clone())];
                    if let Ok(Some(end)) = writer.stream.try_enqueue(&[], &chunk) {
                        writer.accept(end, content);
                    }
                }
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
}

/// From this first byte on, the connection is established before the other steps.
const ESTABLISH: usize = 32;

/// The events that end a connection.
const ENDS: [u8; 3] = [11, 13, 14];

/// The name of the tasks that have the listener.
const LISTENER: &str = "listener";

/// How many tasks there are at most, and how often they are polled in a run.
const MAX_TASKS: usize = 64;
const MAX_ROUNDS: usize = 10_000;
