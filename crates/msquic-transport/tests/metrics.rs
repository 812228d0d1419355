//! Counters of the `metrics` facade. They are global, so this test has a process of its own.

mod common;

use common::{ALPN, Pair, has_patch, pair, run};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
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
    let snapshot = snapshotter.snapshot().into_vec().into_iter();
    let counters: HashMap<_, _> = snapshot
        .map(|(key, _, _, value)| {
            let DebugValue::Counter(count) = value else { panic!("{key:?} is not a counter") };
            let labels: String = key.key().labels().map(|label| label.value()).collect();
            (format!("{}{labels}", key.key().name()), count)
        })
        .collect();
    for (name, expected) in [
        ("messages_sentquic", 5),
        ("bytes_sentquic", 1155),
        ("messages_receivedquic", 4),
        ("bytes_receivedquic", 154),
        ("messages_refusedquic", 1),
        ("connections_refusedquicPerIdentity", 1),
        ("connections_revokedquic", 1),
        ("handshakes_failedquicoutrefused", 1),
        ("handshakes_failedquicinrejected_by_us", 1),
        ("connections_resumedquic", resumed),
    ] {
        let name = format!("net_{name}");
        assert_eq!(counters.get(&name), Some(&expected), "{name} in {counters:?}");
    }
    // The rejected dialler is connected until it learns of it.
    let opened = counters["net_connections_openedquic"];
    assert!(opened == 10 || opened == 11, "{opened}");
    assert_eq!(counters["net_connections_closedquic"], opened);
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
