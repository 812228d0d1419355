//! What happens to connections before they end: each is logged and counted once, on its side.

use crate::observer::{self, Line, events, expect, grown, values};
use bytes::Bytes;
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, RecvError,
    TrustPolicy,
};
use net_traits_test::Limits;
use net_traits_test::memory::{LinkPlan, MemoryNetwork};
use std::net::SocketAddr;
use std::time::Duration;

const ALPN: &str = "incidents/1";

/// The longest message of a listener. Diallers send longer ones.
const LONGEST: usize = 1000;

fn node() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// The events with these messages so far, and the values of these metrics with all labels added up.
struct Seen {
    transport: &'static str,
    events: Vec<(&'static str, usize)>,
    metrics: Vec<(&'static str, f64)>,
}

impl Seen {
    fn now(transport: &'static str, messages: &[&'static str], metrics: &[&'static str]) -> Self {
        let events = messages.iter().map(|it| (*it, events(it, transport).len()));
        let metrics = metrics.iter().map(|it| (*it, sum(it, transport)));
        Self { transport, events: events.collect(), metrics: metrics.collect() }
    }

    /// Waits until this many events of each kind were logged since, and each metric has grown by that.
    async fn expect<const E: usize, const M: usize>(&self, events: [usize; E], metrics: [f64; M]) {
        let expected = (events.to_vec(), metrics.to_vec());
        expect(expected, || {
            let of_each = self.events.iter();
            let events = of_each.map(|(it, seen)| self::events(it, self.transport).len() - seen);
            let metrics = self.metrics.iter().map(|(it, seen)| sum(it, self.transport) - seen);
            (events.collect::<Vec<_>>(), metrics.collect::<Vec<_>>())
        })
        .await;
    }
}

fn sum(name: &str, transport: &str) -> f64 {
    values(name, transport).values().sum()
}

async fn connect<T: NetTransport>(dialling: &T, listener: &T::Listener) -> Ends<T> {
    connect_as(&node(), dialling, listener).await
}

type Ends<T> =
    (<T as NetTransport>::Connection, <<T as NetTransport>::Listener as NetListener>::Connection);

async fn connect_as<T: NetTransport>(
    dialler: &NetCredential,
    dialling: &T,
    listener: &T::Listener,
) -> Ends<T> {
    let dial = dialling.connect(listener.local_addr(), &[ALPN], dialler.clone());
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::try_join!(dial, accept).unwrap()
}

/// `make` creates a transport with a longest message, or the default.
async fn run<T: NetTransport>(
    name: &'static str,
    make: impl Fn(Option<usize>) -> T,
    here: SocketAddr,
) {
    let (dialling, listening) = (make(None), make(Some(LONGEST)));
    let listener = listening.create_listener(here, &[ALPN], node()).await.unwrap();

    let metrics = [
        "net_connections_opened_total",
        "net_handshake_seconds_count",
        "net_message_bytes_count",
        "net_connection_seconds_count",
    ];
    let before = Seen::now(name, &["connected"], &metrics);
    let undelivered = ["net_messages_undelivered_total", "net_bytes_undelivered_total"];
    let undelivered = Seen::now(name, &[], &undelivered);
    let lines = events("messages undelivered", name).len();
    let (dialled, accepted) = connect(&dialling, &listener).await;
    dialled.send(b"the first message is measured").await.unwrap();
    accepted.recv().await.unwrap();
    before.expect([2], [2.0, 2.0, 2.0, 0.0]).await;
    let directions = values("net_handshake_seconds_count", name).into_keys();
    assert_eq!(directions.collect::<Vec<_>>(), ["in", "out"]);

    let message = "a received message exceeds the limit";
    let refused = Seen::now(name, &[message], &["net_messages_refused_total"]);
    dialled.send(&[7; LONGEST + 1]).await.unwrap();
    assert!(matches!(accepted.recv().await, Err(RecvError::TooLarge { .. })));
    refused.expect([1], [1.0]).await;
    let line: Line = events(message, name).pop().unwrap();
    assert_eq!((&*line["target"], &*line["direction"]), ("net::limit", "in"));

    let message = "revoked: no longer trusted";
    let revoked = Seen::now(name, &[message], &["net_connections_revoked_total"]);
    assert_eq!(listening.revoke(&TrustPolicy::reject_all()).await, 1);
    dialled.watch_close().await;
    revoked.expect([1], [1.0]).await;
    let line: Line = events(message, name).pop().unwrap();
    assert_eq!((&*line["target"], &*line["direction"]), ("net::connection", "in"));
    before.expect([2], [2.0, 2.0, 2.0, 2.0]).await;

    let (dialled, accepted) = connect(&dialling, &listener).await;
    dialled.send(b"the stream is open").await.unwrap();
    accepted.recv().await.unwrap(); // and nothing after it
    while dialled.try_send(Bytes::from_static(&[7; LONGEST])).is_ok() {}
    dialled.abort(7, "gone");
    dialled.watch_close().await;
    let lost = |field: &str| {
        let lines = events("messages undelivered", name).into_iter().skip(lines);
        lines.map(|line| line[field].parse::<f64>().unwrap()).sum::<f64>()
    };
    expect(true, || lost("messages") > 10.0).await;
    undelivered.expect([], [lost("messages"), lost("bytes")]).await;
    let counted = dialling.statistics();
    assert_eq!(counted.undelivered_messages as f64, lost("messages"));
    assert_eq!(counted.undelivered_bytes as f64, lost("bytes"));
}

/// Keeps a connection until both ends were sampled. `transport` was made after the recorder was installed;
/// `measured` are the metrics of the path.
async fn sample<T: NetTransport>(
    name: &'static str,
    transport: T,
    here: SocketAddr,
    measured: &[&'static str],
) {
    tokio::time::resume();
    let listener = transport.create_listener(here, &[ALPN], node()).await.unwrap();
    let metrics = ["net_send_queue_bytes_count", "net_rtt_seconds_count", "net_packets_sent_total"];
    let before = metrics.map(|metric| values(metric, name));
    let seen = events("sample", name).len();
    let (dialled, accepted) = connect(&transport, &listener).await;
    dialled.send(b"it is measured").await.unwrap();
    accepted.recv().await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(11)).await;
    tokio::time::resume();
    expect(true, || events("sample", name).len() - seen >= 2).await;
    let lines = &events("sample", name)[seen..];
    let is_measured = !measured.is_empty();
    assert!(lines.iter().all(|line| line["target"] == "net::connection"), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains_key("rtt") == is_measured), "{lines:?}");
    for (metric, before) in metrics.iter().zip(&before) {
        let has_grown = || !grown(metric, name, before).is_empty();
        expect(is_measured || *metric == metrics[0], has_grown).await;
    }
    for metric in measured {
        assert!(values(metric, name).contains_key(""), "{metric}");
    }
}

/// What is measured of a path of QUIC.
const OF_QUIC: [&str; 2] = ["net_packets_sent_total", "net_packets_lost_total"];

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Makes a transport over sockets.
macro_rules! limited {
    ($transport:ty, $config:ty) => {
        |longest| {
            let config = <$config>::new();
            let config = match longest {
                Some(longest) => config.max_message_size(longest),
                None => config,
            };
            <$transport>::with_config(config).unwrap()
        }
    };
}

#[test]
fn tcp_reports_incidents() {
    let make = limited!(tcp_tls_transport::TcpTlsTransport, tcp_tls_transport::TcpTlsConfig);
    observer::test("tcp", false, run("tcp", make, local()));
}

#[test]
fn tcp_samples_connections() {
    let sampled = async {
        sample("tcp", tcp_tls_transport::TcpTlsTransport::new(), local(), &[]).await;
    };
    observer::test("tcp", true, sampled);
}

#[test]
fn quinn_reports_incidents() {
    let make = limited!(quinn_transport::QuinnTransport, quinn_transport::QuinnConfig);
    observer::test("quinn", false, run("quinn", make, local()));
}

#[test]
fn quinn_samples_connections() {
    let sampled = async {
        sample("quinn", quinn_transport::QuinnTransport::new(), local(), &OF_QUIC).await;
    };
    observer::test("quinn", true, sampled);
}

#[cfg(feature = "msquic")]
mod msquic {
    use super::*;
    use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};

