//! Another implementation of QUIC (quinn) speaks the wire protocol with ours, in both roles.

mod common;
mod quinn_peer;

use common::{ALPN, pattern, run};
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, RecvError, Rejection, RejectionBy, TrustPolicy,
};
use quinn::VarInt;
use quinn_peer::{Judge, QuinnPeer, frame, read_frame};
use rustls::CertificateError;
use std::net::SocketAddr;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn anybody() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen() -> MsQuicListener {
    listen_with(MsQuicTransportConfig::new()).await
}

async fn listen_with(config: MsQuicTransportConfig) -> MsQuicListener {
    let transport = MsQuicTransport::with_config(config);
    transport.create_listener(loopback(), &[ALPN], anybody()).await.unwrap()
}

/// Our listener, and a connection with a quinn client on it.
async fn ours_with_quinn_client(
    listener: &MsQuicListener,
) -> (MsQuicNetConnection, quinn::Connection, QuinnPeer) {
    let peer = QuinnPeer::new(Some(&anybody()), Judge::Accepts, ALPN);
    let connect = peer.connect(listener.local_addr());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (theirs, ours) = tokio::join!(connect, accept);
    (ours, theirs.unwrap(), peer)
}

#[test]
fn messages_go_both_ways_with_a_quinn_client_and_a_quinn_server() {
    run(async {
        let listener = listen().await;
        let (ours, theirs, _peer) = ours_with_quinn_client(&listener).await;
        converse(&ours, &theirs).await;
        // Codes and reasons of a close reach the other side.
        theirs.close(VarInt::from_u32(42), b"enough");
        let reason = CloseReason::Peer { code: 42, reason: "enough".into() };
        assert_eq!(ours.watch_close().await, reason);

        let peer = QuinnPeer::new(Some(&anybody()), Judge::Accepts, ALPN);
        let transport = MsQuicTransport::new();
        let connect = transport.connect(peer.local_addr(), &[ALPN], anybody());
        let (ours, theirs) = tokio::join!(connect, peer.accept());
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        converse(&ours, &theirs).await;
        ours.close(43, "good bye").await;
        let quinn::ConnectionError::ApplicationClosed(close) = theirs.closed().await else {
            panic!("closed in another way");
        };
        assert_eq!((close.error_code, &*close.reason), (VarInt::from_u32(43), &b"good bye"[..]));
    });
}

async fn converse(ours: &MsQuicNetConnection, theirs: &quinn::Connection) {
    let sizes = [0, 1, 1000, 100_000, 3_000_000];
    let receive = async {
        let mut stream = theirs.accept_uni().await.unwrap();
        for size in sizes {
            assert!(read_frame(&mut stream).await.unwrap() == pattern(size));
        }
    };
    let send = async {
        for size in sizes {
            ours.send_bytes(pattern(size)).await.unwrap();
        }
    };
    tokio::join!(send, receive);
    let send = async {
        let mut stream = theirs.open_uni().await.unwrap();
        for size in sizes {
            stream.write_all(&frame(&pattern(size))).await.unwrap();
        }
        stream.finish().unwrap();
    };
    let receive = async {
        for size in sizes {
            assert!(ours.recv().await.unwrap().0 == pattern(size));
        }
    };
    tokio::join!(send, receive);
}

#[test]
fn a_stream_may_end_at_every_offset() {
    run(async {
        let listener = listen().await;
        let (ours, theirs, _peer) = ours_with_quinn_client(&listener).await;
        let whole = [frame(b"one"), frame(b""), frame(b"three")].concat();
        let messages = [(7, &b"one"[..]), (11, b""), (20, b"three")];
        for end in 0..=whole.len() {
            let mut stream = theirs.open_uni().await.unwrap();
            stream.write_all(&whole[..end]).await.unwrap();
            stream.finish().unwrap();
            for (_, message) in messages.iter().filter(|(length, _)| *length <= end) {
                assert_eq!(ours.recv().await.unwrap().0, message, "ended after {end} bytes");
            }
            let is_boundary = end == 0 || messages.iter().any(|(length, _)| *length == end);
            if !is_boundary {
                let error = ours.recv().await.unwrap_err();
                assert!(
                    matches!(error, RecvError::Truncated { .. }),
                    "{error:?} after {end} bytes"
                );
            }
        }
        let mut stream = theirs.open_uni().await.unwrap();
        stream.write_all(&frame(b"the connection goes on")).await.unwrap();
        assert_eq!(ours.recv().await.unwrap().0, "the connection goes on");
    });
}

