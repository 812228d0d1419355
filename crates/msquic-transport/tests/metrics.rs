//! Metrics of the facade `metrics`. They are global, so this test has a process of its own.

mod common;

use common::{ALPN, Pair, has_patch, pair, run};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, RecvError,
    TrustPolicy,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn messages_and_connections_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    run(async {
        let Pair { client, server, .. } = pair().await;
        client.send(&[0; 100]).await.unwrap();
        client.send(&[0; 20]).await.unwrap();
        server.recv().await.unwrap();
        server.recv().await.unwrap();
    });
    run(async {
        let credential = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let config =
            MsQuicTransportConfig::new().max_connections_per_identity(1).max_message_size(1000);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &[ALPN], credential()).await.unwrap();
        let (dialler, me) = (MsQuicTransport::new(), credential());
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], me.clone());
        let accept = async || listener.accept().await.unwrap().accept().await;
        let (replaced, _kept) = tokio::join!(dial(), accept());
        let (client, server) = tokio::join!(dial(), accept());
        let (client, server) = (client.unwrap(), server.unwrap());
        replaced.unwrap().watch_close().await;
        client.send(&[0; 1001]).await.unwrap();
        assert_eq!(server.recv().await, Err(RecvError::TooLarge { size: 1001, limit: 1000 }));
        assert_eq!(transport.statistics().refused_messages, 1);
        assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, 1);
        client.watch_close().await;
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        dialler.connect(closed, &[ALPN], me).await.unwrap_err();
        // A listener that trusts no peer, and a dialler that learns it.
        listener.set_trust(TrustPolicy::reject_all());
        let (_, rejected) =
            tokio::join!(dialler.connect(listener.local_addr(), &[ALPN], credential()), accept());
        rejected.unwrap_err();
    });
    let resumed = run_resumed();
    let mut counters = HashMap::new();
    // msquic ends connections in the background.
    while counters.is_empty()
        || sum(&counters, "net_connections_closed_total")
            < sum(&counters, "net_connections_opened_total")
        || counters["net_connections_open quic"] > 0
    {
        std::thread::yield_now();
        add(snapshotter.snapshot(), &mut counters);
    }
    for (name, expected) in [
        ("messages_sent_total quic", 5),
        ("bytes_sent_total quic", 1155),
        ("messages_received_total quic", 4),
        ("bytes_received_total quic", 154),
        ("messages_refused_total quic", 1),
        ("connections_refused_total quic PerIdentity", 1),
        ("connections_revoked_total quic", 1),
        ("connections_closed_total quic revoked", 1),
        ("handshakes_failed_total quic out refused ", 1),
        ("handshakes_failed_total quic in rejected_by_us untrusted_identity", 1),
        ("connections_resumed_total quic", resumed),
    ] {
        let name = format!("net_{name}");
        assert_eq!(counters.get(&name), Some(&expected), "{name} in {counters:?}");
    }
    // The rejected dialler is connected until it learns of it.
    let opened = sum(&counters, "net_connections_opened_total");
    assert!(opened == 10 || opened == 11, "{opened}");
    assert_eq!(sum(&counters, "net_connections_closed_total"), opened, "{counters:?}");
    assert_eq!(counters["net_connections_open quic"], 0);
}

/// Adds the counters whose name begins with `name`.
fn sum(counters: &HashMap<String, u64>, name: &str) -> u64 {
    counters.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, count)| count).sum()
}

/// Adds what was counted since the snapshot before.
fn add(snapshot: Snapshot, counters: &mut HashMap<String, u64>) {
    for (key, _, _, value) in snapshot.into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
        let counter =
            counters.entry(format!("{} {}", key.key().name(), labels.join(" "))).or_default();
        match value {
            DebugValue::Counter(count) => *counter += count,
            DebugValue::Gauge(value) => *counter = value.0 as u64,
            DebugValue::Histogram(values) => *counter += values.len() as u64,
        }
    }
}

/// Connects twice with resumption, and returns how many ends say that they resumed: both, where the
/// library can.
fn run_resumed() -> u64 {
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let can_resume = has_patch("N11-A9");
    let config = MsQuicTransportConfig::new().resumption(can_resume);
    let transport = MsQuicTransport::with_config(config).unwrap();
    let resumed = Arc::new(AtomicU64::new(0));
    let count = resumed.clone();
    run(async move {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener =
            transport.create_listener(address, &[ALPN], credential.clone()).await.unwrap();
        for _ in 0..2 {
            let dial = transport.connect(listener.local_addr(), &[ALPN], credential.clone());
            let accept = async { listener.accept().await.unwrap().accept().await };
            let (client, server) = tokio::try_join!(dial, accept).unwrap();
            server.send(b"behind the ticket").await.unwrap();
            client.recv().await.unwrap();
            let ends = [client.is_resumed(), server.is_resumed()];
            count.fetch_add(ends.map(u64::from).iter().sum(), Ordering::Relaxed);
        }
    });
    let resumed = resumed.load(Ordering::Relaxed);
    assert_eq!(resumed, if can_resume { 2 } else { 0 });
    resumed
}
