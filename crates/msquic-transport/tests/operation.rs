//! Operation: limits, changes of credentials, revocation, shutdown, statistics.

mod common;

use common::{ALPN, credentials, run};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    AcceptError, CloseReason, ConnectError, EndorsementValidity, Endorser, Endorsers, IdentityKey,
    Limit, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, Rejection,
    RejectionBy, TrustPolicy, close_code,
};
use net_traits_test::key_log;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::net::UdpSocket;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen(config: MsQuicTransportConfig) -> (MsQuicTransport, MsQuicListener) {
    let transport = MsQuicTransport::with_config(config).unwrap();
    let listener = transport.create_listener(loopback(), &[ALPN], trusting()).await.unwrap();
    (transport, listener)
}

/// Connects and accepts; returns the connection of each side.
async fn connect_pair(
    listener: &MsQuicListener,
    client: NetCredential,
) -> (Result<MsQuicNetConnection, ConnectError>, Result<MsQuicNetConnection, ConnectError>) {
    let dialler = MsQuicTransport::new();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], client);
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::join!(dial, accept)
}

/// Like [`connect_pair`], but tries again while the listener refuses: a place becomes free when the
/// connection that took it has ended, not as soon as its handles are dropped.
async fn connect_when_admitted(
    listener: &MsQuicListener,
) -> (MsQuicNetConnection, MsQuicNetConnection) {
    let dialler = MsQuicTransport::new();
    let dial = async {
        loop {
            if let Ok(client) = dialler.connect(listener.local_addr(), &[ALPN], trusting()).await {
                return client;
            }
        }
    };
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    tokio::join!(dial, accept)
}

/// Dials a listener that refuses the attempt without a call of `accept`.
async fn dial_refused(listener: &MsQuicListener, client: NetCredential) -> ConnectError {
    let dialler = MsQuicTransport::new();
    tokio::select! {
        dialled = dialler.connect(listener.local_addr(), &[ALPN], client) => dialled.unwrap_err(),
        accepted = listener.accept() => panic!("{accepted:?} was accepted"),
    }
}

#[test]
fn an_ended_connection_takes_no_place_while_its_handle_is_held() {
    run(async {
        let config = MsQuicTransportConfig::new().max_connections(1);
        let (transport, listener) = listen(config).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let (client, server) = connect_pair(&listener, trusting()).await;
            let (client, server) = (client.unwrap(), server.unwrap());
            client.close(0, "").await;
            server.watch_close().await;
            held.push(server);
        }
        assert_eq!(transport.statistics().connections, 0);
    });
}

#[test]
fn connections_in_all_and_per_address_are_limited_and_counted() {
    run(async {
        let config = MsQuicTransportConfig::new().max_connections(2);
        let (transport, listener) = listen(config).await;
        let first = connect_pair(&listener, trusting()).await;
        let second = connect_pair(&listener, trusting()).await;
        let refused = dial_refused(&listener, trusting()).await;
        assert!(matches!(refused, ConnectError::Refused(_) | ConnectError::Closed(_)), "{refused}");
        assert_eq!(transport.statistics().refused_connections, 1);
        assert_eq!(transport.statistics().connections, 2);
        drop(second);
        let (client, server) = connect_when_admitted(&listener).await;
        client.send(b"there is room again").await.unwrap();
        server.recv().await.unwrap();
        drop(first);

        let (transport, listener) =
            listen(MsQuicTransportConfig::new().max_connections_per_ip(1)).await;
        let _only = connect_pair(&listener, trusting()).await;
        dial_refused(&listener, trusting()).await;
        assert_eq!(transport.statistics().refused_per_ip, 1);
    });
}

