//! What a limit ends is logged and counted once, as a refusal and not as a failed handshake.

use crate::observer::{self, events, expect, grown, values};
use bytes::Bytes;
use net_traits::{
    Limit, NetConnection, NetCredential, NetListener, NetTransport, TransportStatistics,
    TrustPolicy,
};
use net_traits_test::memory::MemoryNetwork;
use net_traits_test::{Limits, Path, Relay};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

const ALPN: &str = "limits/1";

const REFUSED: &str = "net_connections_refused_total";
const FAILED: &str = "net_handshakes_failed_total";

/// The timeouts that a case exceeds.
const SHORT: Duration = Duration::from_millis(400);

/// The size of a message that is interrupted before its end.
const LARGE: usize = 32 * 1024 * 1024;

const ALL: [Limit; 5] = [
    Limit::PerIp,
    Limit::Connections,
    Limit::PerIdentity,
    Limit::HandshakeTimeout,
    Limit::MessageTimeout,
];

fn node() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// A path to a listener.
struct Route {
    address: SocketAddr,
    relay: Option<Relay>,
}

/// Exceeds each of the limits with one transport. `route` leads to a listener.
async fn run<T: NetTransport>(
    transport: &'static str,
    make: impl Fn(Option<Limit>) -> T,
    here: SocketAddr,
    limits: &[Limit],
    route: impl AsyncFn(Limit, SocketAddr) -> Route,
) {
    for &limit in limits {
        let before = [REFUSED, FAILED].map(|name| values(name, transport));
        let seen = ["refused", "handshake failed"].map(|message| events(message, transport).len());
        let (dialling, listening) = (make(None), make(Some(limit)));
        let listener = listening.create_listener(here, &[ALPN], node()).await.unwrap();
        let route = route(limit, listener.local_addr()).await;
        let receive_all = |connection: <T::Listener as NetListener>::Connection| async move {
            let _ = connection.send(b"welcome").await; // it may be refused meanwhile
            while connection.recv().await.is_ok() {}
        };
        let refused = async {
            let exceeding = exceed(limit, &dialling, &route, || listening.statistics());
            let _connections = exceeding.await;
            let limit = format!("{limit:?}");
            let expected = (BTreeMap::from([(limit.clone(), 1.0)]), vec![limit]);
            expect(expected, || {
                let lines = events("refused", transport);
                let limits = lines[seen[0]..].iter().map(|line| line["limit"].clone());
                (grown(REFUSED, transport, &before[0]), limits.collect())
            })
            .await;
        };
        tokio::select! {
            result = net_peers::serve(&listener, receive_all) => panic!("{result:?}"),
            () = refused => {}
        }
        // All attempts have ended after it.
        listening.shutdown(Duration::ZERO, "").await;
        let line = events("refused", transport).pop().unwrap();
        assert_eq!(line["target"], "net::limit");
        let remote: SocketAddr = line["remote"].parse().unwrap();
        assert_ne!(remote, listener.local_addr(), "it is the peer's");
        let failed = grown(FAILED, transport, &before[1]);
        assert!(!failed.keys().any(|labels| labels.starts_with("in ")), "{limit:?}: {failed:?}");
        let lines = &events("handshake failed", transport)[seen[1]..];
        assert!(lines.iter().all(|line| line["direction"] == "out"), "{limit:?}: {lines:?}");
    }
}

/// Exceeds a limit of the listener, and returns the connections.
async fn exceed<T: NetTransport>(
    limit: Limit,
    dialling: &T,
    route: &Route,
    of_listener: impl Fn() -> TransportStatistics,
) -> Vec<T::Connection> {
    let dial = |credential| dialling.connect(route.address, &[ALPN], credential);
    match limit {
        Limit::MessageTimeout => {
            let connection = dial(node()).await.unwrap();
            connection.recv().await.unwrap(); // the listener's handshake holds no memory any more
            let send = async {
                connection.send_bytes(Bytes::from(vec![7; LARGE])).await.unwrap();
                pending().await
            };
            let part_arrived = async {
                while of_listener().held_bytes == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = send => {}
                () = part_arrived => {}
            }
            if let Some(relay) = &route.relay {
                relay.interrupt(connection.local_addr());
            }
            vec![connection]
        }
        // With TLS 1.3 a dialler may be connected before the listener is.
        Limit::HandshakeTimeout => dial(node()).await.into_iter().collect(),
        _ => {
            let peer = node();
            let other = if limit == Limit::PerIdentity { peer.clone() } else { node() };
            let first = dial(peer).await.unwrap();
            [Ok(first), dial(other).await].into_iter().flatten().collect()
        }
    }
}

