//! Connections and listeners over loopback: handshake, trust, close.

use super::peers::{
    ALPN, Pair, client_configuration, credential, listen, pair, pair_with, settings,
};
use crate::executors::{run, run_tokio};
use msquic_async::{
    CipherSuite, Configuration, Connection, KeyLog, ListenError, Listener, ReceiveEnd, ReceiveSink,
    Registration, Settings, Status, StreamLimits, StreamType,
};
use msquic_async::{ConnectionError, ConnectionStartError, ShutdownError};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn both_sides_know_addresses_protocol_and_certificate() {
    run(async || {
        let Pair { listener, client, server, .. } = pair().await;
        assert_eq!(client.get_remote_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(client.get_local_addr().unwrap(), server.get_remote_addr().unwrap());
        assert_eq!(client.get_remote_addr().unwrap(), server.get_local_addr().unwrap());
        for side in [&client, &server] {
            assert_eq!(side.get_negotiated_alpn().as_deref(), Some(ALPN.as_bytes()));
            let certificate = side.get_remote_certificate().unwrap();
            assert_eq!(side.receive_remote_certificate().await.unwrap(), certificate);
        }
        let statistics = client.statistics().await.unwrap();
        assert!(statistics.sent_bytes > 0 && statistics.rtt > Duration::ZERO, "{statistics:?}");
    });
}

#[test]
fn a_name_is_resolved_and_sent() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let port = listener.local_addr().unwrap().port();
        let start = client.start(&configuration, "localhost", port);
        let server_configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let accept = async {
            let incoming = listener.accept_incoming().await.unwrap();
            assert_eq!(incoming.server_name(), Some("localhost"));
            assert_eq!(incoming.alpn(), ALPN.as_bytes());
            assert!(incoming.remote_addr().unwrap().ip().is_loopback());
            let connection = incoming.accept(&server_configuration).unwrap();
            connection.accept().await.unwrap();
            connection
        };
        let (started, _server) = futures::future::join(start, accept).await;
        started.unwrap();
    });
}

#[test]
fn a_name_without_address_is_a_typed_error() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let client = Connection::new(&registration, credential()).unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let error = client.start(&configuration, "no.such.name.invalid", 1).await.unwrap_err();
        assert!(matches!(error, ConnectionStartError::Resolve { .. }), "{error:?}");
        drop(client);
        registration.wait_idle().await;
    });
}

#[test]
fn no_common_protocol_is_a_typed_error() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let configuration =
            Configuration::client(&registration, &["other"], &settings(), &credential()).unwrap();
        let client = Connection::new(&registration, credential()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = client.start(&configuration, "127.0.0.1", port).await.unwrap_err();
        let ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status, ..
        }) = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(status, Status::ALPN_NEG_FAILURE);
    });
}

#[test]
fn a_closed_port_is_a_typed_error() {
    run(async || {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let registration = Registration::new("test").unwrap();
        let settings = settings().handshake_idle_timeout(Duration::from_secs(2));
        let configuration = client_configuration(&registration, &settings, StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let error = client.start(&configuration, "127.0.0.1", port).await.unwrap_err();
        let ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status, ..
        }) = error
        else {
            panic!("{error:?}");
        };
        let expected = [Status::UNREACHABLE, Status::CONNECTION_REFUSED, Status::CONNECTION_IDLE];
        assert!(expected.contains(&status), "{status}");
        let again = client.start(&configuration, "127.0.0.1", port).await;
        assert!(matches!(again, Err(ConnectionStartError::ConnectionLost(_))), "{again:?}");
    });
}