#[test]
fn addresses_are_validated_while_many_handshakes_are_in_progress() {
    run(async {
        let (transport, listener) = listen(MsQuicTransportConfig::new().max_handshakes(4)).await;
        let dialler = MsQuicTransport::new();
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], trusting());
        let slow = async {
            let held = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
            assert_eq!(transport.statistics().handshakes, 2);
            let (client, _server) = connect_pair(&listener, trusting()).await;
            let statistics = client.unwrap().statistics().await.unwrap();
            assert!(statistics.address_validated_by_retry);
            drop(held);
        };
        let _ = tokio::join!(dial(), dial(), slow);
        assert_eq!(transport.statistics().handshakes, 0);
    });
}

#[test]
fn a_handshake_that_stalls_gives_way_to_another() {
    run(async {
        let config = MsQuicTransportConfig::new().max_handshakes(1);
        let (transport, listener) = listen(config).await;
        let slow = MsQuicTransport::new();
        let address = listener.local_addr();
        let dial = tokio::spawn(async move { slow.connect(address, &[ALPN], trusting()).await });
        let request = listener.accept().await.unwrap();
        assert_eq!(transport.statistics().handshakes, 1);
        let _next = connect_when_admitted(&listener).await; // once the other has stalled
        let late = request.accept().await.unwrap_err();
        let code = Limit::Handshakes.code();
        assert!(
            matches!(&late, ConnectError::Closed(CloseReason::Local { code: told, .. }) if *told == code),
            "{late:?}"
        );
        assert!(transport.statistics().refused_handshakes > 0);
        assert!(dial.await.unwrap().is_err());
    });
}

/// Dials without receiving the listener's packets, sends no more after `until`, and returns its result.
async fn silent_peer<T>(listener: &MsQuicListener, until: impl Future<Output = T>) -> T {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let _ = MsQuicTransport::new().connect(address, &[ALPN], trusting()).await; // it fails
    });
    let to_listener = UdpSocket::bind(loopback()).await.unwrap();
    let forward = async {
        let mut datagram = vec![0; 65_536];
        loop {
            let size = socket.recv(&mut datagram).await.unwrap();
            to_listener.send_to(&datagram[..size], listener.local_addr()).await.unwrap();
        }
    };
    tokio::select! {
        result = until => result,
        () = forward => unreachable!("it never ends"),
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_counted() {
    run(async {
        let config = MsQuicTransportConfig::new().handshake_timeout(Duration::from_millis(100));
        let (transport, listener) = listen(config).await;
        let request = silent_peer(&listener, listener.accept()).await.unwrap();
        let accepted = request.accept().await;
        assert!(matches!(accepted, Err(ConnectError::TimedOut { .. })), "{accepted:?}");
        let statistics = transport.statistics();
        assert_eq!((statistics.refused_handshake_timeout, statistics.handshakes), (1, 0));
    });
}

#[test]
fn an_attempt_that_times_out_before_its_accept_is_counted() {
    run(async {
        let config = MsQuicTransportConfig::new().handshake_timeout(Duration::from_millis(100));
        let (transport, listener) = listen(config).await;
        for doubled in 1..5 {
            let pause = || tokio::time::sleep(Duration::from_millis(100 << doubled));
            silent_peer(&listener, pause()).await;
            pause().await;
            // On a busy machine the attempt may arrive later, and msquic may end it later; then try again.
            let Some(request) = listener.accept().now_or_never() else { continue };
            if let Some(accepted) = request.unwrap().accept().now_or_never() {
                assert!(matches!(accepted, Err(ConnectError::TimedOut { .. })), "{accepted:?}");
                assert_eq!(transport.statistics().refused_handshake_timeout, 1);
                return;
            }
        }
        panic!("attempts that wait have no timeout");
    });
}

#[test]
fn attempts_beyond_the_backlog_are_refused_and_counted() {
    run(async {
        let (transport, listener) = listen(MsQuicTransportConfig::new().backlog(1)).await;
        let dialler = MsQuicTransport::new();
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], trusting());
        // `accept` is not called: one attempt waits, and the other is refused.
        let error = tokio::select! {
            dialled = dial() => dialled.unwrap_err(),
            dialled = dial() => dialled.unwrap_err(),
        };
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
        let refused = listener.refused_waiting();
        assert!(refused >= 1); // an attempt may be repeated
        assert!(transport.statistics().refused_backlog >= refused);
    });
}

