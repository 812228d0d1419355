//! msquic's bare callbacks through the Rust binding: no queue, no task, no wake-up. Each message is
//! one StreamSend. Received bytes are counted, and pings answered, inside the callback.

use super::streams::frame;
use crate::machine::cpu_time;
use crate::measure::{Measure, costs, percentiles, rates, warm_up};
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use msquic::{
    Addr, BufferRef, CertificateFile, Configuration, Connection, ConnectionEvent, ConnectionRef,
    ConnectionShutdownFlags, Credential, CredentialConfig, CredentialFlags, Listener,
    ListenerEvent, Registration, RegistrationConfig, SendFlags, Settings, Status, Stream,
    StreamEvent, StreamOpenFlags, StreamRef, StreamStartFlags,
};
use net_traits::SelfSigned;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

pub(crate) struct Raw {
    shared: Arc<Shared>,
    stream: Stream,
    done: Mutex<mpsc::Receiver<Vec<Duration>>>,
    // Closed in this order.
    _client: Connection,
    _listener: Listener,
    configurations: [Arc<Configuration>; 2],
    registration: Registration,
    port: u16,
}

/// The state of the callbacks. A workload is set up while no data is in flight.
struct Shared {
    /// One message with its length, never freed, since msquic may read it at any time.
    message: AtomicPtr<BufferRef>,
    length: AtomicUsize,
    is_ping_pong: AtomicBool,
    to_send: AtomicUsize,
    /// How many bytes the server still expects.
    to_receive: AtomicUsize,
    pings: Mutex<Pings>,
    done: mpsc::Sender<Vec<Duration>>,
}

#[derive(Default)]
struct Pings {
    times: Vec<Duration>,
    started: Option<Instant>,
    received: usize,
}

impl Shared {
    fn send(&self, stream: &Stream) -> Result<(), Status> {
        let message = self.message.load(Ordering::SeqCst);
        // SAFETY: C23: the buffer and the bytes that it names are never freed; see `set_up`.
        unsafe {
            let buffers = std::slice::from_raw_parts(message, 1);
            stream.send(buffers, SendFlags::NONE, std::ptr::null())
        }
    }

    /// Sends the next message, if any.
    fn send_next(&self, stream: &Stream) -> Result<(), Status> {
        let take = |left: usize| left.checked_sub(1);
        match self.to_send.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => self.send(stream),
            Err(_) => Ok(()),
        }
    }

    fn on_client_event(&self, stream: &Stream, event: StreamEvent<'_>) -> Result<(), Status> {
        match event {
            StreamEvent::SendComplete { .. } if !self.is_ping_pong.load(Ordering::SeqCst) => {
                self.send_next(stream)
            }
            StreamEvent::Receive { total_buffer_length, .. } => {
                let mut pings = self.pings.lock().map_err(|_| Status::from(1))?;
                pings.received += *total_buffer_length as usize;
                if pings.received < self.length.load(Ordering::SeqCst) {
                    return Ok(());
                }
                pings.received = 0;
                let now = Instant::now();
                if let Some(started) = pings.started.replace(now) {
                    pings.times.push(now - started);
                }
                if self.to_send.load(Ordering::SeqCst) == 0 {
                    let _ = self.done.send(std::mem::take(&mut pings.times));
                    return Ok(());
                }
                drop(pings);
                self.send_next(stream)
            }
            _ => Ok(()),
        }
    }

    fn on_server_event(&self, stream: &Stream, event: StreamEvent<'_>) -> Result<(), Status> {
        let StreamEvent::Receive { total_buffer_length, .. } = event else { return Ok(()) };
        let received = *total_buffer_length as usize;
        let before = self.to_receive.fetch_sub(received, Ordering::SeqCst);
        if self.is_ping_pong.load(Ordering::SeqCst) {
            let length = self.length.load(Ordering::SeqCst);
            // A ping is complete when the remaining bytes are a multiple of its length.
            if (before - received).is_multiple_of(length) {
                self.send(stream)?;
            }
        } else if before == received {
            let _ = self.done.send(Vec::new());
        }
        Ok(())
    }
}

