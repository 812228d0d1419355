//! Clients that move to another local address while they are connected.

use super::peers::{Pair, credential, pair_of, pair_with, pattern, settings};
use super::skip::{has_patch, lacks_patch};
use crate::executors::{run, run_tokio};
use bytes::Bytes;
use msquic_async::{Connection, ReadStream, Registration, StreamLimits, StreamType, WriteStream};
use msquic_async::{ConnectionChange, ConnectionError, RebindError};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Connected peers with a short initial round-trip time, so that paths are validated soon. The
/// handshake is confirmed.
async fn movable_pair() -> Pair {
    movable_pair_on(Sockets::Own).await
}

/// The sockets of the client.
#[derive(Debug, Clone, Copy)]
enum Sockets {
    /// The client needs no connection ID.
    Own,
    /// The server finds the client by connection IDs.
    Shared,
}

async fn movable_pair_on(sockets: Sockets) -> Pair {
    let settings = settings().datagrams(true).initial_rtt(Duration::from_millis(10));
    let pair = pair_of(settings, StreamLimits::default(), |client| {
        client.set_share_binding(matches!(sockets, Sockets::Shared)).unwrap();
    })
    .await;
    // What the server sends after its handshake confirms it, and arrives in order.
    let mut greeting = pair.server.open_send_stream().await.unwrap();
    greeting.send("welcome").await.unwrap();
    pair.client.accept_inbound_uni_stream().await.unwrap();
    pair
}

fn any(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

/// Moves the client as soon as the handshake is confirmed.
async fn rebind(client: &Connection, local: SocketAddr) -> Result<SocketAddr, RebindError> {
    loop {
        match client.rebind(local).await {
            Err(RebindError::NotConfirmed) => tokio::task::yield_now().await,
            moved => return moved,
        }
    }
}

/// Whether the test has to be skipped.
fn cannot_move() -> bool {
    lacks_patch("N13") || lacks_patch("U3")
}

/// Whether the test has to be skipped.
fn cannot_move_on_shared_sockets() -> bool {
    cannot_move() || lacks_patch("N28") || lacks_patch("N33")
}

#[test]
fn a_library_that_cannot_move_is_not_asked_to() {
    if has_patch("N13") && has_patch("U3") {
        return;
    }
    run(async || {
        let Pair { client, .. } = movable_pair().await;
        assert_eq!(client.rebind(any("127.0.0.1")).await, Err(RebindError::Unsupported));
    });
}

/// The data that flows between the peers, and how much of it has arrived.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    to_server: Direction,
    to_client: Direction,
    datagrams: AtomicU64,
    /// Notified when anything arrives.
    arrived: Notify,
}

/// One stream.
struct Direction {
    read: AtomicU64,
    /// How many parts may be in flight. With more, losses would dominate the duration of a
    /// test.
    window: Semaphore,
}

impl Default for Direction {
    fn default() -> Self {
        Self { read: AtomicU64::new(0), window: Semaphore::new(4) }
    }
}

impl Load {
    async fn write(&self, mut stream: WriteStream, direction: &Direction) {
        let source = endless();
        let mut at = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            direction.window.acquire().await.unwrap().forget();
            let part = source.slice(at % PATTERN..at % PATTERN + PART);
            stream.write_chunk(&part, false).await.unwrap();
            at += PART;
        }
        stream.write_chunk(&Bytes::new(), true).await.unwrap();
    }

    async fn read(&self, stream: ReadStream, direction: &Direction) {
        let expected = endless();
        let mut at = 0;
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            for part in chunk.chunks(PART) {
                let from = at % PATTERN;
                assert!(part == &expected[from..from + part.len()], "byte {at}");
                let parts = at / PART;
                at += part.len();
                direction.window.add_permits(at / PART - parts);
                direction.read.fetch_add(part.len() as u64, Ordering::SeqCst);
            }
            self.arrived.notify_one();
        }
    }

    async fn echo_datagrams(&self, server: &Connection) {
        while let Ok(datagram) = server.receive_datagram().await {
            let _ = server.send_datagram(&datagram);
        }
    }

    async fn count_datagrams(&self, client: &Connection) {
        while let Ok(datagram) = client.receive_datagram().await {
            assert_eq!(datagram, "ping");
            self.datagrams.fetch_add(1, Ordering::SeqCst);
            self.arrived.notify_one();
        }
    }

    /// Waits until more has arrived in both directions and of the datagrams.
    async fn progress(&self, client: &Connection) {
        let now = || {
            [&self.to_server.read, &self.to_client.read, &self.datagrams]
                .map(|count| count.load(Ordering::SeqCst))
        };
        let before = now();
        while now().iter().zip(before).any(|(now, before)| *now <= before) {
            // One that is lost is followed by another, as soon as anything arrives.
            let _ = client.send_datagram(&"ping".into());
            self.arrived.notified().await;
        }
    }
}