#[test]
fn accept_yields_while_it_refuses_attempts() {
    run(async {
        const WAITING: usize = 300;
        let config = MsQuicTransportConfig::new().max_connections(1).backlog(WAITING);
        let (transport, listener) = listen(config).await;
        let _only = connect_pair(&listener, trusting()).await;
        let (dialler, client) = (MsQuicTransport::new(), trusting());
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], client.clone());
        let mut dials: FuturesUnordered<_> = (0..=WAITING).map(|_| dial()).collect();
        dials.next().await.unwrap().unwrap_err();
        assert!(listener.refused_waiting() > 0, "the backlog is full");
        assert_eq!(transport.statistics().refused_connections, 0);
        let mut accept = pin!(listener.accept());
        let refused = poll_fn(|context| {
            assert!(accept.as_mut().poll(context).is_pending());
            match transport.statistics().refused_connections {
                0 => Poll::Pending, // other operations have used up the budget
                refused => Poll::Ready(refused),
            }
        });
        let refused = refused.await;
        assert!(refused < WAITING as u64, "{refused} refused without yielding");
    });
}

#[test]
fn attempts_that_wait_end_with_the_transport() {
    run(async {
        let (transport, listener) = listen(MsQuicTransportConfig::new().backlog(1)).await;
        let (dialler, client) = (MsQuicTransport::new(), trusting());
        let dial = || dialler.connect(listener.local_addr(), &[ALPN], client.clone());
        let mut dials: FuturesUnordered<_> = (0..2).map(|_| dial()).collect();
        dials.next().await.unwrap().unwrap_err();
        assert_eq!(listener.refused_waiting(), 1, "the other attempt waits");
        transport.shutdown(Duration::ZERO, "").await;
        assert_eq!(listener.accept().await.err(), Some(AcceptError::Closed));
    });
}

#[test]
fn a_refusal_is_sent_at_once() {
    run(async {
        let (_transport, listener) = listen(MsQuicTransportConfig::new()).await;
        let dialler = MsQuicTransport::new();
        let dial = dialler.connect(listener.local_addr(), &[ALPN], trusting());
        let refuse = async { listener.accept().await.unwrap().refuse(9) };
        let (dialled, ()) = tokio::join!(dial, refuse);
        let error = dialled.unwrap_err();
        assert!(matches!(error, ConnectError::Closed(_) | ConnectError::Refused(_)), "{error:?}");
    });
}

#[test]
fn a_new_credential_affects_new_handshakes_and_revocation_old_connections() {
    run(async {
        let (old, new, client) = (trusting(), trusting(), trusting());
        let transport = MsQuicTransport::new();
        let listener = transport.create_listener(loopback(), &[ALPN], old.clone()).await.unwrap();
        let (before, before_server) = connect_pair(&listener, client.clone()).await;
        let (before, before_server) = (before.unwrap(), before_server.unwrap());
        assert_eq!(before.remote_identity(), old.identity().to_string());

        let friend = trusting();
        let policy = TrustPolicy::hashes([friend.identity()]);
        listener.set_credential(new.with_trust(policy.clone())).unwrap();
        let (after, after_server) = connect_pair(&listener, friend).await;
        let (after, after_server) = (after.unwrap(), after_server.unwrap());
        assert_eq!(after.remote_identity(), new.identity().to_string());
        assert_eq!(after_server.local_identity(), new.identity().to_string());

        // The old connection remains open until it is revoked; a new one is rejected.
        before.send(b"still here").await.unwrap();
        before_server.recv().await.unwrap();
        let (_, stranger) = connect_pair(&listener, client).await;
        let error = stranger.unwrap_err();
        assert!(
            matches!(&error, ConnectError::Rejected(Rejection { by: RejectionBy::Us, .. })),
            "{error:?}"
        );
        assert_eq!(transport.revoke(&policy).await, 1);
        let reason = before.watch_close().await;
        assert_eq!(
            reason,
            CloseReason::Peer { code: close_code::REVOKED, reason: "no longer trusted".into() }
        );
        after.send(b"not affected").await.unwrap();
        assert_eq!(after_server.recv().await.unwrap().0, "not affected");
        assert_eq!(transport.revoke(&policy).await, 0);
    });
}

