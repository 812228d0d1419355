//! `Relay`: a task with a socket towards the client, one towards the server, and a path each way.

use crate::{Counts, Faults, Path};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// A direction through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// A relay between one client and a server, until it is dropped.
///
/// The client is the address that sent last to [`address`](Self::address). The relay has a port of
/// its own towards the server, as a NAT has.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    server: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the handle and the task share. No call is made while a lock is held.
#[derive(Debug)]
struct Shared {
    up: Mutex<Path>,
    down: Mutex<Path>,
    /// The socket that replaces the one towards the server.
    next_socket: Mutex<Option<UdpSocket>>,
    changed: Notify,
}

impl Shared {
    fn path(&self, direction: Direction) -> &Mutex<Path> {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

impl Relay {
    /// Starts a relay with the same faults in both directions.
    ///
    /// # Errors
    ///
    /// Those of binding two sockets.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(server: SocketAddr, faults: Faults, seed: u64) -> io::Result<Self> {
        let at_client = bind(server)?;
        let address = at_client.local_addr()?;
        let at_server = connected(server)?;
        let mut seeds = fastrand::Rng::with_seed(seed);
        let shared = Arc::new(Shared {
            up: Mutex::new(Path::new(faults.clone(), seeds.u64(..))),
            down: Mutex::new(Path::new(faults, seeds.u64(..))),
            next_socket: Mutex::new(None),
            changed: Notify::new(),
        });
        let ends = Ends { at_client, at_server, previous: None, client: None };
        let task = tokio::spawn(ends.run(shared.clone()));
        Ok(Self { address, server, shared, task })
    }

    /// Returns the address that stands for the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the faults of one direction, for the datagrams that arrive from now on.
    pub fn change(&self, direction: Direction, change: impl FnOnce(&mut Faults)) {
        let mut faults = lock(self.shared.path(direction)).faults().clone();
        change(&mut faults);
        *lock(self.shared.path(direction)).faults() = faults;
    }

    /// Changes the faults of both directions.
    pub fn change_both(&self, change: impl Fn(&mut Faults)) {
        self.change(Direction::Up, &change);
        self.change(Direction::Down, &change);
    }

    /// Sends to the server from a new port from now on. Datagrams that the server sends to the
    /// previous port are lost.
    ///
    /// # Errors
    ///
    /// Those of binding a socket.
    pub fn rebind(&self) -> io::Result<()> {
        let replaced = lock(&self.shared.next_socket).replace(connected(self.server)?);
        drop(replaced);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Returns what happened in one direction.
    pub fn counts(&self, direction: Direction) -> Counts {
        lock(self.shared.path(direction)).counts()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sockets of a relay.
struct Ends {
    at_client: UdpSocket,
    at_server: UdpSocket,
    /// Stays open, since a closed port would answer the server with ICMP, which a NAT does not.
    previous: Option<UdpSocket>,
    client: Option<SocketAddr>,
}

impl Ends {
    async fn run(mut self, shared: Arc<Shared>) {
        let begin = Instant::now();
        let mut buffer = vec![0; 65_536];
        loop {
            let next = [&shared.up, &shared.down].map(|path| lock(path).next_time());
            let next = next.into_iter().flatten().min();
            // An error of a socket is one datagram's, for example an ICMP message.
            tokio::select! {
                _ = self.at_client.readable() => self.read_client(&shared, begin, &mut buffer),
                _ = self.at_server.readable() => self.read_server(&shared, begin, &mut buffer),
                () = sleep_until(begin + next.unwrap_or_default()), if next.is_some() => {}
                () = shared.changed.notified() => {
                    if let Some(socket) = lock(&shared.next_socket).take() {
                        self.previous = Some(std::mem::replace(&mut self.at_server, socket));
                    }
                }
            }
            self.send(&shared, begin.elapsed());
            tokio::task::consume_budget().await;
        }
    }

    fn read_client(&mut self, shared: &Shared, begin: Instant, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok((size, from)) = self.at_client.try_recv_from(buffer) else { return };
            self.client = Some(from);
            lock(&shared.up).push(begin.elapsed(), &buffer[..size]);
        }
    }

    fn read_server(&mut self, shared: &Shared, begin: Instant, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok(size) = self.at_server.try_recv(buffer) else { return };
            lock(&shared.down).push(begin.elapsed(), &buffer[..size]);
        }
    }

    /// Sends what is due. What a socket does not take is lost, as on a real path.
    fn send(&self, shared: &Shared, now: Duration) {
        while let Some(datagram) = pop(&shared.up, now) {
            let _ = self.at_server.try_send(&datagram);
        }
        while let Some(datagram) = pop(&shared.down, now) {
            if let Some(client) = self.client {
                let _ = self.at_client.try_send_to(&datagram, client);
            }
        }
    }
}

/// Removes what is due; the lock is released before it is sent.
fn pop(path: &Mutex<Path>, now: Duration) -> Option<Vec<u8>> {
    lock(path).pop(now)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds a socket to a port of the loopback address of the server's family.
fn bind(server: SocketAddr) -> io::Result<UdpSocket> {
    let address: SocketAddr = match server {
        SocketAddr::V4(_) => ([127, 0, 0, 1], 0).into(),
        SocketAddr::V6(_) => ([0, 0, 0, 0, 0, 0, 0, 1], 0).into(),
    };
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
    // Best effort: the system limits the size. Bursts that exceed it would be losses without a count.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind(server)?;
    socket2::SockRef::from(&socket).connect(&SockAddr::from(server))?;
    Ok(socket)
}

/// Datagrams that are read before what is due is sent.
const BATCH: usize = 64;

/// Bytes of the buffers of each socket.
const SOCKET_BUFFER: usize = 4 << 20;