#[test]
fn a_reset_inside_a_frame_and_a_length_beyond_the_limit_cost_one_stream() {
    run(async {
        let listener = listen_with(MsQuicTransportConfig::new().max_message_size(1000)).await;
        let (ours, theirs, _peer) = ours_with_quinn_client(&listener).await;
        let mut reset = theirs.open_uni().await.unwrap();
        reset.write_all(&frame(b"message")[..8]).await.unwrap();
        // Only what has arrived can be cut.
        while ours.statistics().await.unwrap().received_stream_bytes < 8 {
            tokio::task::yield_now().await;
        }
        let receive = async { ours.recv().await.unwrap_err() };
        let reset = async { reset.reset(VarInt::from_u32(9)).unwrap() };
        let (error, ()) = tokio::join!(receive, reset);
        assert_eq!(error, RecvError::Reset { code: 9 });

        let mut too_long = theirs.open_uni().await.unwrap();
        too_long.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let error = ours.recv().await.unwrap_err();
        assert_eq!(error, RecvError::TooLarge { size: u32::MAX.into(), limit: 1000 });
        let stopped = too_long.stopped().await.unwrap();
        assert_eq!(stopped, Some(VarInt::from_u32(1)));

        let mut good = theirs.open_uni().await.unwrap();
        good.write_all(&frame(b"fine")).await.unwrap();
        assert_eq!(ours.recv().await.unwrap().0, "fine");
    });
}

#[test]
fn thousands_of_streams_are_served_a_few_at_a_time() {
    run(async {
        const STREAMS: u32 = 3000;
        let listener = listen().await;
        let (ours, theirs, _peer) = ours_with_quinn_client(&listener).await;
        let send = async {
            for number in 0..STREAMS {
                let mut stream = theirs.open_uni().await.unwrap();
                stream.write_all(&frame(&number.to_be_bytes())).await.unwrap();
                stream.finish().unwrap();
            }
        };
        let receive = async {
            let mut seen = vec![false; STREAMS as usize];
            for _ in 0..STREAMS {
                let (message, _) = ours.recv().await.unwrap();
                let number = u32::from_be_bytes(message.as_ref().try_into().unwrap());
                assert!(!std::mem::replace(&mut seen[number as usize], true));
            }
        };
        tokio::join!(send, receive);
    });
}

#[test]
fn every_certificate_alert_of_a_server_is_described() {
    run(async {
        for (why, alert) in alerts() {
            let peer = QuinnPeer::new(Some(&anybody()), Judge::Rejects(why.clone()), ALPN);
            let me = anybody();
            let transport = MsQuicTransport::new();
            let connect = transport.connect(peer.local_addr(), &[ALPN], me.clone());
            let (ours, theirs) = tokio::join!(connect, peer.accept());
            assert!(theirs.is_err(), "{why:?}");
            let rejection = match ours {
                Ok(connection) => match connection.watch_close().await {
                    CloseReason::Rejected(rejection) => rejection,
                    reason => panic!("{why:?}: {reason:?}"),
                },
                Err(ConnectError::Rejected(rejection)) => rejection,
                Err(error) => panic!("{why:?}: {error:?}"),
            };
            check(&rejection, alert, me);
        }
    });
}

#[test]
fn every_certificate_alert_of_a_client_is_described() {
    run(async {
        for (why, alert) in alerts() {
            let me = anybody();
            let transport = MsQuicTransport::new();
            let listener =
                transport.create_listener(loopback(), &[ALPN], me.clone()).await.unwrap();
            let peer = QuinnPeer::new(Some(&anybody()), Judge::Rejects(why.clone()), ALPN);
            let connect = peer.connect(listener.local_addr());
            let accept = async { listener.accept().await.unwrap().accept().await };
            let (theirs, ours) = tokio::join!(connect, accept);
            assert!(theirs.is_err(), "{why:?}");
            let Err(ConnectError::Rejected(rejection)) = ours else { panic!("{why:?}: {ours:?}") };
            check(&rejection, alert, me);
        }
    });
}

