//! Connecting: identities, trust, addresses, failures.

mod common;

use common::{ALPN, Pair, credentials, has_patch, lacks_patch, pair, run};
use msquic_transport::{
    Dial, MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    CertHash, CloseReason, ConnectError, ListenError, NetConnection, NetCredential,
    NetIncomingRequest, NetListener, NetTransport, RecvError, Rejection, RejectionBy, SendError,
    TrustPolicy, WithCauses,
};
use std::any::Any;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn both_sides_agree_on_identities_and_addresses() {
    run(async {
        let Pair { listener, client, server } = pair().await;
        assert_ne!(listener.local_addr().port(), 0);
        assert_eq!(client.remote_addr(), listener.local_addr());
        for (one, other) in [(&client, &server), (&server, &client)] {
            assert_eq!(one.local_addr(), other.remote_addr());
            assert_eq!(one.local_identity(), other.remote_identity());
            assert_eq!(one.alpn_negotiated(), ALPN);
            let certificate = one.remote_certificate().unwrap();
            assert_eq!(CertHash::of(&certificate).to_string(), one.remote_identity());
        }
        let statistics = client.statistics().await.unwrap();
        assert!(statistics.rtt > Duration::ZERO);
    });
}

/// Dials with one credential and listens with another; returns both results.
async fn dial(
    server: &NetCredential,
    client: NetCredential,
    alpn: [&str; 2],
) -> (Result<MsQuicNetConnection, ConnectError>, Result<MsQuicNetConnection, ConnectError>) {
    let transport = MsQuicTransport::new();
    let listener = transport.create_listener(loopback(), &[alpn[0]], server.clone()).await.unwrap();
    let offered = [alpn[1]];
    let connect = transport.connect(listener.local_addr(), &offered, client);
    let accept = async { listener.accept().await.unwrap().accept().await };
    tokio::join!(connect, accept)
}

/// The alert for a valid certificate that the policy rejects; unpatched msquic has one alert for
/// all.
fn untrusted() -> Option<u8> {
    Some(if has_patch("N15") { 48 } else { 42 })
}

#[test]
fn a_client_that_is_not_trusted_is_described_on_both_sides() {
    run(async {
        let (server, _) = credentials();
        let stranger = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let identity = Some(stranger.identity());
        let (client, accepted) = dial(&server, stranger, [ALPN, ALPN]).await;

        let Err(ConnectError::Rejected(ours)) = accepted else { panic!("{accepted:?}") };
        assert_eq!((ours.by, ours.identity, ours.alert), (RejectionBy::Us, identity, untrusted()));
        assert!(ours.remote_addr.ip().is_loopback());

        // The client may be connected before the server rejects it; then its connection ends.
        let theirs: Rejection = match client {
            Err(ConnectError::Rejected(rejection)) => rejection,
            Err(error) => panic!("{error:?}"),
            Ok(connection) => {
                let received = connection.recv().await;
                let CloseReason::Rejected(rejection) = connection.watch_close().await else {
                    panic!("{received:?}");
                };
                let closed = CloseReason::Rejected(rejection.clone());
                assert_eq!(received, Err(RecvError::Closed(closed.clone())));
                assert_eq!(connection.send(b"x").await, Err(SendError::Closed(closed)));
                rejection
            }
        };
        assert_eq!(
            (theirs.by, theirs.identity, theirs.alert),
            (RejectionBy::Peer, identity, untrusted())
        );
    });
}

#[test]
fn a_server_that_is_not_trusted_is_described_on_both_sides() {
    run(async {
        let server = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let client = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let identity = Some(server.identity());
        let (connected, accepted) = dial(&server, client, [ALPN, ALPN]).await;
        let Err(ConnectError::Rejected(ours)) = connected else { panic!("{connected:?}") };
        assert_eq!((ours.by, ours.identity, ours.alert), (RejectionBy::Us, identity, untrusted()));
        let Err(ConnectError::Rejected(theirs)) = accepted else { panic!("{accepted:?}") };
        assert_eq!(
            (theirs.by, theirs.identity, theirs.alert),
            (RejectionBy::Peer, identity, untrusted())
        );
    });
}

