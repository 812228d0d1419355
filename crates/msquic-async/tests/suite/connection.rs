//! Connections and listeners over loopback: handshake, trust, close.

use super::peers::{
    ALPN, Pair, client_configuration, credential, listen, pair, pair_with, settings,
};
use super::skip::{has_patch, lacks_patch};
use crate::executors::{run, run_tokio};
use msquic_async::{
    CertHash, Configuration, Connection, KeyLog, ListenError, Listener, NetCredential, ReceiveEnd,
    ReceiveSink, Registration, Status, StreamLimits, StreamType, TrustPolicy,
};
use msquic_async::{ConnectionError, ConnectionStartError, ShutdownError};
use net_traits::{CertificateDer, Endorsers, PeerIdentity, PeerVerifier};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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

async fn handshake(
    server_trust: TrustPolicy,
    client_trust: TrustPolicy,
) -> (Result<(), ConnectionStartError>, Connection, Result<(), ConnectionStartError>, [CertHash; 2])
{
    let registration = Registration::new("test").unwrap();
    let (for_server, for_client) =
        (credential().with_trust(server_trust), credential().with_trust(client_trust));
    let identities = [for_server.identity(), for_client.identity()];
    let listener = listen(&registration, &settings(), for_server, StreamLimits::default());
    let configuration =
        Configuration::client(&registration, &[ALPN], &settings(), &for_client).unwrap();
    let client = Connection::new(&registration, for_client).unwrap();
    let port = listener.local_addr().unwrap().port();
    let start = client.start(&configuration, "127.0.0.1", port);
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (started, accepted) = futures::future::join(start, accept).await;
    (started, client, accepted, identities)
}

#[test]
fn a_client_that_is_not_trusted_is_rejected_on_both_sides() {
    run(async || {
        let (started, client, accepted, [_, client_identity]) =
            handshake(TrustPolicy::reject_all(), TrustPolicy::Any).await;
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(error))) = accepted
        else {
            panic!("the server accepted: {accepted:?}");
        };
        assert!(error.to_string().contains(&client_identity.to_string()));
        // With TLS 1.3 the client is connected before the server has judged it.
        let lost = match started {
            Ok(()) => client.watch_shutdown().await,
            Err(ConnectionStartError::ConnectionLost(error)) => error,
            Err(error) => panic!("{error:?}"),
        };
        assert!(matches!(lost, ConnectionError::ClosedByTransport { .. }), "{lost:?}");
    });
}

/// What each policy sends to a peer whose certificate is valid, and not accepted.
fn refusals() -> [(TrustPolicy, u8); 3] {
    struct Refuses;
    impl PeerVerifier for Refuses {
        fn verify(&self, _: &PeerIdentity, _: &CertificateDer<'_>) -> Result<(), String> {
            Err("a secret reason".to_owned())
        }
    }
    let policies = [
        (TrustPolicy::reject_all(), 48),
        (TrustPolicy::endorsed_by(Endorsers::new([])), 48),
        (TrustPolicy::custom(Refuses), 49),
    ];
    // Without the patch msquic has one alert for all.
    policies.map(|(policy, alert)| (policy, if has_patch("N15") { alert } else { 42 }))
}

#[test]
fn a_client_learns_why_its_certificate_was_rejected() {
    run(async || {
        for (policy, alert) in refusals() {
            let (started, client, accepted, _) = handshake(policy, TrustPolicy::Any).await;
            let theirs = match started {
                Ok(()) => client.watch_shutdown().await,
                Err(ConnectionStartError::ConnectionLost(error)) => error,
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(theirs.certificate_alert(), Some(alert), "{theirs:?}");
            let Err(ConnectionStartError::ConnectionLost(ours)) = accepted else {
                panic!("{accepted:?}")
            };
            assert_eq!(ours.certificate_alert(), Some(alert), "{ours:?}");
        }
    });
}

#[test]
fn a_server_learns_why_its_certificate_was_rejected() {
    run(async || {
        for (policy, alert) in refusals() {
            let (started, _client, accepted, _) = handshake(TrustPolicy::Any, policy).await;
            for end in [started, accepted] {
                let Err(ConnectionStartError::ConnectionLost(error)) = end else {
                    panic!("{end:?}")
                };
                assert_eq!(error.certificate_alert(), Some(alert), "{error:?}");
            }
        }
    });
}

#[test]
fn a_server_that_is_not_trusted_is_rejected_on_both_sides() {
    run(async || {
        let (started, _client, accepted, [server_identity, _]) =
            handshake(TrustPolicy::Any, TrustPolicy::reject_all()).await;
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(error))) = started
        else {
            panic!("the client accepted: {started:?}");
        };
        assert!(error.to_string().contains(&server_identity.to_string()));
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            ..
        })) = accepted
        else {
            panic!("{accepted:?}");
        };
    });
}