#[test]
fn code_and_reason_of_a_close_reach_the_peer() {
    run(async || {
        for reason in ["", "going home", &"x".repeat(600)] {
            let Pair { client, server, .. } = pair().await;
            let waiting = server.accept_inbound_stream();
            client.shutdown(0x1234, reason);
            client.shutdown(1, "too late");
            let lost = waiting.await.map(|_| ());
            assert!(
                matches!(lost, Err(ConnectionError::ClosedByPeer { code: 0x1234, .. })),
                "{lost:?}"
            );
            let expected = reason[..reason.len().min(511)].to_owned();
            let by_peer = ConnectionError::ClosedByPeer { code: 0x1234, reason: expected };
            assert_eq!(server.watch_shutdown().await, by_peer);
            assert_eq!(server.watch_shutdown().await, by_peer);
            let by_us = ConnectionError::ClosedLocally { code: 0x1234, reason: reason.to_owned() };
            assert_eq!(client.watch_shutdown().await, by_us);
            assert_eq!(client.accept_inbound_stream().await.map(|_| ()), Err(by_us));
        }
    });
}

#[test]
fn dropping_the_last_handle_closes_but_streams_keep_the_connection() {
    run(async || {
        let Pair { client, server, .. } = pair().await;
        let mut stream =
            client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
        drop(client);
        stream.write_chunk(&"still here".into(), true).await.unwrap();
        let accepted = server.accept_inbound_stream().await.unwrap();
        assert_eq!(&*accepted.read_chunk().await.unwrap().unwrap(), b"still here");
        drop(stream);
        let closed = server.watch_shutdown().await;
        assert!(matches!(closed, ConnectionError::ClosedByPeer { code: 0, .. }), "{closed:?}");
    });
}

#[test]
fn after_shutdown_the_registration_becomes_idle_and_takes_nothing() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        registration.shutdown(3);
        registration.wait_idle().await;
        // The close of the first side may reach the other one before its own.
        for side in [&client, &server] {
            match side.watch_shutdown().await {
                ConnectionError::ClosedLocally { code: 3, .. }
                | ConnectionError::ClosedByPeer { code: 3, .. } => {}
                error => panic!("{error:?}"),
            }
        }
        assert!(Connection::new(&registration, credential()).is_err());
        assert_eq!(listener.accept().await.map(|_| ()), Err(ListenError::Finished));
        drop((server, client));
    });
}

#[test]
fn codes_that_quic_cannot_carry_become_the_largest() {
    run(async || {
        let Pair { client, server, .. } = pair().await;
        let mut stream =
            client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
        stream.write_chunk(&"x".into(), false).await.unwrap();
        let accepted = server.accept_inbound_uni_stream().await.unwrap();
        stream.abort_write(u64::MAX).unwrap();
        let largest = (1 << 62) - 1;
        while accepted.read_chunk().await.is_ok() {}
        assert_eq!(accepted.read_chunk().await, Err(msquic_async::ReadError::Reset(largest)));
        client.shutdown(u64::MAX, "");
        client.watch_shutdown().await;
        let closed = server.watch_shutdown().await;
        assert!(
            matches!(closed, ConnectionError::ClosedByPeer { code, .. } if code == largest),
            "{closed:?}"
        );
    });
}

#[test]
fn each_of_several_acceptors_gets_its_stream() {
    run_tokio(async || {
        let Pair { client, server, .. } = pair().await;
        for _ in 0..200 {
            let acceptors = (0..4).map(|_| {
                let server = server.clone();
                tokio::spawn(async move { server.accept_inbound_uni_stream().await.map(|_| ()) })
            });
            let acceptors = acceptors.collect::<Vec<_>>();
            for _ in 0..4 {
                let mut stream =
                    client.open_outbound_stream(StreamType::Unidirectional, false).await.unwrap();
                stream.write_chunk(&"x".into(), true).await.unwrap();
            }
            for acceptor in acceptors {
                acceptor.await.unwrap().unwrap();
            }
        }
    });
}

#[test]
fn an_attempt_whose_future_was_dropped_still_ends() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let mut start = Box::pin(client.start(&configuration, "no.such.name.invalid", 1));
        let _ = futures::poll!(&mut start); // a fast resolver may have answered already
        drop(start);
        assert!(client.accept().await.is_err());
        client.watch_shutdown().await;
    });
}

