//! Limits, statistics and shutdown, as far as they are of this transport.

mod common;

use common::{ALPN, HANG, Relay, listen, run, trusting};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, close_code,
};
use net_traits_test::key_log;
use quinn_transport::{QuinnConfig, QuinnConnection, QuinnListener, QuinnTransport};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Connected = Result<QuinnConnection, ConnectError>;

/// Connects and accepts; returns what each side gets.
async fn meet(listener: &QuinnListener, client: NetCredential) -> (Connected, Connected) {
    let dialler = QuinnTransport::new();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], client);
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::join!(dial, accept)
}

#[test]
fn connections_of_an_address_are_limited_and_counted() {
    run(async {
        let config = QuinnConfig::new().max_connections_per_ip(1);
        let (transport, listener) = listen(config).await;
        let (client, server) = meet(&listener, trusting()).await;
        let (client, _server) = (client.unwrap(), server.unwrap());
        client.send(&[0; 100]).await.unwrap();
        client.try_send(vec![0; 20].into()).unwrap();
        let sent = client.message_statistics();
        assert_eq!((sent.messages_sent, sent.bytes_sent), (2, 120));
        let dialler = QuinnTransport::new();
        let refused = tokio::select! {
            dialled = dialler.connect(listener.local_addr(), &[ALPN], trusting()) => dialled,
            accepted = listener.accept() => panic!("{accepted:?} was admitted"),
        };
        assert_eq!(refused.err(), Some(ConnectError::Refused(listener.local_addr())));
        assert_eq!(transport.statistics().refused_per_ip, 1);
    });
}

#[test]
fn a_connection_that_ended_with_unread_messages_occupies_no_place() {
    const QUEUE: usize = 64 * 1024;
    run(async {
        for is_closed_by_peer in [false, true] {
            let config = QuinnConfig::new().max_connections(1).receive_queue(QUEUE);
            let (transport, listener) = listen(config).await;
            let (client, server) = meet(&listener, trusting()).await;
            let (client, server) = (client.unwrap(), server.unwrap());
            for number in 0..12 {
                client.send(&[number; 10_000]).await.unwrap();
            }
            while transport.statistics().held_bytes < QUEUE {
                sleep(Duration::from_millis(1)).await; // `run` limits the time
            }
            let (closing, other) =
                if is_closed_by_peer { (&client, &server) } else { (&server, &client) };
            closing.abort(0, "");
            other.watch_close().await;
            server.watch_close().await;
            let dialler = QuinnTransport::new();
            let accept = async { listener.accept().await.unwrap().accept().await };
            let dial = async {
                while dialler.connect(listener.local_addr(), &[ALPN], trusting()).await.is_err() {}
            };
            let (accepted, ()) = tokio::join!(accept, dial);
            accepted.unwrap();
            assert_eq!(server.recv().await.unwrap().0, [0; 10_000][..]);
        }
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_counted() {
    run(async {
        let short = Duration::from_millis(300);
        // The handshake timeout of net-kit, or the idle timeout of quinn, expires first.
        for config in
            [QuinnConfig::new().handshake_timeout(short), QuinnConfig::new().idle_timeout(short)]
        {
            let (transport, listener) = listen(config).await;
            let relay = Relay::new(listener.local_addr(), 1).await;
            let dialler = QuinnTransport::new();
            let dial = dialler.connect(relay.address, &[ALPN], trusting());
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap_err() };
            // The dialler is connected, but its last datagrams do not arrive.
            let (_dialled, error) = tokio::join!(dial, accept);
            assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
            assert_eq!(transport.statistics().refused_handshake_timeout, 1);
            assert_eq!(transport.statistics().handshakes, 0);
        }
    });
}

#[test]
fn handshakes_that_stall_do_not_lock_out_other_peers() {
    run(async {
        let limits = QuinnConfig::new().handshake_timeout(Duration::from_secs(3600));
        for limits in [
            limits.clone().max_handshakes(1),
            limits.clone().max_handshakes_per_ip(1),
            limits.clone().max_connections_per_ip(1),
            limits.clone().max_connections(1),
        ] {
            let (transport, listener) = listen(limits).await;
            let address = listener.local_addr();
            let accept_all = async {
                let mut accepting = JoinSet::new();
                loop {
                    let request = listener.accept().await.unwrap();
                    accepting.spawn(async move { request.accept().await.ok() });
                }
            };
            let dial = async {
                // The listener gets one datagram of this dialler, so that its handshake stalls.
                let relay = Relay::new(address, 1).await;
                let to = relay.address;
                let mut stalled = JoinSet::new();
                stalled.spawn(async move {
                    QuinnTransport::new().connect(to, &[ALPN], trusting()).await
                });
                while transport.statistics().handshakes == 0 {
                    sleep(Duration::from_millis(10)).await;
                }
                let dialler = QuinnTransport::new();
                while let Err(error) = dialler.connect(address, &[ALPN], trusting()).await {
                    assert!(error.is_retryable(), "{error:?}");
                    sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! { () = accept_all => {}, () = dial => {} }
        }
    });
}

#[test]
fn shutdown_frees_the_port() {
    run(async {
        let (transport, listener) = listen(QuinnConfig::default()).await;
        let address = listener.local_addr();
        let (client, server) = meet(&listener, trusting()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        transport.shutdown(HANG, "maintenance").await;
        let (code, reason) = (close_code::SHUTDOWN, "maintenance".to_owned());
        assert_eq!(client.watch_close().await, CloseReason::Peer { code, reason });
        drop((server, listener));
        // quinn keeps the socket for peers that have not received the close.
        let other = QuinnTransport::new();
        while other.create_listener(address, &[ALPN], trusting()).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn both_sides_write_the_same_secrets() {
    let directory = tempfile::tempdir().unwrap();
    run(async move {
        let make = |key_log| {
            let config = QuinnConfig::new().key_log(Some(key_log));
            QuinnTransport::with_config(config).unwrap()
        };
        key_log::both_sides_write_the_same_secrets(make, directory.path()).await;
    });
}

#[test]
fn an_abort_is_sent_although_the_congestion_window_is_full() {
    run(async {
        for _ in 0..10 {
            let (_transport, listener) = listen(QuinnConfig::new()).await;
            let (sender, receiver) = meet(&listener, trusting()).await;
            let (sender, receiver) = (sender.unwrap(), receiver.unwrap());
            sender.send(b"first").await.unwrap();
            receiver.recv().await.unwrap();
            sender.send(&[7; 2 * 1024 * 1024]).await.unwrap();
            sleep(Duration::from_millis(1)).await; // quinn sends a part of it
            sender.abort(7, "enough");
            let reason = CloseReason::Peer { code: 7, reason: "enough".to_owned() };
            assert_eq!(receiver.watch_close().await, reason);
        }
    });
}