#[test]
fn an_unusable_credential_does_not_replace_the_old_one() {
    run(async {
        let (_transport, listener) = listen(MsQuicTransportConfig::new()).await;
        let (one, other) = (trusting(), trusting());
        let key = other.private_key().clone_key();
        let broken =
            NetCredential::new(one.certificate_chain().to_vec(), key, TrustPolicy::Any).unwrap();
        assert!(listener.set_credential(broken).is_err());
        let (client, server) = connect_pair(&listener, trusting()).await;
        assert!(client.is_ok() && server.is_ok());
    });
}

#[test]
fn endorsed_peers_are_accepted_and_their_endorsers_reported() {
    run(async {
        let endorser = Endorser::generate().unwrap();
        let policy = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
        let node = || {
            let key = IdentityKey::generate().unwrap();
            let validity = EndorsementValidity::for_duration(Duration::from_secs(3600));
            let endorsement = endorser.endorse(&key.public_key_info(), validity);
            key.self_sign(&["node"], &[endorsement]).unwrap().credential(policy.clone()).unwrap()
        };
        let transport = MsQuicTransport::new();
        let listener = transport.create_listener(loopback(), &[ALPN], node()).await.unwrap();
        let (client, server) = connect_pair(&listener, node()).await;
        assert_eq!(client.unwrap().peer_identity().endorsers, [endorser.key()]);
        assert_eq!(server.unwrap().peer_identity().endorsers, [endorser.key()]);
        let (client, server) = connect_pair(&listener, trusting()).await;
        let Err(ConnectError::Rejected(ours)) = server else { panic!("{server:?}") };
        assert!(ours.reason.contains("endorse"), "{ours}");
        drop(client);
        // A dial that expects another identity fails.
        let expecting = node().expecting(trusting().identity());
        let (client, _) = connect_pair(&listener, expecting).await;
        assert!(matches!(client, Err(ConnectError::Rejected(_))), "{client:?}");
    });
}

#[test]
fn shutdown_delivers_queued_messages_and_closes_all_connections() {
    run(async {
        let (for_server, for_client) = credentials();
        let server = MsQuicTransport::new();
        let listener = server.create_listener(loopback(), &[ALPN], for_server).await.unwrap();
        let client = MsQuicTransport::new();
        let dial = client.connect(listener.local_addr(), &[ALPN], for_client);
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        for number in 0..100_u8 {
            accepted.send(&[number; 1000]).await.unwrap();
        }
        let receive = async {
            for number in 0..100_u8 {
                assert_eq!(dialled.recv().await.unwrap().0, vec![number; 1000]);
            }
            dialled.watch_close().await
        };
        let (reason, ()) =
            tokio::join!(receive, server.shutdown(Duration::from_secs(20), "maintenance"));
        let reason_expected =
            CloseReason::Peer { code: close_code::SHUTDOWN, reason: "maintenance".into() };
        assert_eq!(reason, reason_expected);
        assert_eq!(listener.accept().await.unwrap_err(), AcceptError::Closed);
        assert!(server.create_listener(loopback(), &[ALPN], trusting()).await.is_err());
    });
}

#[test]
fn shutdown_does_not_exceed_its_deadline() {
    run(async {
        // The other side does not read, and sending would take longer than the test may.
        let config = MsQuicTransportConfig::new().stream_op_timeout(Duration::from_secs(3600));
        let (transport, (_keep, listener)) = (
            MsQuicTransport::with_config(config).unwrap(),
            listen(MsQuicTransportConfig::new()).await,
        );
        let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, _accepted) = tokio::join!(dial, accept);
        let dialled = dialled.unwrap();
        dialled.send(&vec![0; 60_000_000]).await.unwrap();
        transport.shutdown(Duration::from_millis(100), "now").await;
        assert!(matches!(dialled.watch_close().await, CloseReason::Local { .. }));
    });
}