#[test]
fn no_common_protocol_names_the_offered_ones() {
    run(async {
        let (server, client) = credentials();
        let transport = MsQuicTransport::new();
        let listener = transport.create_listener(loopback(), &["one"], server).await.unwrap();
        let remote_addr = listener.local_addr();
        let error = transport.connect(remote_addr, &["two", "three"], client).await.unwrap_err();
        let offered = vec!["two".to_owned(), "three".to_owned()];
        assert_eq!(error, ConnectError::NoCommonAlpn { remote_addr, offered });
        assert!(!error.is_retryable());
    });
}

#[test]
fn the_listeners_first_common_protocol_wins() {
    run(async {
        let (server, client) = credentials();
        let transport = MsQuicTransport::new();
        let listener =
            transport.create_listener(loopback(), &["a", "b", "c"], server).await.unwrap();
        let connect = transport.connect(listener.local_addr(), &["c", "b"], client);
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (client, server) = tokio::join!(connect, accept);
        assert_eq!(client.unwrap().alpn_negotiated(), "b");
        assert_eq!(server.alpn_negotiated(), "b");
    });
}

#[test]
fn a_closed_port_ends_in_a_typed_error_within_the_timeout() {
    run(async {
        let (_, client) = credentials();
        let timeout = Duration::from_secs(2);
        let config = MsQuicTransportConfig::new().handshake_timeout(timeout);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let port = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
        let started = Instant::now();
        let error = transport.connect(port, &[ALPN], client.clone()).await.unwrap_err();
        let refused = ConnectError::Refused(port);
        let timed_out = ConnectError::TimedOut { remote_addr: port, after: timeout };
        assert!(error == refused || error == timed_out, "{error:?}");
        assert!(error.is_retryable());
        assert!(started.elapsed() < timeout + Duration::from_secs(5));

        // A socket that never answers.
        let silent = UdpSocket::bind(loopback()).unwrap();
        let remote_addr = silent.local_addr().unwrap();
        let error = transport.connect(remote_addr, &[ALPN], client).await.unwrap_err();
        assert_eq!(error, ConnectError::TimedOut { remote_addr, after: timeout });
    });
}

#[test]
fn bad_arguments_are_typed_errors() {
    run(async {
        let (server, client) = credentials();
        let transport = MsQuicTransport::new();
        let connect = |addr: SocketAddr, alpn| transport.connect(addr, alpn, client.clone());
        for error in [
            connect("127.0.0.1:0".parse().unwrap(), &[ALPN]).await,
            connect("127.0.0.1:9".parse().unwrap(), &[]).await,
            connect("127.0.0.1:9".parse().unwrap(), &[""]).await,
        ] {
            assert!(matches!(error, Err(ConnectError::InvalidInput(_))), "{error:?}");
        }
        let error = transport.create_listener(loopback(), &[], server.clone()).await.err();
        assert!(matches!(error, Some(ListenError::InvalidInput(_))), "{error:?}");

        let taken = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
        let _socket = UdpSocket::bind(taken).unwrap();
        let error = transport.create_listener(taken, &[ALPN], server.clone()).await.err();
        assert_eq!(error, Some(ListenError::AddressInUse(taken)));

        let elsewhere = "192.0.2.1:0".parse().unwrap(); // of no host (RFC 5737)
        let error = transport.create_listener(elsewhere, &[ALPN], server).await.err();
        let Some(ListenError::Transport(cause)) = error else { panic!("{error:?}") };
        let kind = cause.downcast_ref().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::AddrNotAvailable), "{cause:?}");
    });
}

