//! Tests that connections leave nothing allocated when they have ended, on either side, however
//! they ended.
//!
//! Allocated bytes are counted, of Rust and of C. Resident memory shows less, because the allocator keeps pages whose
//! bytes were freed (docs/performance.md).

use crate::ConnectionStartError;
use crate::{
    Configuration, Connection, ConnectionError, Dial, Listener, NetCredential, Registration,
    Settings, Status, StreamType, TrustPolicy,
};
use futures::future::{join_all, select};
use futures::{AsyncReadExt, StreamExt, stream};
use std::net::UdpSocket;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

const ALPN: &str = "heap/1";

/// The variable that marks the child process, in which no other test allocates.
const CHILD: &str = "MSQUIC_ASYNC_HEAP_CHILD";

/// Without glibc's thread caches, whose bytes count as allocated.
const EXACT: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// Connections of one round; a quarter as many attempts fail, in each of three ways.
const CONNECTIONS: usize = 256;

/// Most rounds also grow a pool, because libmsquic keeps up to 256 freed objects of a kind for each
/// processor. A leak is visible in each round.
const ROUNDS: usize = 8;

/// Bytes that a connection may leave, both sides and the failed attempts of its round together.
const TOLERANCE: usize = 64;

#[test]
fn connections_that_are_over_leave_nothing_allocated() {
    if !is_child("connections_that_are_over_leave_nothing_allocated") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = Node::new();
    let mut allocated = Vec::new();
    for _ in 0..=ROUNDS {
        runtime.block_on(node.round());
        allocated.push(settled());
    }
    let least = allocated.windows(2).map(|round| round[1].saturating_sub(round[0])).min().unwrap();
    let each = least / CONNECTIONS;
    assert!(each < TOLERANCE, "each connection leaves {each} bytes: {allocated:?}");
}

#[test]
fn memory_of_closed_connections_is_given_back() {
    if !is_child("memory_of_closed_connections_is_given_back") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = Node::new();
    runtime.block_on(node.round()); // pools and threads stay
    let before = resident();
    let mut most = 0;
    for _ in 0..ROUNDS {
        runtime.block_on(node.round());
        most = most.max(resident());
    }
    let enough = before + (most - before) / 2;
    for _ in 0..600 {
        if resident() < enough {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{before} KiB became {most}, and then {}", resident());
}

/// Runs a test alone in a child process. Returns whether this is that.
fn is_child(test: &str) -> bool {
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    let child = child.env(CHILD, "1").env(EXACT.0, EXACT.1);
    let test = format!("ffi::heap::{test}");
    let output = child.args(["--exact", "--nocapture", &test]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    false
}

/// A listener that trusts one of two clients.
struct Node {
    registration: Registration,
    listener: Listener,
    trusted: NetCredential,
    stranger: NetCredential,
}

impl Node {
    fn new() -> Self {
        let registration = Registration::new("heap").unwrap();
        let trusted = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let stranger = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let server = trusted.with_trust(TrustPolicy::hashes([trusted.identity()]));
        let settings = Settings::new().peer_bidi_streams(1);
        let configuration = Configuration::server(&registration, &[ALPN], &settings, &server);
        let listener = Listener::new(&registration, configuration.unwrap(), server).unwrap();
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        Self { registration, listener, trusted, stranger }
    }

    /// Connections that exchange data and end, and attempts that fail.
    async fn round(&self) {
        let accepted = stream::unfold(&self.listener, |listener| async move {
            Some((listener.accept().await.unwrap(), listener))
        });
        let serve = pin!(accepted.for_each_concurrent(None, serve));
        let talk = join_all((0..CONNECTIONS).map(|number| self.talk(number)));
        let fail = join_all((0..CONNECTIONS / 4).map(|number| self.fail(number)));
        select(serve, pin!(futures::future::join(talk, fail))).await;
    }

    fn dial(&self, number: usize) -> Dial {
        let address = self.listener.local_addr().unwrap();
        Dial::from(address).share_binding(number.is_multiple_of(2))
    }

    fn configuration(&self, alpn: &str, credential: &NetCredential) -> Configuration {
        Configuration::client(&self.registration, &[alpn], &Settings::new(), credential).unwrap()
    }

    /// A question and its answer, unless the server closes before. The connection is ended by the
    /// server, a drop or a shutdown.
    async fn talk(&self, number: usize) {
        let configuration = self.configuration(ALPN, &self.trusted);
        let client = loop {
            let dial = self.dial(number);
            match dial.connect(&self.registration, &configuration, &self.trusted).await {
                Ok(client) => break client,
                // A listener whose workers are late refuses connections, or does not answer in time.
                Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
                    status: Status::CONNECTION_REFUSED | Status::CONNECTION_IDLE,
                    ..
                })) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        // On a busy machine it may have been idle for too long already.
        let open = client.open_outbound_stream(StreamType::Bidirectional, false);
        let Ok(mut stream) = open.await else { return };
        let end = (number % 3) as u8;
        let _ = stream.write_chunk(&vec![end; 100].into(), true).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        match end {
            0 => {}
            1 => client.shutdown(0, "over"),
            _ => return,
        }
        client.watch_shutdown().await;
    }

    /// A peer that is not trusted, another protocol, and a port without a listener.
    async fn fail(&self, number: usize) {
        let connect = async |dial: Dial, alpn, credential| {
            let configuration = self.configuration(alpn, credential);
            let client = dial.connect(&self.registration, &configuration, credential).await;
            if let Ok(client) = client {
                client.watch_shutdown().await; // rejected after the handshake
            }
        };
        connect(self.dial(number), ALPN, &self.stranger).await;
        connect(self.dial(number), "another", &self.trusted).await;
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dial = Dial::from(closed).share_binding(number.is_multiple_of(2));
        connect(dial, ALPN, &self.trusted).await;
    }
}

async fn serve(connection: Connection) {
    if connection.accept().await.is_err() {
        return;
    }
    let Ok(mut stream) = connection.accept_inbound_stream().await else { return };
    let mut question = Vec::new();
    if stream.read_to_end(&mut question).await.is_err() {
        return;
    }
    let _ = stream.write_chunk(&question.clone().into(), true).await;
    if question.first() == Some(&0) {
        connection.shutdown(0, "over");
    }
    connection.watch_shutdown().await;
}

/// Returns the allocated bytes, after libmsquic's threads have freed what they free late.
fn settled() -> usize {
    let (mut last, mut same) = (allocated(), 0);
    for _ in 0..1000 {
        thread::sleep(Duration::from_millis(5));
        let now = allocated();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == 30 {
            break;
        }
    }
    last
}

/// Bytes that are allocated.
fn allocated() -> usize {
    // SAFETY: it takes nothing and returns numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}
