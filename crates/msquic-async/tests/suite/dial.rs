//! Remote and local addresses of connections: shared sockets, chosen local addresses, and names
//! with several addresses.

use super::peers::{ALPN, client_configuration, credential, listen, settings};
use super::skip::{lacks_patch, skip};
use crate::executors::{self, run, run_tokio};
use futures::AsyncReadExt;
use futures::future::{join, try_join_all};
use futures::stream::{self, FuturesUnordered, StreamExt};
use msquic_async::ConnectionStartError;
use msquic_async::{
    Configuration, Connection, ConnectionError, Dial, Listener, Registration, Settings, Status,
    StreamLimits, StreamType,
};
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A listener, and the means to dial other nodes.
struct Node {
    registration: Registration,
    listener: Listener,
    configuration: Configuration,
    settings: Settings,
}

impl Node {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings, credential(), StreamLimits::default());
        let configuration = client_configuration(&registration, &settings, StreamLimits::default());
        Self { registration, listener, configuration, settings }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn dial(&self, dial: Dial) -> Result<Connection, ConnectionStartError> {
        dial.connect(&self.registration, &self.configuration, &credential()).await
    }

    /// Dials `node`, which accepts; the dialled side comes second.
    async fn pair(&self, node: &Self, dial: Dial) -> (Connection, Connection) {
        let (client, server) = join(self.dial(dial), accept(&node.listener)).await;
        (client.unwrap(), server)
    }
}

async fn accept(listener: &Listener) -> Connection {
    let connection = listener.accept().await.unwrap();
    connection.accept().await.unwrap();
    connection
}

/// A dial to `node` that may share sockets.
fn shared(node: &Node) -> Dial {
    Dial::from(node.addr()).share_binding(true)
}

fn local(connection: &Connection) -> SocketAddr {
    connection.get_local_addr().unwrap()
}

fn status(result: Result<Connection, ConnectionStartError>) -> Status {
    match result {
        Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status,
            ..
        })) => status,
        result => panic!("{result:?}"),
    }
}

#[test]
fn the_server_name_may_differ_from_the_address() {
    run(async || {
        let node = Node::new();
        let dial = Dial::from(node.addr()).server_name("node.example");
        let incoming = async {
            let incoming = node.listener.accept_incoming().await.unwrap();
            let name = incoming.server_name().map(str::to_owned);
            let server = incoming.accept(&server_configuration(&node)).unwrap();
            server.accept().await.unwrap();
            (name, server)
        };
        let (client, (name, _server)) = join(node.dial(dial), incoming).await;
        client.unwrap();
        assert_eq!(name.as_deref(), Some("node.example"));
    });
}

fn server_configuration(node: &Node) -> Configuration {
    Configuration::server(&node.registration, &[ALPN], &node.settings, &credential()).unwrap()
}

#[test]
fn a_connection_leaves_from_the_address_that_was_chosen() {
    run(async || {
        let node = Node::new();
        let chosen: SocketAddr = (Ipv4Addr::new(127, 0, 0, 3), 0).into();
        for share in [false, true] {
            let dial = Dial::from(node.addr()).local_addr(chosen).share_binding(share);
            let (client, server) = node.pair(&node, dial).await;
            assert_eq!(local(&client).ip(), chosen.ip());
            assert_eq!(server.get_remote_addr().unwrap(), local(&client));
        }
        let client = Connection::new(&node.registration, credential()).unwrap();
        client.set_local_addr(chosen).unwrap();
        client.set_share_binding(false).unwrap();
        let address = node.addr();
        let start = client.start(&node.configuration, &address.ip().to_string(), address.port());
        let (started, server) = join(start, accept(&node.listener)).await;
        started.unwrap();
        assert_eq!(server.get_remote_addr().unwrap().ip(), chosen.ip());
        let late = client.set_local_addr(chosen);
        assert_eq!(late, Err(ConnectionStartError::AlreadyStarted));
    });
}

#[test]
fn an_address_that_the_machine_does_not_have_is_a_named_error() {
    run(async || {
        let node = Node::new();
        let foreign = "192.0.2.77:0".parse().unwrap();
        for share in [false, true] {
            let dial = Dial::from(node.addr()).local_addr(foreign).share_binding(share);
            assert_eq!(status(node.dial(dial).await), Status::ADDRESS_NOT_AVAILABLE);
        }
    });
}

