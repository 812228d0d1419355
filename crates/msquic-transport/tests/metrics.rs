//! Metrics of the facade `metrics`. They are global, so this test has a process of its own.

mod common;

use common::{ALPN, Pair, has_patch, pair, run};
use futures_util::FutureExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot, Snapshotter};
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, RecvError,
    TrustPolicy,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
        // A listener that trusts no peer, and a dialler that it rejects.
        listener.set_trust(TrustPolicy::reject_all());
        let (_, rejected) =
            tokio::join!(dialler.connect(listener.local_addr(), &[ALPN], credential()), accept());
        rejected.unwrap_err();
        // msquic does not tell the listener; the next call of `accept` counts it.
        dialler.connect(listener.local_addr(), &["other/1"], credential()).await.unwrap_err();
        assert!(listener.accept().now_or_never().is_none());
        // One attempt waits, and msquic refuses the other.
        let config = MsQuicTransportConfig::new().backlog(1);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let listener = transport.create_listener(address, &[ALPN], credential()).await.unwrap();
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], credential());
        tokio::select! {
            dialled = dial() => dialled.unwrap_err(),
            dialled = dial() => dialled.unwrap_err(),
        };
    });
    let mut counters = HashMap::new();
    run_sampled(&snapshotter, &mut counters);
    let resumed = run_resumed();
    // msquic ends connections in the background.
    loop {
        add(snapshotter.snapshot(), &mut counters);
        if sum(&counters, "net_connections_closed_total")
            == sum(&counters, "net_connections_opened_total")
            && counters["net_connections_open quic"] == 0
        {
            break;
        }
        std::thread::yield_now();
    }
    for (name, expected) in [
        ("net_messages_sent_total quic", 6),
        ("net_bytes_sent_total quic", 1169),
        ("net_messages_received_total quic", 5),
        ("net_bytes_received_total quic", 168),
        ("net_messages_refused_total quic", 1),
        ("net_connections_refused_total quic PerIdentity", 1),
        ("net_connections_revoked_total quic", 1),
        ("net_attempts_without_protocol_total quic", 1),
        ("net_connections_closed_total quic revoked", 1),
        ("net_handshakes_failed_total quic out refused ", 2),
        ("net_handshakes_failed_total quic in rejected_by_us untrusted_identity", 1),
        ("net_connections_resumed_total quic", resumed),
        ("net_rtt_seconds quic", 2),
        ("net_send_queue_bytes quic", 2),
    ] {
        assert_eq!(counters.get(name), Some(&expected), "{name} in {counters:?}");
    }
    assert!(counters["net_connections_refused_total quic Backlog"] >= 1, "{counters:?}");
    assert!(counters["net_packets_sent_total quic"] >= 2 * 3, "{counters:?}");
    assert!(counters.contains_key("net_packets_lost_total quic"));
    // The rejected dialler is connected until it learns of it.
    let opened = sum(&counters, "net_connections_opened_total");
    assert!(opened == 12 || opened == 13, "{opened}");
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

/// Keeps a connection until both ends were sampled.
fn run_sampled(snapshotter: &Snapshotter, counters: &mut HashMap<String, u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pair = pair().await;
        pair.client.send(b"it is measured").await.unwrap();
        pair.server.recv().await.unwrap();
        tokio::time::pause(); // msquic has its own clock
        tokio::time::sleep(Duration::from_secs(11)).await;
        tokio::time::resume();
        let is_sampled = async {
            while counters.get("net_rtt_seconds quic") < Some(&2) {
                tokio::time::sleep(Duration::from_millis(1)).await; // msquic answers on its threads
                add(snapshotter.snapshot(), counters);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_sampled).await.expect("no samples");
    });
}

/// Connects twice with resumption, and returns how many ends report a resumed session: two if the
/// library supports it.
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
