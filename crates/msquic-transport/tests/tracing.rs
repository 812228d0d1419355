//! Events of `tracing`. The subscriber is global, so this test has a process of its own.

mod common;

use common::{Pair, pair, run};
use net_traits::NetConnection;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn events_name_the_peer_by_the_first_digits_of_its_identity() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let identity = run(async {
        let Pair { client, server, .. } = pair().await;
        server.span().in_scope(|| tracing::info!("of the application"));
        client.close(0, "").await;
        server.watch_close().await; // it is told although the handle lives
        server.remote_identity().to_owned()
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for event in ["connected", "of the application", "closed"] {
        let span = format!("connection{{peer=\"{}\"", &identity[..8]);
        let has = log.lines().any(|line| line.contains(event) && line.contains(&span));
        assert!(has, "{event} of {span} in {log}");
    }
    assert!(!log.contains(&identity), "the identity is truncated");
}