#[test]
fn limits_of_streams_can_be_raised_while_the_connection_runs() {
    run(async || {
        let pair = pair_with(settings().peer_uni_streams(1), StreamLimits::default()).await;
        let open = |fail| pair.client.open_outbound_stream(StreamType::Unidirectional, fail);
        let _first = open(true).await.unwrap();
        let waiting = open(false);
        let raise = async {
            let settings = Settings::new().peer_uni_streams(3);
            pair.server.set_settings(&settings).await.unwrap();
        };
        let (opened, ()) = futures::join!(waiting, raise);
        opened.unwrap();
    });
}

#[test]
fn poll_shutdown_is_ready_when_the_connection_is_over() {
    run(async || {
        let Pair { client, server, .. } = pair().await;
        std::future::poll_fn(|cx| client.poll_shutdown(cx, 9)).await.unwrap();
        server.watch_shutdown().await;
        let by_peer = std::future::poll_fn(|cx| server.poll_shutdown(cx, 1)).await;
        let Err(ShutdownError::ConnectionLost(ConnectionError::ClosedByPeer { code: 9, .. })) =
            by_peer
        else {
            panic!("{by_peer:?}");
        };
    });
}

/// Data whose lifetime is counted.
struct Alive(#[expect(dead_code, reason = "only its drop matters")] Arc<()>);

impl AsRef<[u8]> for Alive {
    fn as_ref(&self) -> &[u8] {
        &[7; 100_000]
    }
}

struct AliveSink(#[expect(dead_code, reason = "only its drop matters")] Arc<()>);

impl ReceiveSink for AliveSink {
    fn receive(&mut self, data: &[u8]) -> usize {
        data.len().min(10) // never content, so that bytes stay everywhere
    }

    fn end(&mut self, _: ReceiveEnd) {}
}

#[test]
fn nothing_is_alive_after_the_registration_is_idle() {
    run(async || {
        let alive = Arc::new(());
        let Pair { registration, listener, client, server } = pair().await;
        for _ in 0..5 {
            let stream =
                client.open_outbound_stream(StreamType::Bidirectional, false).await.unwrap();
            let (Some(read), Some(mut write)) = stream.split() else { unreachable!() };
            let payload = bytes::Bytes::from_owner(Alive(alive.clone()));
            let _ = futures::poll!(write.write_chunk(&payload, false));
            assert!(read.set_sink(Box::new(AliveSink(alive.clone()))).is_ok());
            let accepted = server.accept_inbound_stream().await.unwrap();
            let (Some(other), _) = accepted.split() else { unreachable!() };
            assert!(other.set_sink(Box::new(AliveSink(alive.clone()))).is_ok());
        }
        // Some arrive after the last handle is gone.
        let late = client.open_outbound_stream(StreamType::Unidirectional, true).await;
        drop((listener, server));
        if let Ok(mut late) = late {
            let payload = bytes::Bytes::from_owner(Alive(alive.clone()));
            let _ = futures::poll!(late.write_chunk(&payload, true));
        }
        drop(client);
        registration.wait_idle().await;
        // The callback that made the registration idle may still be returning.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&alive) > 1 {
            assert!(
                std::time::Instant::now() < deadline,
                "{} are alive",
                Arc::strong_count(&alive)
            );
            std::thread::yield_now();
        }
    });
}

#[test]
fn both_sides_log_the_same_secrets() {
    run(async || {
        let log = key_log(settings(), settings()).await.unwrap();
        for label in ["CLIENT_HANDSHAKE", "SERVER_HANDSHAKE", "CLIENT_TRAFFIC", "SERVER_TRAFFIC"] {
            let line = log.lines().find(|line| line.starts_with(label)).unwrap();
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!((words.len(), words[1].len()), (3, 64), "{line}");
            assert!([64, 96].contains(&words[2].len()), "{line}");
        }
    });
}

#[test]
fn a_connection_that_has_started_chooses_no_cipher_suites() {
    run(async || {
        let pair = pair().await;
        let settings = Settings::new().cipher_suites(vec![CipherSuite::Aes256Gcm]);
        let changed = pair.client.set_settings(&settings);
        assert_eq!(changed.await, Err(Status::INVALID_PARAMETER));
    });
}

#[test]
fn connections_use_a_cipher_suite_that_both_sides_permit() {
    use CipherSuite::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};
    run(async || {
        let connect = async |of_server: &[CipherSuite], of_client: &[CipherSuite]| {
            let permit = |suites: &[CipherSuite]| settings().cipher_suites(suites.to_vec());
            let log = key_log(permit(of_server), permit(of_client)).await?;
            // The secrets are as long as the hash of the suite.
            let secret = log.lines().next().and_then(|line| line.split(' ').nth(2));
            Ok::<_, ConnectionStartError>(secret.unwrap().len() / 2)
        };
        let all = [Aes128Gcm, Aes256Gcm, ChaCha20Poly1305];
        assert_eq!(connect(&[Aes256Gcm], &all).await.unwrap(), 48);
        assert_eq!(connect(&all, &[Aes256Gcm]).await.unwrap(), 48);
        assert_eq!(connect(&all, &[Aes128Gcm]).await.unwrap(), 32);
        assert_eq!(connect(&[ChaCha20Poly1305, Aes256Gcm], &all).await.unwrap(), 48);
        let none = connect(&[Aes256Gcm], &[Aes128Gcm, ChaCha20Poly1305]).await;
        assert!(matches!(none, Err(ConnectionStartError::ConnectionLost(_))), "{none:?}");
    });
}

