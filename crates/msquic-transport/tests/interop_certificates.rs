//! Rejected certificates: this transport and quinn describe them to each other by TLS alerts.

mod common;
mod quinn_peer;

use common::certificates::{dated, expired, forged, not_yet_valid};
use common::{ALPN, has_patch, run};
use msquic_transport::{MsQuicListener, MsQuicTransport};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, Rejection, RejectionBy, TrustError, TrustPolicy,
};
use quinn_peer::{QuinnPeer, Verdict};
use rustls::CertificateError;
use std::net::SocketAddr;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen() -> MsQuicListener {
    MsQuicTransport::new().create_listener(loopback(), &[ALPN], trusting()).await.unwrap()
}

#[test]
fn every_certificate_alert_of_a_server_is_described() {
    run(async {
        for (why, alert) in alerts() {
            let peer = QuinnPeer::new(Some(&trusting()), Verdict::Rejects(why.clone()), ALPN);
            let me = trusting();
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
            let me = trusting();
            let transport = MsQuicTransport::new();
            let listener =
                transport.create_listener(loopback(), &[ALPN], me.clone()).await.unwrap();
            let peer = QuinnPeer::new(Some(&trusting()), Verdict::Rejects(why.clone()), ALPN);
            let connect = peer.connect(listener.local_addr());
            let accept = async { listener.accept().await.unwrap().accept().await };
            let (theirs, ours) = tokio::join!(connect, accept);
            assert!(theirs.is_err(), "{why:?}");
            let Err(ConnectError::Rejected(rejection)) = ours else { panic!("{why:?}: {ours:?}") };
            check(&rejection, alert, me);
        }
    });
}

/// Errors of quinn's verifier, and the TLS alerts that it sends for them.
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

/// The alert that our side sends; unpatched msquic has one alert for all.
fn sent(alert: u8) -> u8 {
    if has_patch("N15") || matches!(alert, 51 | 116) { alert } else { 42 }
}

fn check(rejection: &Rejection, alert: u8, me: NetCredential) {
    assert_eq!((rejection.by, rejection.alert), (RejectionBy::Peer, Some(alert)), "{rejection}");
    assert_eq!(rejection.identity, Some(me.identity()));
    assert!(rejection.reason.contains(&alert.to_string()), "{rejection}");
}

#[test]
fn a_client_without_a_certificate_is_rejected_with_an_alert() {
    run(async {
        let listener = listen().await;
        let peer = QuinnPeer::new(None, Verdict::Accepts, ALPN);
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

/// Replaces ecdsa-with-SHA256 (RFC 5758) by ecdsa-with-SHA512.
fn another_algorithm(certificate: &mut [u8]) {
    const NAME: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let places: Vec<_> =
        (0..certificate.len()).filter(|at| certificate[*at..].starts_with(&NAME)).collect();
    assert_eq!(places.len(), 2);
    for at in places {
        certificate[at + 7] = 4;
    }
}

#[test]
fn bad_certificates_are_rejected_and_described() {
    type Is = fn(&TrustError) -> bool;
    let (own, victim) = (trusting(), trusting());
    let key = own.private_key().clone_key();
    let stolen = NetCredential::new(victim.certificate_chain().to_vec(), key, TrustPolicy::Any);
    let cases: [(_, Is, u8); 5] = [
        (expired(), |it| matches!(it, TrustError::Expired { .. }), 45),
        (not_yet_valid(), |it| matches!(it, TrustError::NotYetValid { .. }), 45),
        (forged(), |it| matches!(it, TrustError::BadSignature { .. }), 42),
        (
            dated(2000, 3000, another_algorithm),
            |it| matches!(it, TrustError::Unsupported { .. }),
            43,
        ),
        (stolen.unwrap(), |it| matches!(it, TrustError::Unproven { .. }), 51),
    ];
    run(async {
        for (credential, is_cause, alert) in cases {
            let alert = sent(alert);
            // As a client, verified by our listener.
            let listener = listen().await;
            let peer = QuinnPeer::new(Some(&credential), Verdict::Accepts, ALPN);
            let connect = async {
                let connection = peer.connect(listener.local_addr()).await.unwrap();
                connection.closed().await
            };
            let accept = async { listener.accept().await.unwrap().accept().await };
            let (closed, accepted) = tokio::join!(connect, accept);
            let Err(ConnectError::Rejected(ours)) = accepted else { panic!("{accepted:?}") };
            assert_eq!((ours.by, ours.identity), (RejectionBy::Us, Some(credential.identity())));
            assert!(is_cause(ours.cause.as_ref().unwrap()), "{ours}");
            assert_eq!(ours.alert, Some(alert));
            let quinn::ConnectionError::ConnectionClosed(close) = closed else {
                panic!("{closed:?}")
            };
            assert_eq!(u64::from(close.error_code), 0x100 + u64::from(alert));
            // As a server, verified by our dialler.
            let transport = MsQuicTransport::new();
            let connect = transport.connect(peer.local_addr(), &[ALPN], trusting());
            let (ours, theirs) = tokio::join!(connect, peer.accept());
            let Err(quinn::ConnectionError::ConnectionClosed(close)) = theirs else {
                panic!("{theirs:?}")
            };
            assert_eq!(u64::from(close.error_code), 0x100 + u64::from(alert));
            let Err(ConnectError::Rejected(ours)) = ours else { panic!("{ours:?}") };
            assert!(is_cause(ours.cause.as_ref().unwrap()), "{ours}");
            assert_eq!(ours.alert, Some(alert));
        }
    });
}