#[test]
fn an_address_can_be_bound_again_after_the_listener_is_dropped() {
    run(async {
        let (server, _) = credentials();
        let transport = MsQuicTransport::new();
        let first = transport.create_listener(loopback(), &[ALPN], server.clone()).await.unwrap();
        let addr = first.local_addr();
        drop(first);
        let second = loop {
            match transport.create_listener(addr, &[ALPN], server.clone()).await {
                Ok(listener) => break listener,
                Err(ListenError::AddressInUse(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(second.local_addr(), addr);
    });
}

#[test]
fn a_peer_that_stalls_its_handshake_does_not_delay_others() {
    run(async {
        let (server, client) = credentials();
        let transport = MsQuicTransport::new();
        let listener = transport.create_listener(loopback(), &[ALPN], server).await.unwrap();
        let addr = listener.local_addr();
        let other = MsQuicTransport::new();
        let slow = tokio::spawn({
            let client = client.clone();
            async move { other.connect(addr, &[ALPN], client).await }
        });
        let waiting = listener.accept().await.unwrap(); // its handshake makes no progress
        let connect = transport.connect(addr, &[ALPN], client);
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (quick, _accepted) = tokio::join!(connect, accept);
        quick.unwrap();
        drop(waiting);
        assert!(slow.await.unwrap().is_err(), "a dropped request is refused");
    });
}

#[test]
fn handles_may_be_dropped_in_any_order() {
    run(async {
        for seed in 0..24_usize {
            let (for_server, for_client) = credentials();
            let transport = MsQuicTransport::new();
            let listener =
                transport.create_listener(loopback(), &[ALPN], for_server).await.unwrap();
            let connect = transport.connect(listener.local_addr(), &[ALPN], for_client);
            let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
            let (client, server) = tokio::join!(connect, accept);
            let client = client.unwrap();
            client.send(&[1; 100_000]).await.unwrap();
            server.send(&[2; 100_000]).await.unwrap();
            let mut handles: Vec<Box<dyn Any>> =
                vec![Box::new(transport), Box::new(listener), Box::new(client), Box::new(server)];
            let mut rest = seed;
            while !handles.is_empty() {
                let index = rest % handles.len();
                rest /= handles.len();
                drop(handles.remove(index));
            }
        }
    });
}

/// Returns the port from which `transport` connects to `listener`.
async fn source_port(
    transport: &MsQuicTransport,
    listener: &MsQuicListener,
    credential: &NetCredential,
) -> (u16, MsQuicNetConnection, MsQuicNetConnection) {
    let connect = transport.connect(listener.local_addr(), &[ALPN], credential.clone());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (client, server) = tokio::join!(connect, accept);
    let client = client.unwrap();
    assert_eq!(server.remote_addr(), client.local_addr());
    (client.local_addr().port(), client, server)
}

#[test]
fn the_configuration_sets_the_local_port() {
    if lacks_patch("N28") {
        return;
    }
    run(async {
        let (for_server, for_client) = credentials();
        let server = MsQuicTransport::new();
        let listen = || server.create_listener(loopback(), &[ALPN], for_server.clone());
        let there = [listen().await.unwrap(), listen().await.unwrap()];

        let shared = MsQuicTransport::new();
        let (one, _client, _server) = source_port(&shared, &there[0], &for_client).await;
        let (two, _client, _server) = source_port(&shared, &there[1], &for_client).await;
        let (three, _client, _server) = source_port(&shared, &there[0], &for_client).await;
        assert!(one == two || two == three, "{one} {two} {three}");

        let config = MsQuicTransportConfig::new().share_sockets(false);
        let alone = MsQuicTransport::with_config(config).unwrap();
        let (four, _client, _server) = source_port(&alone, &there[0], &for_client).await;
        let (five, _client, _server) = source_port(&alone, &there[0], &for_client).await;
        assert!(four != five && ![one, two, three].contains(&four));

        let config = MsQuicTransportConfig::new().dial_from_listener(true);
        let peer = MsQuicTransport::with_config(config).unwrap();
        let here = peer.create_listener(loopback(), &[ALPN], for_client.clone()).await.unwrap();
        let (port, _client, _server) = source_port(&peer, &there[0], &for_client).await;
        assert_eq!(port, here.local_addr().port());
        let (_, _client, _server) = source_port(&server, &here, &for_server).await;

        let local: SocketAddr = "127.0.0.4:0".parse().unwrap();
        let config = MsQuicTransportConfig::new().local_addr(Some(local));
        let transport = MsQuicTransport::with_config(config).unwrap();
        let (_, client, _server) = source_port(&transport, &there[0], &for_client).await;
        assert_eq!(client.local_addr().ip(), local.ip());
    });
}

#[test]
fn a_name_is_dialled() {
    run(async {
        let (for_server, for_client) = credentials();
        let transport = MsQuicTransport::new();
        let listener = transport.create_listener(loopback(), &[ALPN], for_server).await.unwrap();
        let dial = Dial::new("localhost", listener.local_addr().port());
        let connect = transport.connect_with(&dial, &[ALPN], for_client.clone());
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (client, accepted) = tokio::join!(connect, accept);
        accepted.unwrap();
        assert_eq!(client.unwrap().remote_addr(), listener.local_addr());

        let unknown = Dial::new("unknown.invalid", 1);
        let error = transport.connect_with(&unknown, &[ALPN], for_client).await.unwrap_err();
        assert!(
            error.is_retryable() && WithCauses(&error).to_string().contains("unknown.invalid"),
            "{error}"
        );
    });
}