/// Connects, and returns the key log, which is the same on both sides.
async fn key_log(of_server: Settings, of_client: Settings) -> Result<String, ConnectionStartError> {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("server"), directory.path().join("client"));
    let registration = Registration::new("test").unwrap();
    let for_server = credential();
    let configuration = Configuration::server(&registration, &[ALPN], &of_server, &for_server);
    let configuration = configuration.unwrap().with_key_log(KeyLog::file(&one).unwrap());
    let listener = Listener::new(&registration, configuration, for_server).unwrap();
    listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let configuration = client_configuration(&registration, &of_client, StreamLimits::default())
        .with_key_log(KeyLog::file(&other).unwrap());
    let client = Connection::new(&registration, credential()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = client.start(&configuration, "127.0.0.1", port);
    let accept = async {
        let accepted = listener.accept().await.unwrap();
        accepted.accept().await.map(|()| accepted)
    };
    let (started, _accepted) = futures::join!(start, accept);
    started?;
    // They are written in the background.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let read = |path: &std::path::Path| loop {
        let text = std::fs::read_to_string(path).unwrap();
        if text.lines().count() >= 4 {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "{text:?}");
        std::thread::yield_now();
    };
    let log = read(&one);
    assert_eq!(log, read(&other));
    Ok(log)
}

#[test]
fn a_configuration_of_another_registration_is_refused() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let other = Registration::new("other").unwrap();
        let configuration = client_configuration(&other, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let started = client.start(&configuration, "127.0.0.1", 4433).await;
        assert!(matches!(started, Err(ConnectionStartError::InvalidInput(_))), "{started:?}");

        let configuration = Configuration::server(&other, &[ALPN], &settings(), &credential());
        let listener = Listener::new(&registration, configuration.unwrap(), credential());
        assert_eq!(listener.unwrap_err(), ListenError::Other(Status::INVALID_PARAMETER));
    });
}

#[test]
fn a_second_start_changes_nothing() {
    run(async || {
        let Pair { registration, client, server, .. } = pair().await;
        let other =
            client_configuration(&registration, &settings(), StreamLimits::new().receive_buffer(1));
        for connection in [&client, &server] {
            let again = connection.start(&other, "127.0.0.1", 4433).await;
            assert_eq!(again, Err(ConnectionStartError::AlreadyStarted));
        }
        // With the limit of the second configuration the first byte would be alone.
        let mut write = client.open_send_stream().await.unwrap();
        write.send("one message").await.unwrap();
        let read = server.accept_inbound_uni_stream().await.unwrap();
        let chunk = read.read_chunk().await.unwrap().unwrap();
        assert!(chunk.len() > 1, "{chunk:?}");
    });
}
