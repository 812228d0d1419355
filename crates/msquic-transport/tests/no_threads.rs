//! A process that has no memory for further threads.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, Pair, credentials, pair, run};
use msquic_transport::MsQuicTransport;
use net_traits::{CloseReason, ConnectError, ListenError, NetConnection, NetTransport};
use net_traits_test::{is_in_own_process, without_threads};
use std::net::SocketAddr;

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[test]
fn msquic_cannot_be_started_without_threads_until_there_is_memory() {
    if !is_in_own_process("msquic_cannot_be_started_without_threads_until_there_is_memory") {
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
    if !is_in_own_process("connections_go_on_and_close_without_memory_for_threads") {
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