impl Raw {
    pub(crate) fn new(is_mutual: bool) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let pem = directory.path().join("pem");
        std::fs::write(&pem, SelfSigned::generate(&["localhost"])?.to_pem())?;

        let registration = Registration::new(&RegistrationConfig::default())?;
        let alpn = [BufferRef::from("bench")];
        let settings = Settings::new()
            .set_PeerBidiStreamCount(1)
            .set_StreamRecvWindowDefault(512 * 1024)
            .set_IdleTimeoutMs(0);
        let server = Configuration::open(&registration, &alpn, Some(&settings))?;
        let pem = pem.display().to_string();
        let certificate =
            || Credential::CertificateFile(CertificateFile::new(pem.clone(), pem.clone()));
        let mut of_server = CredentialFlags::NO_CERTIFICATE_VALIDATION;
        let mut of_client = CredentialConfig::new_client()
            .set_credential_flags(CredentialFlags::NO_CERTIFICATE_VALIDATION);
        if is_mutual {
            of_server |= CredentialFlags::REQUIRE_CLIENT_AUTHENTICATION;
            of_client = of_client.set_credential(certificate());
        }
        server.load_credential(
            &CredentialConfig::new().set_credential_flags(of_server).set_credential(certificate()),
        )?;
        let server = Arc::new(server);
        let client = Configuration::open(&registration, &alpn, Some(&settings))?;
        client.load_credential(&of_client)?;

        let (done, is_done) = mpsc::channel();
        let shared = Arc::new(Shared {
            message: AtomicPtr::default(),
            length: AtomicUsize::new(0),
            is_ping_pong: AtomicBool::new(false),
            to_send: AtomicUsize::new(0),
            to_receive: AtomicUsize::new(0),
            pings: Mutex::default(),
            done,
        });

        let (on_connection, for_streams) = (server.clone(), shared.clone());
        let listener = Listener::open(&registration, move |_, event| {
            if let ListenerEvent::NewConnection { connection, .. } = event {
                let shared = for_streams.clone();
                connection.set_callback_handler(move |connection: ConnectionRef, event| {
                    on_server_connection(&shared, &connection, event);
                    Ok(())
                });
                connection.set_configuration(&on_connection)?;
            }
            Ok(())
        })?;
        listener.start(&alpn, Some(&Addr::from(SocketAddr::from(([127, 0, 0, 1], 0)))))?;
        let port = listener.get_local_addr()?.port();

