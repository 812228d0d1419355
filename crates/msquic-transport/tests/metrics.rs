//! Counters of the `metrics` facade. They are global, so this test has a process of its own.

mod common;

use common::{Pair, pair, run};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use net_traits::NetConnection;
use std::collections::HashMap;

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
    let snapshot = snapshotter.snapshot().into_vec().into_iter();
    let counters: HashMap<_, _> = snapshot
        .map(|(key, _, _, value)| {
            let DebugValue::Counter(count) = value else { panic!("{key:?} is no counter") };
            (key.key().name().to_owned(), count)
        })
        .collect();
    for (name, expected) in [
        ("messages_sent", 2),
        ("bytes_sent", 120),
        ("messages_received", 2),
        ("bytes_received", 120),
        ("connections_opened", 2),
        ("connections_closed", 2),
    ] {
        let name = format!("msquic_transport_{name}");
        assert_eq!(counters.get(&name), Some(&expected), "{name} in {counters:?}");
    }
}