#[test]
fn an_address_that_cannot_be_sent_from_is_reported_at_once() {
    run(async || {
        let node = Node::new();
        let dial = Dial::new("192.0.2.1", 9).local_addr("127.0.0.1:0".parse().unwrap());
        let own = status(node.dial(dial.clone().share_binding(false)).await);
        assert_eq!(status(node.dial(dial.share_binding(true)).await), own);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_leaves_through_the_interface_that_was_chosen() {
    if lacks_patch("N29") {
        return;
    }
    run(async || {
        let node = Node::new();
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let loopback = index.trim().parse().unwrap();
        node.pair(&node, Dial::from(node.addr()).interface(loopback)).await;
        let nowhere = Dial::from(node.addr()).interface(0x7fff_fff0);
        assert_eq!(status(node.dial(nowhere).await), Status::NO_SUCH_DEVICE);
    });
}

#[test]
fn connections_share_sockets_unless_told_otherwise() {
    if lacks_patch("N28") {
        return;
    }
    run(async || {
        let nodes = [Node::new(), Node::new(), Node::new()];
        let mut pairs = Vec::new();
        for node in nodes.iter().chain(&nodes) {
            pairs.push(nodes[0].pair(node, Dial::from(node.addr())).await);
        }
        for (client, server) in &pairs {
            assert_eq!(local(client).ip(), Ipv4Addr::LOCALHOST);
            assert_eq!(server.get_remote_addr().unwrap(), local(client));
        }
        // Other tests of this process dial at the same time, and two may make a socket at once.
        let ports: HashSet<_> = pairs.iter().map(|(client, _)| local(client).port()).collect();
        assert!(ports.len() < 3, "{ports:?}");
        let alone = Dial::from(nodes[0].addr()).share_binding(false);
        let (alone, _server) = nodes[0].pair(&nodes[0], alone).await;
        assert!(!ports.contains(&local(&alone).port()));
    });
}

#[test]
fn a_closed_port_is_reported_at_once_on_a_shared_socket() {
    if lacks_patch("N28") {
        return;
    }
    run(async || {
        let node = Node::new();
        let (client, _server) = node.pair(&node, shared(&node)).await;
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dial = Dial::from(closed).share_binding(true);
        assert_eq!(status(node.dial(dial).await), Status::UNREACHABLE);
        assert_eq!(client.close_reason(), None);
    });
}

#[test]
fn two_listeners_dial_each_other_from_their_ports_at_once() {
    if lacks_patch("N28") {
        return;
    }
    run(async || {
        let (one, two) = (Node::new(), Node::new());
        let there = one.pair(&two, Dial::from(two.addr()).local_addr(one.addr()));
        let back = two.pair(&one, Dial::from(one.addr()).local_addr(two.addr()));
        let ((there, _at_two), (back, at_one)) = join(there, back).await;
        assert_eq!(local(&there), one.addr());
        assert_eq!(local(&back), two.addr());
        assert_eq!(at_one.get_remote_addr().unwrap(), two.addr());
        // The listener still accepts.
        two.pair(&one, Dial::from(one.addr())).await;
        // Its port stays with the connection when it has stopped.
        one.listener.stop().await.unwrap();
        there.open_send_stream().await.unwrap().send("still here").await.unwrap();
    });
}

#[test]
fn a_name_without_an_address_is_a_typed_error() {
    run(async || {
        let node = Node::new();
        let error = node.dial(Dial::new("missing.invalid", 1)).await.unwrap_err();
        assert!(matches!(error, ConnectionStartError::Resolve { .. }), "{error:?}");
        let error = node.dial(Dial::new("127.0.0.1", 0)).await.unwrap_err();
        assert!(matches!(error, ConnectionStartError::InvalidInput(_)), "{error:?}");
    });
}

#[test]
fn a_name_is_resolved_and_dialled() {
    run(async || {
        let node = Node::new();
        let (client, _server) = node.pair(&node, Dial::new("localhost", node.addr().port())).await;
        assert_eq!(client.get_remote_addr().unwrap(), node.addr());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn hundreds_of_connections_need_few_descriptors() {
    if lacks_patch("N28") {
        return;
    }
    let _watchdog = super::watchdog::Watchdog::new();
    // In a process of its own: other tests open descriptors, too.
    let test = format!("{}::open_many", module_path!().split_once("::").unwrap().1);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .env("MSQUIC_ASYNC_CONNECTIONS", "500")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("500 open"), "{text}{errors}");
}

/// All of it, with one arena of glibc's allocator, because each arena keeps the most memory that it
/// ever had: `MALLOC_ARENA_MAX=1 cargo test --release -p msquic-async --test workers open_many --
/// --ignored --nocapture`
///
/// `ffi::heap` counts what stays allocated.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "takes minutes"]
#[allow(clippy::print_stdout, reason = "it measures")]
fn open_many() {
    let count = std::env::var("MSQUIC_ASYNC_CONNECTIONS");
    let count: usize = count.map_or(10_000, |count| count.parse().unwrap());
    executors::block_on(&Runtime::new().unwrap(), async {
        let hours = Duration::from_secs(3600);
        let settings = settings().idle_timeout(hours).handshake_idle_timeout(hours);
        let node = Node::with(settings.keep_alive_interval(Duration::ZERO));
        let mut memory = Vec::new();
        for round in 1..=3 {
            let before = descriptors();
            let begin = std::time::Instant::now();
            let open = open(&node, count).await;
            let (time, used) = (begin.elapsed(), descriptors() - before);
            println!("{count} open after {time:?}: {used} descriptors, {} KiB", resident());
            memory.push(resident());
            assert!(used < 200, "{used} descriptors");
            for (client, _) in &open {
                client.shutdown(0, "");
            }
            for (client, server) in &open {
                client.watch_shutdown().await;
                server.watch_shutdown().await;
            }
            drop(open);
            println!("round {round}: closed after {:?}, {} KiB", begin.elapsed(), resident());
        }
        // The first rounds fill caches and fragment the heap, which a few connections do not level out.
        assert!(count < 5000 || memory[2] < memory[1] + memory[1] / 20, "{memory:?} KiB");
    });
}

/// Connections that have exchanged a message, with both ends.
async fn open(node: &Node, count: usize) -> Vec<(Connection, Connection)> {
    let servers = async {
        let mut answers = FuturesUnordered::new();
        let mut servers = Vec::with_capacity(count);
        let mut accepted = 0;
        while servers.len() < count {
            tokio::select! {
                connection = node.listener.accept(), if accepted < count => {
                    accepted += 1;
                    let connection = connection.unwrap();
                    answers.push(async move {
                        connection.accept().await.unwrap();
                        let mut stream = connection.accept_inbound_stream().await.unwrap();
                        let mut question = Vec::new();
                        stream.read_to_end(&mut question).await.unwrap();
                        stream.write_chunk(&question.into(), true).await.unwrap();
                        connection
                    });
                }
                Some(server) = answers.next() => servers.push(server),
            }
        }
        servers
    };
    let clients = stream::iter(0..count).map(async |number: usize| {
        let client = dial_until_served(node, &shared(node)).await.unwrap();
        let mut stream =
            client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
        let question = number.to_string();
        stream.write_chunk(&question.clone().into(), true).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, question.as_bytes());
        client
    });
    let (servers, clients) = join(servers, clients.buffer_unordered(128).collect::<Vec<_>>()).await;
    clients.into_iter().zip(servers).collect()
}

/// Dials again while the listener refuses, because its workers are overloaded.
async fn dial_until_served(node: &Node, dial: &Dial) -> Result<Connection, ConnectionStartError> {
    loop {
        match node.dial(dial.clone()).await {
            Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
                status: Status::CONNECTION_REFUSED,
                ..
            })) => tokio::time::sleep(Duration::from_millis(50)).await,
            result => return result,
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn running_out_of_descriptors_is_a_typed_error() {
    let _watchdog = super::watchdog::Watchdog::new();
    let test = format!("{}::exhaust_descriptors", module_path!().split_once("::").unwrap().1);
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 150 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "started by running_out_of_descriptors_is_a_typed_error"]
fn exhaust_descriptors() {
    run_tokio(async || {
        let node = Node::new();
        let dial = Dial::from(node.addr()).share_binding(false);
        let dials = (0..100).map(|_| dial_until_served(&node, &dial));
        let accept = async {
            let mut servers = Vec::new();
            while let Ok(connection) = node.listener.accept().await {
                servers.push(connection);
            }
        };
        let dials = std::pin::pin!(try_join_all(dials));
        let accept = std::pin::pin!(accept);
        let error = match futures::future::select(dials, accept).await {
            futures::future::Either::Left((result, _)) => result.map(|_| ()).unwrap_err(),
            futures::future::Either::Right(_) => unreachable!("the listener runs"),
        };
        let ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status, ..
        }) = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(status, Status::TOO_MANY_OPEN_FILES);
        assert!(status.is_exhaustion());
    });
}

/// In a mount namespace, in which `/etc/hosts` has a name with two addresses.
#[test]
#[cfg(target_os = "linux")]
fn every_address_of_a_name_is_tried() {
    const SCRIPT: &str = "mount -t tmpfs none /mnt && \
        printf '127.0.0.9 two.test\\n127.0.0.1 two.test\\n' > /mnt/hosts && \
        mount --bind /mnt/hosts /etc/hosts && echo ready && exec \"$@\"";
    let _watchdog = super::watchdog::Watchdog::new();
    let test = format!("{}::dial_two_addresses", module_path!().split_once("::").unwrap().1);
    let output = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", SCRIPT, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .output();
    let Ok(output) = output else { return skip("there is no program `unshare`") };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !text.contains("ready") {
        return skip(format_args!("no namespace can be made here: {errors}"));
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[test]
#[ignore = "started by every_address_of_a_name_is_tried"]
fn dial_two_addresses() {
    run_tokio(async || {
        let node = Node::new();
        // The first address has no listener.
        let (client, _server) = node.pair(&node, Dial::new("two.test", node.addr().port())).await;
        assert_eq!(client.get_remote_addr().unwrap(), node.addr());

        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = node.dial(Dial::new("two.test", closed)).await.unwrap_err();
        let ConnectionStartError::NoAddress { errors, .. } = &error else { panic!("{error:?}") };
        let tried: HashSet<_> = errors.iter().map(|(address, _)| address.to_string()).collect();
        let expected = [format!("127.0.0.1:{closed}"), format!("127.0.0.9:{closed}")];
        assert_eq!(tried, HashSet::from(expected));
        assert!(error.to_string().contains("the peer is unreachable"), "{error}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::HostUnreachable);
    });
}