    #[test]
    fn msquic_reports_incidents() {
        let make = limited!(MsQuicTransport, MsQuicTransportConfig);
        observer::test("quic", false, run("quic", make, local()));
    }

    #[test]
    fn msquic_samples_connections() {
        let sampled = async { sample("quic", MsQuicTransport::new(), local(), &OF_QUIC).await };
        observer::test("quic", true, sampled);
    }

    #[test]
    fn msquic_reports_each_resumed_session() {
        observer::test("quic", false, async {
            let message = "session resumed";
            let before = Seen::now("quic", &[message], &["net_connections_resumed_total"]);
            // Not each library supports it.
            let config = MsQuicTransportConfig::new().resumption(true);
            let Ok(transport) = MsQuicTransport::with_config(config) else { return };
            let listener = transport.create_listener(local(), &[ALPN], node()).await.unwrap();
            let (me, mut resumed) = (node(), 0);
            for _ in 0..2 {
                let (client, server) = connect_as(&me, &transport, &listener).await;
                server.send(b"behind the ticket").await.unwrap();
                client.recv().await.unwrap();
                resumed += usize::from(client.is_resumed()) + usize::from(server.is_resumed());
            }
            before.expect([resumed], [resumed as f64]).await;
        });
    }
}

#[test]
fn the_memory_network_reports_incidents() {
    let network = MemoryNetwork::new(1);
    network.set_links(LinkPlan::new().latency(Duration::from_millis(1)));
    let make = |longest: Option<usize>| {
        let default = Limits::default();
        let max_message_size = longest.unwrap_or(default.max_message_size);
        network.transport_with(Limits { max_message_size, ..default })
    };
    observer::test("memory", false, run("memory", make, "0.0.0.0:0".parse().unwrap()));
}

#[test]
fn the_memory_network_samples_connections() {
    let sampled = async {
        let transport = MemoryNetwork::new(1).transport();
        sample("memory", transport, "0.0.0.0:0".parse().unwrap(), &[]).await;
    };
    observer::test("memory", true, sampled);
}