#[test]
fn identities_that_are_trusted_are_accepted() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let (server, client) = (credential(), credential());
        let trust_server = TrustPolicy::hashes([server.identity()]);
        let server = server.with_trust(TrustPolicy::hashes([client.identity()]));
        let client = client.with_trust(trust_server);
        let listener = listen(&registration, &settings(), server, StreamLimits::default());
        let configuration =
            Configuration::client(&registration, &[ALPN], &settings(), &client).unwrap();
        let connection = Connection::new(&registration, client).unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = connection.start(&configuration, "127.0.0.1", port);
        let accept = async {
            let accepted = listener.accept().await.unwrap();
            accepted.accept().await.map(|()| accepted)
        };
        let (started, accepted) = futures::future::join(start, accept).await;
        started.unwrap();
        accepted.unwrap();
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
fn a_listener_is_started_once_and_stops() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let listener = Listener::new(&registration, configuration, credential()).unwrap();
        assert_eq!(listener.accept().await.map(|_| ()), Err(ListenError::NotStarted));
        assert_eq!(listener.stop().await, Err(ListenError::NotStarted));
        assert_eq!(listener.local_addr(), Err(ListenError::NotStarted));
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        assert_eq!(listener.start(&[ALPN], None), Err(ListenError::AlreadyStarted));
        let addr = listener.local_addr().unwrap();
        assert_ne!(addr.port(), 0);

        let (accepted, stopped) = futures::future::join(listener.accept(), listener.stop()).await;
        assert_eq!(accepted.map(|_| ()), Err(ListenError::Finished));
        stopped.unwrap();
        assert_eq!(listener.start(&[ALPN], None), Err(ListenError::Finished));

        if lacks_patch("N61") {
            return; // its workers free the port, some time later
        }
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let next = Listener::new(&registration, configuration, credential()).unwrap();
        next.start(&[ALPN], Some(addr)).unwrap();
    });
}

#[test]
fn a_port_in_use_is_a_typed_error() {
    run(async || {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let registration = Registration::new("test").unwrap();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let listener = Listener::new(&registration, configuration, credential()).unwrap();
        let result = listener.start(&[ALPN], Some(taken.local_addr().unwrap()));
        assert_eq!(result, Err(ListenError::AddressInUse));
        // It can be tried again.
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
    });
}

#[test]
fn a_refused_connection_is_told() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let port = listener.local_addr().unwrap().port();
        let connect = || async {
            let client = Connection::new(&registration, credential()).unwrap();
            client.start(&configuration, "127.0.0.1", port).await
        };
        let refuse = async { listener.accept_incoming().await.unwrap().refuse(7) };
        let (refused, ()) = futures::future::join(connect(), refuse).await;
        assert!(matches!(refused, Err(ConnectionStartError::ConnectionLost(_))), "{refused:?}");

        listener.set_backlog(0);
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::ClosedByTransport {
            status,
            ..
        })) = connect().await
        else {
            panic!("the backlog is full");
        };
        assert_eq!(status, Status::CONNECTION_REFUSED);
        assert!(listener.refused() >= 1); // an attempt may be repeated
    });
}

#[test]
fn a_listener_takes_another_credential() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let before = credential();
        let listener = listen(&registration, &settings(), before.clone(), StreamLimits::default());
        let after = credential().with_trust(TrustPolicy::reject_all());
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &after).unwrap();
        listener.set_credential(configuration, after.clone()).unwrap();
        let other = Registration::new("other").unwrap();
        let foreign = Configuration::server(&other, &[ALPN], &settings(), &before).unwrap();
        let error = listener.set_credential(foreign, before.clone()).unwrap_err();
        assert_eq!(error, ListenError::Other(Status::INVALID_PARAMETER));
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = client.start(&configuration, "127.0.0.1", port);
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (_, accepted) = futures::future::join(start, accept).await;
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(_))) = accepted
        else {
            panic!("{accepted:?}");
        };
        assert_eq!(client.peer_identity().map(|peer| peer.hash), Some(after.identity()));
    });
}

#[test]
fn a_key_that_does_not_fit_is_a_typed_error() {
    let registration = Registration::new("test").unwrap();
    let (one, two) = (credential(), credential());
    let mixed = NetCredential::new(
        one.certificate_chain().to_vec(),
        two.private_key().clone_key(),
        TrustPolicy::Any,
    )
    .unwrap();
    let result = Configuration::client(&registration, &[ALPN], &settings(), &mixed);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("cannot be used"), "{error:?}");
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
fn a_port_can_be_used_again_while_its_connections_live_on() {
    run(async || {
        let Pair { registration, listener, client, server } = pair().await;
        let addr = listener.local_addr().unwrap();
        listener.stop().await.unwrap();
        let credential = credential();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential).unwrap();
        let next = Listener::new(&registration, configuration, credential).unwrap();
        next.start(&[ALPN], Some(addr)).unwrap();
        let mut stream = client.open_send_stream().await.unwrap();
        stream.send("still here").await.unwrap();
        server.accept_inbound_uni_stream().await.unwrap();
    });
}

