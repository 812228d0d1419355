//! Operation: limits, statistics, shutdown.

use net_traits::{
    AcceptError, CloseReason, ConnectError, ListenError, NetConnection, NetCredential,
    NetIncomingRequest, NetListener, NetTransport, RecvError, TransportStatistics, TrustPolicy,
    close_code,
};
use net_traits_test::key_log;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsConnection, TcpTlsListener, TcpTlsTransport};
use tokio::time::timeout;

const ALPN: &str = "test/1";

/// No test takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(60);

type Connected = Result<TcpTlsConnection, ConnectError>;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

fn anybody() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen(config: TcpTlsConfig) -> (TcpTlsTransport, TcpTlsListener) {
    let transport = TcpTlsTransport::with_config(config).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], anybody()).await.unwrap();
    (transport, listener)
}

/// Connects and accepts; returns what each side gets.
async fn meet(listener: &TcpTlsListener, client: NetCredential) -> (Connected, Connected) {
    let dialler = TcpTlsTransport::new();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], client);
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::join!(dial, accept)
}

#[test]
fn statistics_count_connections_messages_and_refusals() {
    run(async {
        let config = TcpTlsConfig::new().max_message_size(1000).max_connections_per_ip(1);
        let (transport, listener) = listen(config).await;
        let (client, server) = meet(&listener, anybody()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        client.send(&[0; 100]).await.unwrap();
        client.try_send(vec![0; 20].into()).unwrap();
        client.send(&[0; 1001]).await.unwrap();
        server.recv().await.unwrap();
        server.recv().await.unwrap();
        assert_eq!(server.recv().await, Err(RecvError::TooLarge { size: 1001, limit: 1000 }));
        let sent = client.message_statistics();
        assert_eq!((sent.messages_sent, sent.bytes_sent), (3, 1121));
        let dialler = TcpTlsTransport::new();
        let refused = tokio::select! {
            dialled = dialler.connect(listener.local_addr(), &[ALPN], anybody()) => dialled,
            accepted = listener.accept() => panic!("{accepted:?} was admitted"),
        };
        assert!(refused.is_err());
        let TransportStatistics { connections, handshakes, messages, .. } = transport.statistics();
        assert_eq!((connections, handshakes), (1, 0));
        assert_eq!((messages.messages_received, messages.bytes_received), (2, 120));
        assert_eq!(transport.statistics().refused_per_ip, 1);
        assert_eq!(transport.statistics().refused_messages, 1);
        drop(server);
        while transport.statistics().connections > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await; // it lingers
        }
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_counted() {
    run(async {
        let handshake_timeout = Duration::from_millis(50);
        let config = TcpTlsConfig::new().handshake_timeout(handshake_timeout);
        let (transport, listener) = listen(config).await;
        let _silent = tokio::net::TcpStream::connect(listener.local_addr()).await.unwrap();
        let error = listener.accept().await.unwrap().accept().await.unwrap_err();
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
        assert_eq!(transport.statistics().refused_handshake_timeout, 1);
        assert_eq!(transport.statistics().handshakes, 0);
    });
}

#[test]
fn shutdown_delivers_what_is_queued_and_frees_the_port() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::default()).await;
        let address = listener.local_addr();
        let (client, server) = meet(&listener, anybody()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        server.send(b"last words").await.unwrap();
        let accepting = tokio::spawn(async move { (listener.accept().await.err(), listener) });
        let read = async {
            assert_eq!(client.recv().await.unwrap().0, "last words");
            client.watch_close().await
        };
        let ((), reason) = tokio::join!(transport.shutdown(HANG, "maintenance"), read);
        let (code, text) = (close_code::SHUTDOWN, "maintenance".to_owned());
        assert_eq!(reason, CloseReason::Peer { code, reason: text.clone() });
        assert_eq!(server.watch_close().await, CloseReason::Local { code, reason: text });
        let (error, listener) = accepting.await.unwrap();
        assert_eq!(error, Some(AcceptError::Closed));
        assert_eq!(listener.accept().await.err(), Some(AcceptError::Closed));
        let dialled = transport.connect(address, &[ALPN], anybody()).await;
        assert!(matches!(dialled, Err(ConnectError::Closed(CloseReason::Local { .. }))));
        let listened = transport.create_listener(address, &[ALPN], anybody()).await;
        assert!(matches!(listened, Err(ListenError::Transport(_))));
        let other = TcpTlsTransport::new();
        other.create_listener(address, &[ALPN], anybody()).await.unwrap();
    });
}

#[test]
fn shutdown_does_not_wait_for_a_stuck_peer_beyond_the_deadline() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::default()).await;
        let (client, server) = meet(&listener, anybody()).await;
        let (_client, server) = (client.unwrap(), server.unwrap());
        // The client does not receive: its inbox, the sockets and the outbox fill up.
        while server.try_send(vec![0; 1024 * 1024].into()).is_ok() || {
            let sent = timeout(Duration::from_millis(200), server.send(&[0; 1024 * 1024])).await;
            sent.is_ok()
        } {}
        transport.shutdown(Duration::from_millis(100), "maintenance").await;
        assert!(matches!(server.watch_close().await, CloseReason::Local { .. }));
    });
}

#[test]
fn an_identity_has_as_many_connections_as_over_quic() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::new()).await;
        let client = anybody();
        let mut connections = Vec::new();
        for _ in 0..20 {
            let (dialled, accepted) = meet(&listener, client.clone()).await;
            connections.push((dialled.unwrap(), accepted.unwrap()));
        }
        assert_eq!(transport.statistics().refused_per_identity, 4);
        assert_eq!(transport.connections().len(), 16);
        let reason = connections[0].0.watch_close().await;
        assert!(
            matches!(reason, CloseReason::Peer { code: close_code::TOO_MANY_PER_IDENTITY, .. }),
            "{reason:?}"
        );
    });
}

#[test]
fn idle_connections_with_a_short_idle_timeout_are_kept_alive() {
    run(async {
        let idle = Duration::from_secs(1);
        let config = || TcpTlsConfig::new().idle_timeout(idle);
        let (_transport, listener) = listen(config()).await;
        let dialler = TcpTlsTransport::with_config(config()).unwrap();
        let dial = dialler.connect(listener.local_addr(), &[ALPN], anybody());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        assert!(timeout(3 * idle, dialled.watch_close()).await.is_err());
        dialled.send(b"still there").await.unwrap();
        assert_eq!(accepted.recv().await.unwrap().0, "still there");
    });
}

#[test]
fn what_is_lost_with_a_runtime_is_counted_and_its_handles_drop_anywhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (transport, client, server) = runtime.block_on(async {
        let (transport, listener) = listen(TcpTlsConfig::new()).await;
        let (client, server) = meet(&listener, anybody()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        while server.try_send(vec![0; 100_000].into()).is_ok() {} // the client does not read
        (transport, client, server)
    });
    drop(runtime);
    let statistics = transport.statistics();
    assert_eq!(statistics.connections, 0);
    assert!(statistics.undelivered_messages > 0, "{statistics:?}");
    std::thread::spawn(move || drop((client, server))).join().unwrap();
    assert_eq!(transport.statistics(), statistics, "they are counted once");
}

#[test]
fn both_sides_write_the_same_secrets() {
    let directory = tempfile::tempdir().unwrap();
    run(async move {
        let make = |key_log| {
            let config = TcpTlsConfig::new().key_log(Some(key_log));
            TcpTlsTransport::with_config(config).unwrap()
        };
        key_log::both_sides_write_the_same_secrets(make, directory.path()).await;
    });
}