/// One period of an endless pattern, and a part of the next.
fn endless() -> Bytes {
    pattern(PATTERN).iter().chain(&pattern(PART)).copied().collect()
}

/// The length of the endless pattern's period, and of the parts that are written.
const PATTERN: usize = 63 * 1024;
const PART: usize = 16 * 1024;

/// Moves the client to `locals` in turn, while streams and datagrams flow both ways. Something arrives on each
/// side between `at_once` moves and the next ones.
async fn move_under_load(sockets: Sockets, moves: usize, at_once: usize, locals: &[SocketAddr]) {
    let pair = movable_pair_on(sockets).await;
    let Pair { client, server, .. } = &pair;
    let load = Load::default();
    let open = async |side: &Connection| {
        side.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap().split().1
    };
    let (to_server, to_client) = (open(client).await.unwrap(), open(server).await.unwrap());
    let read = async |side: &Connection, direction| {
        load.read(side.accept_inbound_uni_stream().await.unwrap(), direction).await;
    };
    let streams = async {
        tokio::join!(
            load.write(to_server, &load.to_server),
            load.write(to_client, &load.to_client),
            read(server, &load.to_server),
            read(client, &load.to_client),
        );
        client.shutdown(0, "");
    };
    let moving = async {
        let mut before = client.get_local_addr().unwrap();
        for number in 0..moves {
            if number % at_once == 0 {
                load.progress(client).await;
            }
            let local = rebind(client, locals[number % locals.len()]).await.unwrap();
            assert_ne!(local, before, "move {number}");
            assert_eq!(client.get_local_addr().unwrap(), local);
            before = local;
        }
        load.progress(client).await;
        while server.get_remote_addr().unwrap() != before {
            load.progress(client).await;
        }
        load.is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(moving, streams, load.echo_datagrams(server), load.count_datagrams(client));
}

/// How often clients move in a test.
fn moves() -> usize {
    std::env::var("MOVES").map_or(200, |moves| moves.parse().unwrap())
}

#[test]
fn a_client_moves_to_other_ports_under_load() {
    if cannot_move() {
        return;
    }
    run_tokio(async || move_under_load(Sockets::Own, moves(), 1, &PORTS.map(any)).await);
}

#[test]
fn a_client_moves_to_other_addresses_under_load() {
    if cannot_move() {
        return;
    }
    let moves = moves() / 10;
    run_tokio(async || move_under_load(Sockets::Own, moves, 1, &ADDRESSES.map(any)).await);
}

/// msquic has a table of four paths.
#[test]
fn a_client_moves_to_more_addresses_than_the_server_keeps_paths() {
    if cannot_move() {
        return;
    }
    run_tokio(async || move_under_load(Sockets::Own, 14, 1, &MANY_ADDRESSES.map(any)).await);
}

#[test]
fn a_client_on_shared_sockets_moves_to_other_ports_under_load() {
    if cannot_move_on_shared_sockets() {
        return;
    }
    run_tokio(async || move_under_load(Sockets::Shared, moves(), 1, &PORTS.map(any)).await);
}

#[test]
fn a_client_on_shared_sockets_moves_to_other_addresses_under_load() {
    if cannot_move_on_shared_sockets() {
        return;
    }
    let moves = moves() / 10;
    run_tokio(async || move_under_load(Sockets::Shared, moves, 1, &ADDRESSES.map(any)).await);
}

/// More moves than the server has connection IDs of the client.
#[test]
fn a_client_moves_many_times_at_once_under_load() {
    if cannot_move_on_shared_sockets() {
        return;
    }
    for sockets in [Sockets::Own, Sockets::Shared] {
        for locals in [&PORTS[..], &ADDRESSES[..]] {
            let locals: Vec<_> = locals.iter().copied().map(any).collect();
            run_tokio(async || move_under_load(sockets, moves() / 10, 10, &locals).await);
        }
    }
}

const PORTS: [&str; 1] = ["127.0.0.1"];
const MANY_ADDRESSES: [&str; 7] =
    ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8"];
const ADDRESSES: [&str; 3] = ["127.0.0.2", "127.0.0.1", "0.0.0.0"];

async fn talk(from: &Connection, to: &Connection) {
    let mut stream = from.open_send_stream().await.unwrap();
    stream.send("still here").await.unwrap();
    let stream = to.accept_inbound_uni_stream().await.unwrap();
    std::future::poll_fn(|cx| stream.poll_read_chunk(cx)).await.unwrap().unwrap();
}

#[test]
fn a_move_that_fails_changes_nothing() {
    if cannot_move() {
        return;
    }
    run(async || {
        let Pair { client, server, .. } = movable_pair().await;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        let (before, remote) =
            (rebind(&client, any("127.0.0.1")).await.unwrap(), client.get_remote_addr());
        let elsewhere = "203.0.113.77:0".parse().unwrap();
        for (local, expected) in [
            (taken, RebindError::AddressInUse(taken)),
            (elsewhere, RebindError::AddressNotAvailable(elsewhere)),
            (any("::1"), RebindError::OtherFamily { local: any("::1"), remote: remote.unwrap() }),
        ] {
            assert_eq!(client.rebind(local).await, Err(expected));
            assert_eq!(client.get_local_addr().unwrap(), before);
            talk(&client, &server).await;
            talk(&server, &client).await;
        }
        assert_eq!(server.get_remote_addr().unwrap(), before);
        assert_eq!(server.rebind(any("127.0.0.1")).await, Err(RebindError::NotClient));
    });
}

#[test]
fn a_client_is_moved_once_at_a_time_and_learns_its_new_address() {
    if cannot_move() {
        return;
    }
    run(async || {
        let Pair { client, server, .. } = movable_pair().await;
        rebind(&client, any("127.0.0.1")).await.unwrap();
        // A move may be over before another is asked for.
        let local = loop {
            let (first, second) =
                futures::join!(client.rebind(any("127.0.0.1")), client.rebind(any("127.0.0.1")));
            match (first, second) {
                (Ok(local), Err(RebindError::InProgress)) => break local,
                (first, second) => assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}"),
            }
        };
        // A future that was polled and dropped moves the client all the same.
        let mut dropped = Box::pin(client.rebind(any("127.0.0.1")));
        let _ = futures::poll!(&mut dropped);
        drop(dropped);
        loop {
            match client.next_change().await.unwrap() {
                ConnectionChange::LocalAddr(now) if now != local => break,
                _ => {}
            }
        }
        talk(&client, &server).await;
        talk(&server, &client).await;
        assert_eq!(server.get_remote_addr().unwrap(), client.get_local_addr().unwrap());
    });
}