#[test]
fn a_listener_that_never_started_does_not_keep_the_registration_busy() {
    run(async || {
        let Pair { registration, listener, .. } = pair().await;
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &credential()).unwrap();
        let idle = Listener::new(&registration, configuration, credential()).unwrap();
        registration.shutdown(0);
        registration.wait_idle().await;
        assert_eq!(idle.start(&[ALPN], None), Err(ListenError::Finished));
        drop(listener);
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

/// Forwards datagrams between a client and a server, as a NAT does, and can change the port that the
/// server sees.
struct Nat {
    front: SocketAddr,
    moved: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Nat {
    fn new(server: SocketAddr) -> Self {
        let (moved, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            Arc::new(socket)
        };
        let (front, backs) = (socket(), [socket(), socket()]);
        let client = Arc::new(Mutex::new(None));
        let nat = Self { front: front.local_addr().unwrap(), moved, stop };
        nat.forward(front.clone(), {
            let (client, moved, backs) = (client.clone(), nat.moved.clone(), backs.clone());
            move |datagram, from| {
                *client.lock().unwrap() = Some(from);
                let back = &backs[usize::from(moved.load(Ordering::SeqCst))];
                let _ = back.send_to(datagram, server);
            }
        });
        for back in backs {
            let (client, front) = (client.clone(), front.clone());
            nat.forward(back, move |datagram, _| {
                if let Some(client) = *client.lock().unwrap() {
                    let _ = front.send_to(datagram, client);
                }
            });
        }
        nat
    }

    fn forward(
        &self,
        from: Arc<UdpSocket>,
        mut deliver: impl FnMut(&[u8], SocketAddr) + Send + 'static,
    ) {
        let stop = self.stop.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::SeqCst) {
                if let Ok((length, sender)) = from.recv_from(&mut buffer) {
                    deliver(&buffer[..length], sender);
                }
            }
        });
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &settings(), credential(), StreamLimits::default());
        let nat = Nat::new(listener.local_addr().unwrap());
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default());
        let client = Connection::new(&registration, credential()).unwrap();
        let start = client.start(&configuration, "127.0.0.1", nat.front.port());
        let accept = async {
            let server = listener.accept().await.unwrap();
            server.accept().await.map(|()| server)
        };
        let (started, server) = futures::join!(start, accept);
        started.unwrap();
        let server = server.unwrap();
        let send = async |text: &'static str| {
            let mut stream = client.open_send_stream().await.unwrap();
            stream.send(text).await.unwrap();
            std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
        };
        send("from here").await;
        let before = server.get_remote_addr().unwrap();
        nat.moved.store(true, Ordering::SeqCst);
        let (changed, ()) = futures::join!(server.address_changed(), send("from elsewhere"));
        let (_, after) = changed.unwrap();
        assert_ne!(after, before);
        assert_eq!(server.get_remote_addr().unwrap(), after);
        for text in ["from here", "from elsewhere"] {
            let mut stream = server.accept_inbound_uni_stream().await.unwrap();
            assert_eq!(stream.read_to_end(100).await.unwrap(), text.as_bytes());
        }
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
            let settings = msquic_async::Settings::new().peer_uni_streams(3);
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

/// Counts how many of it are alive.
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
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("server"), directory.path().join("client"));
        let registration = Registration::new("test").unwrap();
        let for_server = credential();
        let configuration =
            Configuration::server(&registration, &[ALPN], &settings(), &for_server).unwrap();
        let configuration = configuration.with_key_log(KeyLog::file(&one).unwrap());
        let listener = Listener::new(&registration, configuration, for_server).unwrap();
        listener.start(&[ALPN], Some("127.0.0.1:0".parse().unwrap())).unwrap();
        let configuration =
            client_configuration(&registration, &settings(), StreamLimits::default())
                .with_key_log(KeyLog::file(&other).unwrap());
        let client = Connection::new(&registration, credential()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = client.start(&configuration, "127.0.0.1", port);
        let accept = async {
            let accepted = listener.accept().await.unwrap();
            accepted.accept().await.map(|()| accepted)
        };
        let (started, _accepted) = futures::join!(start, accept);
        started.unwrap();

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
        for label in ["CLIENT_HANDSHAKE", "SERVER_HANDSHAKE", "CLIENT_TRAFFIC", "SERVER_TRAFFIC"] {
            let line = log.lines().find(|line| line.starts_with(label)).unwrap();
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!((words.len(), words[1].len()), (3, 64), "{line}");
            assert!([64, 96].contains(&words[2].len()), "{line}");
        }
    });
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
