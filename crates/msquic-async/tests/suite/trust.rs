//! Trust: certificates that each side accepts or rejects, and what both learn of a rejection.

use super::peers::{ALPN, credential, listen, settings};
use super::skip::has_patch;
use crate::executors::run;
use msquic_async::{
    CertHash, Configuration, Connection, NetCredential, Registration, StreamLimits, TrustPolicy,
};
use msquic_async::{ConnectionError, ConnectionStartError};
use net_traits::{CertificateDer, Endorsers, PeerIdentity, PeerVerifier};

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
        // With TLS 1.3 the client is connected before the server has verified it.
        let lost = match started {
            Ok(()) => client.watch_shutdown().await,
            Err(ConnectionStartError::ConnectionLost(error)) => error,
            Err(error) => panic!("{error:?}"),
        };
        assert!(matches!(lost, ConnectionError::ClosedByTransport { .. }), "{lost:?}");
    });
}

/// Policies that reject a valid certificate, each with the TLS alert that it sends.
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
