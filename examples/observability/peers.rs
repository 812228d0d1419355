//! The events and metrics of pools and of transports that fall back.

use crate::observer::{self, Line, events, expect, grown, values};
use bytes::Bytes;
use net_peers::{FallbackTransport, PeerPool, PeerPoolConfig};
use net_traits::{
    ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use net_traits_test::Limits;
use net_traits_test::memory::{LinkPlan, MemoryNetwork};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const ALPN: &str = "peers/1";

fn node() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

fn any_port() -> SocketAddr {
    "0.0.0.0:0".parse().unwrap()
}

/// The events of pools with this message and this value of a field.
fn of(message: &str, (field, value): (&str, &str)) -> Vec<Line> {
    let mut lines = events(message, "");
    lines.retain(|line| line.get(field).is_some_and(|it| it == value));
    assert!(lines.iter().all(|line| line["target"] == "net::pool"), "{lines:?}");
    lines
}

/// Some fields of the only such event.
fn only(message: &str, about: (&str, &str), fields: &[&str]) -> String {
    let lines = of(message, about);
    let [line] = &lines[..] else { panic!("{message}: {lines:?}") };
    let fields = fields.iter().map(|name| line.get(name).cloned().unwrap_or_default());
    fields.collect::<Vec<_>>().join(" ")
}

fn counts<const N: usize>(counts: [(&str, f64); N]) -> BTreeMap<String, f64> {
    counts.into_iter().map(|(labels, count)| (labels.to_owned(), count)).collect()
}

#[test]
fn a_pool_reports_dials_losses_and_undelivered_messages() {
    observer::test("memory", true, async {
        let network = MemoryNetwork::new(1);
        let config = PeerPoolConfig::new().max_attempts(1);
        let (pool, _events) = PeerPool::new(network.transport(), &[ALPN], node(), config).unwrap();
        let gauges = || {
            ["net_pool_messages_held", "net_pool_peers_connected"]
                .map(|name| values(name, "").get("").copied().unwrap_or(0.0))
        };
        let names =
            ["net_pool_dials_total", "net_pool_changes_total", "net_pool_undelivered_total"];
        let before = names.map(|name| (name, values(name, "")));
        let counters = || before.each_ref().map(|(name, before)| grown(name, "", before));

        let absent = SocketAddr::from(([10, 9, 9, 9], 1));
        let stranger = node().identity();
        pool.send(stranger, absent, Bytes::from_static(b"in vain")).unwrap();
        assert_eq!(gauges(), [1.0, 0.0]);
        let refused = [counts([("refused", 1.0)]), counts([]), counts([("connect", 1.0)])];
        expect(refused, counters).await;
        assert_eq!(gauges(), [0.0, 0.0]);
        let failed = only("dial failed", ("remote", "10.9.9.9:1"), &["cause", "detail"]);
        assert_eq!(failed, "refused ");
        let stranger = &stranger.to_string()[..8];
        assert_eq!(only("message undelivered", ("peer", stranger), &["cause"]), "connect");

        let (host, peer) = (network.transport(), node());
        let listener = host.create_listener(any_port(), &[ALPN], peer.clone()).await.unwrap();
        pool.send(peer.identity(), listener.local_addr(), Bytes::from_static(b"hello")).unwrap();
        let connection = listener.accept().await.unwrap().accept().await.unwrap();
        assert_eq!(connection.recv().await.unwrap().0, "hello");
        expect([0.0, 1.0], gauges).await;
        connection.close(7, "done").await;
        expect([0.0, 0.0], gauges).await;
        let expected = [
            counts([("refused", 1.0), ("connected", 1.0)]),
            counts([("connected", 1.0), ("lost", 1.0)]),
            counts([("connect", 1.0)]),
        ];
        assert_eq!(counters(), expected);
        let short = &peer.identity().to_string()[..8];
        only("peer connected", ("peer", short), &[]);
        let reason = only("peer lost", ("peer", short), &["reason"]);
        assert!(reason.contains("done"), "{reason}");
    });
}

#[test]
fn a_pool_reports_stuck_connections_and_those_that_replace_them() {
    observer::test("memory", true, async {
        let before = values("net_pool_changes_total", "");
        let network = MemoryNetwork::new(1);
        let config = PeerPoolConfig::new();
        let (pool, _events) = PeerPool::new(network.transport(), &[ALPN], node(), config).unwrap();
        let (host, peer) = (network.transport(), node());
        let listener = host.create_listener(any_port(), &[ALPN], peer.clone()).await.unwrap();
        for _ in 0..60 {
            let message = Bytes::from_static(&[7; 16 * 1024]);
            pool.send(peer.identity(), listener.local_addr(), message).unwrap();
        }
        let accept = async || listener.accept().await.unwrap().accept().await.unwrap();
        let _stuck = accept().await; // nothing is received from it
        let fresh = accept().await;
        fresh.recv().await.unwrap();
        let expected = counts([("connected", 1.0), ("stuck", 1.0), ("replaced", 1.0)]);
        expect(expected, || grown("net_pool_changes_total", "", &before)).await;
        for message in ["connection stuck", "connection replaced"] {
            only(message, ("peer", &peer.identity().to_string()[..8]), &[]);
        }
    });
}

#[test]
fn a_pool_reports_messages_that_it_does_not_receive() {
    observer::test("memory", true, async {
        let before = values("net_pool_unreceived_total", "");
        let network = MemoryNetwork::new(1);
        let limits = Limits { max_message_size: 1000, ..Limits::default() };
        let transport = network.transport_with(limits);
        let config = PeerPoolConfig::new();
        let (pool, _events) = PeerPool::new(transport, &[ALPN], node(), config).unwrap();
        let (host, peer) = (network.transport(), node());
        let listener = host.create_listener(any_port(), &[ALPN], peer.clone()).await.unwrap();
        pool.send(peer.identity(), listener.local_addr(), Bytes::from_static(b"hello")).unwrap();
        let connection = listener.accept().await.unwrap().accept().await.unwrap();
        connection.send(&[7; 1001]).await.unwrap();
        let identity = peer.identity().to_string();
        let about = ("peer", &identity[..8]);
        expect(1, || of("message not received", about).len()).await;
        let reported = only("message not received", about, &["messages", "cause", "error"]);
        assert!(reported.starts_with("1 too_large ") && reported.contains("1001"), "{reported}");
        let expected = counts([("too_large", 1.0)]);
        expect(expected, || grown("net_pool_unreceived_total", "", &before)).await;
    });
}

/// Dials over two networks whose packets take this long.
async fn dial(first: u64, second: u64, listens: [bool; 2]) -> Result<(), ConnectError> {
    let networks = [first, second].map(|milliseconds| {
        let network = MemoryNetwork::new(1);
        network.set_links(LinkPlan::new().latency(Duration::from_millis(milliseconds)));
        network
    });
    let [one, other] = &networks;
    let address = SocketAddr::from(([10, 0, 0, 1], 4433));
    for (network, _) in networks.iter().zip(listens).filter(|(_, listens)| *listens) {
        let host = network.transport();
        let bind_addr = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let listener = host.create_listener(bind_addr, &[ALPN], node()).await.unwrap();
        assert_eq!(listener.local_addr(), address);
        tokio::spawn(async move { listener.accept().await.unwrap().accept().await });
    }
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    dialler.connect(address, &[ALPN], node()).await.map(drop)
}

#[test]
fn a_fallback_reports_each_path_with_its_errors() {
    observer::test("memory", true, async {
        // The primary transport dials alone for 250 ms. A handshake is a round trip.
        for (path, first, second, listens, has_errors) in [
            ("primary", 1, 1, [true, true], [false; 2]),
            ("primary_late", 200, 400, [true, true], [false; 2]),
            ("secondary_first", 1_000, 1, [true, true], [false; 2]),
            ("secondary_only", 1, 1, [false, true], [true, false]),
            ("neither", 1, 1, [false, false], [true; 2]),
        ] {
            let before = values("net_fallback_dials_total", "");
            let seen = events("dialled", "").len();
            let dialled = dial(first, second, listens).await;
            assert_eq!(dialled.is_err(), path == "neither", "{dialled:?}");
            let grown = grown("net_fallback_dials_total", "", &before);
            assert_eq!(grown, counts([(path, 1.0)]));
            let lines = events("dialled", "");
            let [line] = &lines[seen..] else { panic!("{path}: {lines:?}") };
            assert_eq!(line["target"], "net::fallback");
            assert_eq!((&*line["path"], &*line["remote"]), (path, "10.0.0.1:4433"));
            let has = ["error", "secondary_error"].map(|name| line.contains_key(name));
            assert_eq!(has, has_errors, "{line:?}");
        }
    });
}
