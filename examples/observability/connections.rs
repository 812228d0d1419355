//! What the events and metrics of a connection say, on both sides.

use crate::observer::{self, Line, events, expect, grown, values};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::memory::MemoryNetwork;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

const ALPN: &str = "connections/1";

/// Metrics that grow only with messages, and those of the ends of connections.
const COUNTERS: [&str; 5] = [
    "net_messages_sent_total",
    "net_bytes_sent_total",
    "net_messages_received_total",
    "net_bytes_received_total",
    "net_connections_closed_total",
];

fn node() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// One side sends 100 bytes and closes in order.
async fn run<T: NetTransport>(transport: &'static str, make: impl Fn() -> T, here: SocketAddr) {
    let (dialling, listening) = (make(), make());
    let (dials, listens) = (node(), node());
    let before = COUNTERS.map(|name| values(name, transport));
    let began = Instant::now();
    let listener = listening.create_listener(here, &[ALPN], listens.clone()).await.unwrap();
    let (dialled, accepted) =
        tokio::join!(dialling.connect(listener.local_addr(), &[ALPN], dials.clone()), async {
            listener.accept().await.unwrap().accept().await.unwrap()
        },);
    let (dialled, connected) = (dialled.unwrap(), Instant::now());
    dialled.send(&[7; 100]).await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().0, [7; 100][..]);
    let lasted = connected.elapsed();
    dialled.close(7, "done").await;
    accepted.watch_close().await;

    // The span of a connection has the peer's identity.
    let seen_with = |message: &str, peer: &NetCredential| {
        let peer = &peer.identity().to_string()[..8];
        let mut lines = events(message, transport);
        lines.retain(|line| line["target"] == "net::connection" && line["peer"] == peer);
        assert!(lines.iter().all(|line| line["span"] == "connection"), "{lines:?}");
        lines
    };
    let fields = |line: &Line| {
        let names = [
            "direction",
            "cause",
            "code",
            "reason",
            "messages_sent",
            "bytes_sent",
            "messages_received",
            "bytes_received",
        ];
        names.map(|name| line.get(name).cloned().unwrap_or_default()).join(" ")
    };
    let closed_with = |peer| seen_with("closed", peer).iter().map(fields).collect::<Vec<_>>();
    expect(vec!["out local 7 done 1 100 0 0".to_owned()], || closed_with(&listens)).await;
    expect(vec!["in peer 7 done 0 0 1 100".to_owned()], || closed_with(&dials)).await;
    for peer in [&listens, &dials] {
        assert_eq!(seen_with("connected", peer).len(), 1);
        let seconds: f64 = seen_with("closed", peer)[0]["seconds"].parse().unwrap();
        let possible = lasted.as_secs_f64()..began.elapsed().as_secs_f64();
        assert!(possible.contains(&seconds), "{seconds} s, not within {possible:?}");
    }
    let closing = seen_with("closing", &listens);
    assert_eq!(closing.iter().map(fields).collect::<Vec<_>>(), ["out  7 done    "]);
    assert!(seen_with("closing", &dials).is_empty());

    let one = |labels: &str, value| BTreeMap::from([(labels.to_owned(), value)]);
    let closed = BTreeMap::from(["local", "peer"].map(|cause| (cause.to_owned(), 1.0)));
    let expected = [one("", 1.0), one("", 100.0), one("", 1.0), one("", 100.0), closed];
    let grown = || {
        let mut of_each = COUNTERS.iter().zip(&before);
        [(); 5].map(|()| of_each.next().map(|(name, it)| grown(name, transport, it)).unwrap())
    };
    expect(expected, grown).await;
    assert_eq!(values("net_connections_open", transport)[""], 0.0, "the handles do not count");
    drop((dialled, accepted));
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn tcp_reports_how_a_connection_ended() {
    observer::test("tcp", false, run("tcp", tcp_tls_transport::TcpTlsTransport::new, local()));
}

#[test]
fn quinn_reports_how_a_connection_ended() {
    observer::test("quinn", false, run("quinn", quinn_transport::QuinnTransport::new, local()));
}

#[cfg(feature = "msquic")]
#[test]
fn msquic_reports_how_a_connection_ended() {
    let make = || msquic_transport::MsQuicTransport::new();
    observer::test("quic", false, run("quic", make, local()));
}

#[test]
fn the_memory_network_reports_how_a_connection_ended() {
    let network = MemoryNetwork::new(1);
    let run = run("memory", || network.transport(), "0.0.0.0:0".parse().unwrap());
    observer::test("memory", false, run);
}