/// Relays TCP connections. If the handshake shall not complete, nothing that is sent arrives.
async fn tcp_route(limit: Limit, listener: SocketAddr) -> Route {
    let relay = Relay::tcp(listener).await.unwrap();
    if limit == Limit::HandshakeTimeout {
        relay.interrupt(relay.address());
    }
    Route { address: relay.address(), relay: Some(relay) }
}

/// Relays datagrams, if one of the timeouts is the limit. If the handshake shall not complete, those of the
/// listener do not arrive.
async fn udp_route(limit: Limit, listener: SocketAddr) -> Route {
    match limit {
        Limit::HandshakeTimeout => {}
        Limit::MessageTimeout => {
            let relay = Relay::udp(listener).await.unwrap();
            return Route { address: relay.address(), relay: Some(relay) };
        }
        _ => return Route { address: listener, relay: None },
    }
    let at_dialler = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = at_dialler.local_addr().unwrap();
    let at_listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    at_listener.connect(listener).await.unwrap();
    // What the dialler sends after the timeout of the listener would be another attempt.
    tokio::spawn(timeout(SHORT, async move {
        let mut datagram = vec![0; 65536];
        while let Ok(size) = at_dialler.recv(&mut datagram).await {
            let _ = at_listener.send(&datagram[..size]).await; // it may be lost
        }
    }));
    Route { address, relay: None }
}

/// Makes a transport over sockets with a limit that is soon exceeded.
macro_rules! limited {
    ($transport:ty, $config:ty) => {
        |limit| {
            let config = <$config>::new();
            let config = match limit {
                Some(Limit::PerIp) => config.max_connections_per_ip(1),
                Some(Limit::Connections) => config.max_connections(1),
                Some(Limit::PerIdentity) => config.max_connections_per_identity(1),
                Some(Limit::HandshakeTimeout) => config.handshake_timeout(SHORT),
                Some(Limit::MessageTimeout) => config.message_timeout(SHORT),
                Some(limit) => panic!("{limit:?}"),
                None => config.handshake_timeout(5 * SHORT), // at a limit it need not wait for long
            };
            <$transport>::with_config(config).unwrap()
        }
    };
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn tcp_reports_each_limit() {
    let make = limited!(tcp_tls_transport::TcpTlsTransport, tcp_tls_transport::TcpTlsConfig);
    observer::test("tcp", false, run("tcp", make, local(), &ALL, tcp_route));
}

#[test]
fn quinn_reports_each_limit() {
    let make = limited!(quinn_transport::QuinnTransport, quinn_transport::QuinnConfig);
    observer::test("quinn", false, run("quinn", make, local(), &ALL, udp_route));
}

#[cfg(feature = "msquic")]
#[test]
fn msquic_reports_each_limit() {
    use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
    let make = limited!(MsQuicTransport, MsQuicTransportConfig);
    observer::test("quic", false, run("quic", make, local(), &ALL, udp_route));
}

/// The listeners of the memory network do not wait for handshakes, and its messages arrive as a whole.
#[test]
fn the_memory_network_reports_each_limit() {
    observer::test("memory", true, async {
        let network = MemoryNetwork::new(1);
        let make = |limit| {
            let of = |its| if limit == Some(its) { 1 } else { 2 };
            network.transport_with(Limits {
                max_connections: of(Limit::Connections),
                max_connections_per_ip: of(Limit::PerIp),
                max_connections_per_identity: of(Limit::PerIdentity),
                ..Limits::default()
            })
        };
        let direct = async |_, address| Route { address, relay: None };
        let limits = [Limit::PerIp, Limit::Connections, Limit::PerIdentity];
        run("memory", make, "0.0.0.0:0".parse().unwrap(), &limits, direct).await;
    });
}
