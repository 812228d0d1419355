//! Limits, statistics, keep-alives and shutdown, as far as they are of this transport.

mod common;

use common::{ALPN, HANG, listen, run, trusting};
use net_traits::{
    CloseReason, ConnectError, DatagramError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, close_code,
};
use net_traits_test::key_log;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsConnection, TcpTlsListener, TcpTlsTransport};
use tokio::time::timeout;

type Connected = Result<TcpTlsConnection, ConnectError>;

/// Connects and accepts; returns what each side gets.
async fn meet(listener: &TcpTlsListener, client: NetCredential) -> (Connected, Connected) {
    let dialler = TcpTlsTransport::new();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], client);
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::join!(dial, accept)
}

#[test]
fn connections_of_an_address_are_limited_and_counted() {
    run(async {
        let config = TcpTlsConfig::new().max_connections_per_ip(1);
        let (transport, listener) = listen(config).await;
        let (client, server) = meet(&listener, trusting()).await;
        let (client, _server) = (client.unwrap(), server.unwrap());
        client.send(&[0; 100]).await.unwrap();
        client.try_send(vec![0; 20].into()).unwrap();
        let sent = client.message_statistics();
        assert_eq!((sent.messages_sent, sent.bytes_sent), (2, 120));
        let dialler = TcpTlsTransport::new();
        let refused = tokio::select! {
            dialled = dialler.connect(listener.local_addr(), &[ALPN], trusting()) => dialled,
            accepted = listener.accept() => panic!("{accepted:?} was admitted"),
        };
        assert!(refused.is_err());
        assert_eq!(transport.statistics().refused_per_ip, 1);
    });
}

#[test]
fn there_are_no_datagrams() {
    run(async {
        let (_transport, listener) = listen(TcpTlsConfig::new()).await;
        let (client, server) = meet(&listener, trusting()).await;
        for connection in [client.unwrap(), server.unwrap()] {
            assert_eq!(connection.datagrams().err(), Some(DatagramError::Unsupported));
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
fn shutdown_frees_the_port() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::default()).await;
        let address = listener.local_addr();
        let (client, server) = meet(&listener, trusting()).await;
        let (_client, _server) = (client.unwrap(), server.unwrap());
        transport.shutdown(HANG, "maintenance").await;
        let other = TcpTlsTransport::new();
        other.create_listener(address, &[ALPN], trusting()).await.unwrap();
    });
}

#[test]
fn an_identity_has_as_many_connections_as_over_quic() {
    run(async {
        let (transport, listener) = listen(TcpTlsConfig::new()).await;
        let client = trusting();
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
        let dial = dialler.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        assert!(timeout(3 * idle, dialled.watch_close()).await.is_err());
        dialled.send(b"still there").await.unwrap();
        assert_eq!(accepted.recv().await.unwrap().0, "still there");
    });
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