/// What quinn's verifier says, and the TLS alert that this becomes.
fn alerts() -> [(CertificateError, u8); 8] {
    [
        (CertificateError::BadEncoding, 42),
        (CertificateError::InvalidPurpose, 43),
        (CertificateError::Revoked, 44),
        (CertificateError::Expired, 45),
        (CertificateError::NotValidYet, 45),
        (CertificateError::UnknownIssuer, 48),
        (CertificateError::ApplicationVerificationFailure, 49),
        (CertificateError::BadSignature, 51),
    ]
}

fn check(rejection: &Rejection, alert: u8, me: NetCredential) {
    assert_eq!((rejection.by, rejection.alert), (RejectionBy::Peer, Some(alert)), "{rejection}");
    assert_eq!(rejection.identity, Some(me.identity()));
    assert!(rejection.reason.contains(&alert.to_string()), "{rejection}");
}

#[test]
fn a_client_without_a_certificate_is_refused_and_told_why() {
    run(async {
        let listener = listen().await;
        let peer = QuinnPeer::new(None, Judge::Accepts, ALPN);
        let connect = async {
            let connection = peer.connect(listener.local_addr()).await.unwrap();
            connection.closed().await
        };
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (closed, accepted) = tokio::join!(connect, accept);
        let Err(ConnectError::Rejected(ours)) = accepted else { panic!("{accepted:?}") };
        assert_eq!((ours.by, ours.identity, ours.alert), (RejectionBy::Us, None, Some(116)));
        let quinn::ConnectionError::ConnectionClosed(close) = closed else { panic!("{closed:?}") };
        // RFC 9001, section 4.8: an alert is the error 0x100 plus its number.
        assert_eq!(u64::from(close.error_code), 0x100 + 116);
    });
}

#[test]
fn another_protocol_is_refused_on_both_sides() {
    run(async {
        let listener = listen().await;
        let peer = QuinnPeer::new(Some(&anybody()), Judge::Accepts, "other/1");
        let error = peer.connect(listener.local_addr()).await.unwrap_err();
        assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error:?}");

        let transport = MsQuicTransport::new();
        let connect = transport.connect(peer.local_addr(), &[ALPN], anybody());
        let (ours, theirs) = tokio::join!(connect, peer.accept());
        assert!(theirs.is_err());
        let error = ours.unwrap_err();
        assert!(matches!(error, ConnectError::NoCommonAlpn { .. }), "{error:?}");
    });
}

/// A certificate with other dates than those of today.
fn dated(from: i32, until: i32) -> NetCredential {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    let chain = vec![certificate.der().to_vec()];
    NetCredential::from_der(chain, key.serialize_der(), TrustPolicy::Any).unwrap()
}

#[test]
fn certificates_that_are_not_valid_now_are_rejected_and_described() {
    run(async {
        for (credential, why) in
            [(dated(2000, 2001), "expired"), (dated(3000, 3001), "not valid before")]
        {
            // As a client, whom our listener judges.
            let listener = listen().await;
            let peer = QuinnPeer::new(Some(&credential), Judge::Accepts, ALPN);
            let connect = async {
                let connection = peer.connect(listener.local_addr()).await.unwrap();
                connection.closed().await
            };
            let accept = async { listener.accept().await.unwrap().accept().await };
            let (closed, accepted) = tokio::join!(connect, accept);
            let Err(ConnectError::Rejected(ours)) = accepted else { panic!("{accepted:?}") };
            assert_eq!((ours.by, ours.identity), (RejectionBy::Us, Some(credential.identity())));
            assert!(ours.reason.contains(why), "{ours}");
            let quinn::ConnectionError::ConnectionClosed(close) = closed else {
                panic!("{closed:?}")
            };
            assert_eq!(u64::from(close.error_code), 0x100 + 42);
            // As a server, whom our dialler judges.
            let transport = MsQuicTransport::new();
            let connect = transport.connect(peer.local_addr(), &[ALPN], anybody());
            let (ours, theirs) = tokio::join!(connect, peer.accept());
            assert!(theirs.is_err());
            let Err(ConnectError::Rejected(ours)) = ours else { panic!("{ours:?}") };
            assert!(ours.reason.contains(why), "{ours}");
        }
    });
}