#[test]
fn messages_are_counted_per_connection_and_in_total() {
    run(async {
        let (transport, listener) = listen(MsQuicTransportConfig::new()).await;
        let (one, one_server) = connect_pair(&listener, trusting()).await;
        let (other, other_server) = connect_pair(&listener, trusting()).await;
        let (one, other) = (one.unwrap(), other.unwrap());
        let (one_server, other_server) = (one_server.unwrap(), other_server.unwrap());
        one.send(&[0; 100]).await.unwrap();
        other.send(&[0; 10]).await.unwrap();
        other.send(&[0; 10]).await.unwrap();
        one_server.recv().await.unwrap();
        other_server.recv().await.unwrap();
        other_server.recv().await.unwrap();
        other_server.send(b"x").await.unwrap();
        let of_other = other_server.message_statistics();
        assert_eq!((of_other.messages_received, of_other.bytes_received), (2, 20));
        assert_eq!((of_other.messages_sent, of_other.bytes_sent), (1, 1));
        let all = transport.statistics().messages;
        assert_eq!((all.messages_received, all.bytes_received), (3, 120));
        assert_eq!((all.messages_sent, all.bytes_sent), (1, 1));
        drop((one, one_server, other, other_server));
        while transport.statistics().connections > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await; // it lingers
        }
    });
}

#[test]
fn a_revocation_reaches_a_handshake_in_progress() {
    run(async {
        let (transport, listener) = listen(MsQuicTransportConfig::new()).await;
        let address = listener.local_addr();
        let accepted = loop {
            let dialler = MsQuicTransport::new();
            tokio::spawn(async move {
                let dialled = dialler.connect(address, &[ALPN], trusting()).await;
                dialled.unwrap().watch_close().await // keeps it open until then
            });
            let request = listener.accept().await.unwrap();
            let mut accept = pin!(request.accept());
            // On a busy machine a handshake may finish within one poll; then try again.
            if accept.as_mut().now_or_never().is_none() {
                assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, 0);
                break accept.await.unwrap();
            }
        };
        let reason = accepted.watch_close().await;
        assert!(
            matches!(reason, CloseReason::Local { code: close_code::REVOKED, .. }),
            "{reason:?}"
        );
        // Handshakes that begin later are verified by the listener's policy alone.
        let (client, server) = connect_pair(&listener, trusting()).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        client.send(b"hello").await.unwrap();
        assert_eq!(server.recv().await.unwrap().0, "hello");
    });
}

#[test]
fn a_shutdown_does_not_wait_for_a_handshake_without_an_answer() {
    run(async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let transport = MsQuicTransport::new();
        let (_, credential) = credentials();
        let (dialler, addr) = (transport.clone(), silent.local_addr().unwrap());
        let dial =
            tokio::spawn(async move { dialler.connect(addr, &[ALPN], credential).await.map(drop) });
        silent.recv(&mut [0; 2000]).await.unwrap(); // the attempt has begun
        let shutdown = transport.shutdown(Duration::from_millis(100), "bye");
        // The close of the attempt takes 3 s.
        let ended = tokio::time::timeout(Duration::from_secs(2), shutdown).await;
        ended.expect("the shutdown keeps its deadline");
        assert!(dial.await.unwrap().is_err());
    });
}

#[test]
fn both_sides_write_the_same_secrets() {
    let directory = tempfile::tempdir().unwrap();
    run(async move {
        let make = |key_log| {
            let config = MsQuicTransportConfig::new().key_log(Some(key_log));
            MsQuicTransport::with_config(config).unwrap()
        };
        key_log::both_sides_write_the_same_secrets(make, directory.path()).await;
    });
}