#[test]
fn a_client_moves_only_while_it_is_connected() {
    if cannot_move() {
        return;
    }
    run(async || {
        let registration = Registration::new("test").unwrap();
        let client = Connection::new(&registration, credential()).unwrap();
        assert_eq!(client.rebind(any("127.0.0.1")).await, Err(RebindError::NotConfirmed));
        for closes in [true, false] {
            let Pair { client, server, .. } = movable_pair().await;
            if closes {
                client.shutdown(1, "")
            } else {
                server.shutdown(1, "")
            };
            client.watch_shutdown().await;
            let moved = client.rebind(any("127.0.0.1")).await;
            assert!(matches!(moved, Err(RebindError::ConnectionLost(_))), "{moved:?}");
        }
    });
}

#[test]
fn a_client_may_move_while_it_is_closed() {
    if cannot_move() {
        return;
    }
    run(async || {
        for round in 0..20 {
            let Pair { client, server, .. } = movable_pair().await;
            rebind(&client, any("127.0.0.1")).await.unwrap();
            let closing = if round % 2 == 0 { &client } else { &server };
            let close = async { closing.shutdown(9, "") };
            let (moved, ()) = if round % 4 < 2 {
                futures::join!(client.rebind(any("127.0.0.1")), close)
            } else {
                let ((), moved) = futures::join!(close, client.rebind(any("127.0.0.1")));
                (moved, ())
            };
            assert!(
                matches!(moved, Ok(_) | Err(RebindError::ConnectionLost(_))),
                "round {round}: {moved:?}"
            );
            for side in [&client, &server] {
                let end = side.watch_shutdown().await;
                assert!(
                    matches!(
                        end,
                        ConnectionError::ClosedLocally { code: 9, .. }
                            | ConnectionError::ClosedByPeer { code: 9, .. }
                    ),
                    "round {round}: {end:?}"
                );
            }
        }
    });
}

#[test]
fn a_peer_may_forbid_moves() {
    if cannot_move() {
        return;
    }
    run(async || {
        let settings = settings().datagrams(true).migration(false);
        let Pair { client, server, .. } = pair_with(settings, StreamLimits::default()).await;
        talk(&server, &client).await;
        assert_eq!(rebind(&client, any("127.0.0.1")).await, Err(RebindError::Forbidden));
        talk(&client, &server).await;
    });
}
