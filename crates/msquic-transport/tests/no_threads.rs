//! A process that has no memory for further threads.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, Pair, credentials, pair, run};
use msquic_transport::MsQuicTransport;
use net_traits::{CloseReason, ConnectError, ListenError, NetConnection, NetTransport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::process::Command;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Returns whether this is the process of the test, whose limits it may lower. The first call starts that and
/// returns false after its end.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(test).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.env(test, "1").args(["--exact", test, "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    false
}

/// Runs `operations` without memory for another thread.
async fn without_threads(operations: impl AsyncFnOnce()) {
    let limit = getrlimit(Resource::As);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    // Each thread has a stack of 2 MiB or more.
    let current = Some(pages * rustix::param::page_size() as u64 + 1024 * 1024);
    setrlimit(Resource::As, Rlimit { current, ..limit }).unwrap();
    // The stack of a thread that has ended may be used again, by a smaller one.
    assert!(std::thread::Builder::new().stack_size(64 << 20).spawn(|| ()).is_err());
    operations().await;
    setrlimit(Resource::As, limit).unwrap();
}

#[test]
fn msquic_cannot_be_started_without_threads_until_there_is_memory() {
    if !is_alone("msquic_cannot_be_started_without_threads_until_there_is_memory") {
        return;
    }
    run(async {
        let (for_server, for_client) = credentials();
        without_threads(async || {
            let transport = MsQuicTransport::new();
            let listener = transport.create_listener(ANY_PORT, &[ALPN], for_server).await;
            assert!(matches!(&listener, Err(ListenError::Transport(_))), "{listener:?}");
            let dialled = transport.connect(ANY_PORT, &[ALPN], for_client).await;
            let is_typed = matches!(&dialled, Err(ConnectError::Closed(CloseReason::Transport(_))));
            assert!(is_typed, "{dialled:?}");
        })
        .await;
        pair().await;
    });
}

#[test]
fn connections_go_on_and_close_without_memory_for_threads() {
    if !is_alone("connections_go_on_and_close_without_memory_for_threads") {
        return;
    }
    run(async {
        let Pair { listener, client, server } = pair().await;
        without_threads(async || {
            client.send(b"hello").await.unwrap();
            assert_eq!(server.recv().await.unwrap().0, "hello");
            assert!(client.close(0, "").await.is_confirmed());
            drop((client, server, listener));
            let another = pair().await;
            another.client.send(b"hello").await.unwrap();
            assert_eq!(another.server.recv().await.unwrap().0, "hello");
        })
        .await;
    });
}