        let (connected, is_connected) = mpsc::channel();
        let connection = Connection::open(&registration, move |_, event| {
            if let ConnectionEvent::Connected { .. } = event {
                let _ = connected.send(());
            }
            Ok(())
        })?;
        connection.start(&client, "127.0.0.1", port)?;
        is_connected.recv_timeout(TIMEOUT).context("raw msquic does not connect")?;
        let of_client = shared.clone();
        let stream = Stream::open(&connection, StreamOpenFlags::NONE, move |stream, event| {
            of_client.on_client_event(&stream, event)
        })?;
        stream.start(StreamStartFlags::NONE)?;
        Ok(Self {
            shared,
            stream,
            done: Mutex::new(is_done),
            _client: connection,
            _listener: listener,
            configurations: [server, Arc::new(client)],
            registration,
            port,
        })
    }

    fn one_way(&self, size: usize, count: usize) -> Result<Vec<f64>> {
        self.pass(size, warm_up(count))?;
        let (cpu, started) = (cpu_time(), Instant::now());
        self.pass(size, count)?;
        Ok(rates(size, count, started, cpu))
    }

    fn pass(&self, size: usize, count: usize) -> Result<()> {
        self.set_up(size, count, false);
        for _ in 0..(IN_FLIGHT / size).clamp(2, 256) {
            self.shared.send_next(&self.stream)?;
        }
        self.wait()?;
        Ok(())
    }

    fn ping_pong(&self, size: usize, count: usize) -> Result<Vec<Duration>> {
        self.set_up(size, warm_up(count) + count, true);
        self.shared.pings.lock().map_err(|_| anyhow::anyhow!("a round failed"))?.started =
            Some(Instant::now());
        self.shared.send_next(&self.stream)?;
        self.wait()
    }

    /// Opens and closes `count` connections, one after the other.
    fn connect(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            let (changed, changes) = mpsc::channel();
            let connection = Connection::open(&self.registration, move |_, event| {
                match event {
                    ConnectionEvent::Connected { .. } => drop(changed.send(true)),
                    ConnectionEvent::ShutdownComplete { .. } => drop(changed.send(false)),
                    _ => {}
                }
                Ok(())
            })?;
            connection.start(&self.configurations[1], "127.0.0.1", self.port)?;
            let connected = changes.recv_timeout(TIMEOUT).context("raw msquic does not connect")?;
            ensure!(connected, "raw msquic cannot connect");
            connection.shutdown(ConnectionShutdownFlags::NONE, 0);
            changes.recv_timeout(TIMEOUT).context("raw msquic does not close")?;
        }
        Ok(())
    }

    fn set_up(&self, size: usize, count: usize, is_ping_pong: bool) {
        let message: &'static [u8] = Vec::leak(frame(size)); // a benchmark runs few workloads
        let buffer = Box::leak(Box::new(BufferRef::from(message)));
        let shared = &self.shared;
        shared.message.store(buffer, Ordering::SeqCst);
        shared.length.store(message.len(), Ordering::SeqCst);
        shared.is_ping_pong.store(is_ping_pong, Ordering::SeqCst);
        shared.to_receive.store(count * message.len(), Ordering::SeqCst);
        shared.to_send.store(count, Ordering::SeqCst);
    }

    fn wait(&self) -> Result<Vec<Duration>> {
        let done = self.done.lock().map_err(|_| anyhow::anyhow!("a round failed"))?;
        Ok(done.recv()?)
    }
}

fn on_server_connection(
    shared: &Arc<Shared>,
    connection: &ConnectionRef,
    event: ConnectionEvent<'_>,
) {
    match event {
        ConnectionEvent::PeerStreamStarted { stream, .. } => {
            let shared = shared.clone();
            stream.set_callback_handler(move |stream: StreamRef, event| {
                if let StreamEvent::ShutdownComplete { .. } = event {
                    // SAFETY: C4, C9: inside the last event, and no other code closes it.
                    drop(unsafe { Stream::from_raw(stream.as_raw()) });
                    return Ok(());
                }
                shared.on_server_event(&stream, event)
            });
        }
        ConnectionEvent::ShutdownComplete { .. } => {
            // SAFETY: C4, C9: inside the last event, and no other code closes it.
            drop(unsafe { Connection::from_raw(connection.as_raw()) });
        }
        _ => {}
    }
}

impl Measure for Raw {
    async fn measure(self: Arc<Self>, workload: Workload) -> Result<Option<Vec<f64>>> {
        match workload {
            Workload::OneWay { connections: 1, size, count } => {
                let run = move || self.one_way(size, count);
                Ok(Some(spawn_blocking(run).await??))
            }
            Workload::PingPong { size, count } => {
                let times = spawn_blocking(move || self.ping_pong(size, count)).await??;
                Ok(Some(percentiles(times.into_iter().skip(warm_up(count)).collect())))
            }
            Workload::Handshakes { at_once, count } => {
                Ok(Some(handshakes(&self, at_once, count).await?))
            }
            _ => Ok(None),
        }
    }
}

async fn handshakes(raw: &Arc<Raw>, at_once: usize, count: usize) -> Result<Vec<f64>> {
    let each = count.div_ceil(at_once);
    raw.connect(warm_up(each))?;
    let (cpu, started) = (cpu_time(), Instant::now());
    let tasks = (0..at_once).map(|_| {
        let raw = raw.clone();
        spawn_blocking(move || raw.connect(each))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(costs(each * at_once, started, cpu))
}

/// How many bytes are passed to msquic at once.
const IN_FLIGHT: usize = 1 << 20;

/// How long the connection may take.
const TIMEOUT: Duration = Duration::from_secs(10);
