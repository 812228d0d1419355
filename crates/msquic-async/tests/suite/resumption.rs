//! Resumed sessions: the identities of the peers, and peers that cannot resume.

use super::peers::{ALPN, credential, listen, settings};
use super::skip::{has_patch, lacks_patch};
use crate::executors::{run, run_tokio};
use msquic_async::{
    Configuration, Connection, Listener, NetCredential, Registration, Resumption, Settings,
    StreamLimits, StreamType, TrustPolicy,
};
use msquic_async::{ConnectionError, ConnectionStartError};
use net_traits::{EndorsementValidity, Endorser, Endorsers, IdentityKey, TrustError};
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Whether the library of this process can resume sessions.
fn is_possible() -> bool {
    has_patch("N11-A9")
}

/// A client that connects repeatedly, and its server.
struct Returning {
    registration: Registration,
    listener: Listener,
    /// Of the server.
    issued: Resumption,
    /// Of the client.
    kept: Resumption,
    configuration: Configuration,
    client: NetCredential,
    host: &'static str,
}

impl Returning {
    fn new() -> Self {
        Self::with(credential(), credential())
    }

    fn with(client: NetCredential, server: NetCredential) -> Self {
        let registration = Registration::new("test").unwrap();
        let (issued, kept) = (Resumption::new(), Resumption::new());
        let resuming = settings().resumption(issued.clone());
        let listener = listen(&registration, &resuming, server, StreamLimits::default());
        let configuration = configure(&registration, &kept, &client);
        let host = "127.0.0.1";
        Self { registration, listener, issued, kept, configuration, client, host }
    }

    /// Dials, and returns the results of both sides.
    async fn try_dial(&self) -> (Connection, Connection, [Result<(), ConnectionStartError>; 2]) {
        let client = Connection::new(&self.registration, self.client.clone()).unwrap();
        let port = self.listener.local_addr().unwrap().port();
        let start = client.start(&self.configuration, self.host, port);
        let accept = async {
            let server = self.listener.accept().await.unwrap();
            let accepted = server.accept().await;
            (server, accepted)
        };
        let (started, (server, accepted)) = futures::future::join(start, accept).await;
        (client, server, [started, accepted])
    }

    /// Connects, and returns whether the session was resumed.
    async fn dial(&self) -> (Connection, Connection, bool) {
        let (client, server, results) = self.try_dial().await;
        for result in results {
            result.unwrap();
        }
        assert_eq!(client.is_resumed(), server.is_resumed());
        let is_resumed = client.is_resumed();
        (client, server, is_resumed)
    }

    /// Completes a full handshake, and waits for the ticket.
    async fn get_ticket(&self) {
        let before = self.kept.kept();
        let (_client, _server, is_resumed) = self.dial().await;
        assert!(!is_resumed);
        until(|| self.kept.kept() > before).await;
    }

    /// Dials with a ticket, and expects that the server does not trust the peer. The client may
    /// be connected before that.
    async fn is_rejected(&self) -> TrustError {
        assert!(self.kept.kept() > 0);
        let (client, server, [_, accepted]) = self.try_dial().await;
        assert_eq!(self.kept.kept(), 0, "the ticket was used");
        assert!(server.peer_identity().is_none());
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(error))) = accepted
        else {
            panic!("{accepted:?}");
        };
        // As after a full handshake.
        let told = client.watch_shutdown().await;
        assert_eq!(told.certificate_alert(), Some(error.tls_alert()), "{told:?}");
        error
    }
}

fn configure(
    registration: &Registration,
    resumption: &Resumption,
    credential: &NetCredential,
) -> Configuration {
    let settings = settings().resumption(resumption.clone());
    Configuration::client(registration, &[ALPN], &settings, credential).unwrap()
}

/// Waits for a state that no event reports.
async fn until(mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    poll_fn(|cx| {
        assert!(Instant::now() < deadline, "it did not become true");
        cx.waker().wake_by_ref();
        if is_true() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn a_session_is_resumed_again_and_again_and_identities_stay() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let returning = Returning::new();
        let (client, server, is_resumed) = returning.dial().await;
        assert!(!is_resumed);
        let identities = || (client.peer_identity().unwrap(), server.peer_identity().unwrap());
        assert_eq!(identities().1.hash, returning.client.identity());
        until(|| returning.kept.kept() == 1).await;
        for _ in 0..5 {
            let (again, peer, is_resumed) = returning.dial().await;
            assert!(is_resumed);
            assert_eq!(
                (again.peer_identity().unwrap(), peer.peer_identity().unwrap()),
                identities()
            );
            assert_eq!(again.get_remote_certificate(), client.get_remote_certificate());
            assert_eq!(peer.get_remote_certificate(), server.get_remote_certificate());
            assert_eq!(again.get_negotiated_alpn().as_deref(), Some(ALPN.as_bytes()));
            let mut sent = again.open_send_stream().await.unwrap();
            let receive = async {
                let received = peer.accept_inbound_uni_stream().await.unwrap();
                received.read_chunk().await.unwrap().unwrap()
            };
            let (sent, received) = futures::future::join(sent.send("again"), receive).await;
            sent.unwrap();
            assert_eq!(&*received, b"again");
            until(|| returning.kept.kept() == 1).await;
        }
    });
}

#[test]
fn a_server_is_known_by_its_name_too() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let mut returning = Returning::new();
        returning.get_ticket().await;
        returning.host = "localhost";
        returning.get_ticket().await;
        assert!(returning.dial().await.2);
        returning.host = "127.0.0.1";
        assert!(returning.dial().await.2);
    });
}

#[test]
fn nothing_is_resumed_unless_both_sides_ask_for_it() {
    run(async || {
        let without = Returning::new_with(settings(), settings());
        assert!(!without.dial().await.2 && !without.dial().await.2);
        if is_possible() {
            let issued = Resumption::new();
            let server = Returning::new_with(settings().resumption(issued), settings());
            assert!(!server.dial().await.2 && !server.dial().await.2);
            let kept = Resumption::new();
            let client = Returning::new_with(settings(), settings().resumption(kept.clone()));
            assert!(!client.dial().await.2 && !client.dial().await.2);
            assert_eq!(kept.kept(), 0);
        }
    });
}

impl Returning {
    /// With these settings of the server and of the client.
    fn new_with(server: Settings, client: Settings) -> Self {
        let registration = Registration::new("test").unwrap();
        let listener = listen(&registration, &server, credential(), StreamLimits::default());
        let credential = credential();
        let configuration =
            Configuration::client(&registration, &[ALPN], &client, &credential).unwrap();
        let (issued, kept) = (Resumption::new(), Resumption::new());
        Self {
            registration,
            listener,
            issued,
            kept,
            configuration,
            client: credential,
            host: "127.0.0.1",
        }
    }
}

#[test]
fn a_library_without_the_patches_is_a_typed_error() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let settings = settings().resumption(Resumption::new());
        let result = Configuration::client(&registration, &[ALPN], &settings, &credential());
        assert_eq!(result.is_ok(), is_possible(), "{result:?}");
    });
}

#[test]
fn a_revoked_client_cannot_resume() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let server = credential();
        let returning = Returning::with(credential(), server.clone());
        // With one configuration, so that the ticket itself is still good.
        let resuming = settings().resumption(returning.issued.clone());
        let configuration =
            Configuration::server(&returning.registration, &[ALPN], &resuming, &server).unwrap();
        let trusting = |trust| {
            returning
                .listener
                .set_credential(configuration.clone(), server.with_trust(trust))
                .unwrap()
        };
        trusting(TrustPolicy::Any);
        returning.get_ticket().await;
        trusting(TrustPolicy::reject_all());
        let error = returning.is_rejected().await;
        assert_eq!(error, TrustError::UntrustedIdentity(returning.client.identity()));
        // Once trusted again, a full handshake is needed.
        trusting(TrustPolicy::Any);
        assert!(!returning.dial().await.2);
    });
}

#[test]
fn a_revoked_server_is_not_resumed_with() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let mut returning = Returning::new();
        returning.get_ticket().await;
        returning.client = returning.client.with_trust(TrustPolicy::reject_all());
        let (client, server, [started, _]) = returning.try_dial().await;
        let Err(ConnectionStartError::ConnectionLost(ConnectionError::Untrusted(_))) = started
        else {
            panic!("{started:?}");
        };
        assert!(client.peer_identity().is_none());
        server.watch_shutdown().await;
    });
}

#[test]
fn a_client_whose_endorsement_ended_cannot_resume() {
    if lacks_patch("N11-A9") {
        return;
    }
    run_tokio(async || {
        let (endorser, key) = (Endorser::generate().unwrap(), IdentityKey::generate().unwrap());
        let info = key.public_key_info();
        let endorse = |seconds| {
            let validity = EndorsementValidity::for_duration(Duration::from_secs(seconds));
            endorser.endorse(&info, validity)
        };
        let client = key.self_sign(&["client"], &[endorse(4)]).unwrap();
        let trust = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
        let client = client.credential(TrustPolicy::Any).unwrap();
        let returning = Returning::with(client, credential().with_trust(trust));
        returning.get_ticket().await;
        let (_client, server, is_resumed) = returning.dial().await;
        assert!(is_resumed);
        assert_eq!(server.peer_identity().unwrap().endorsers, [endorser.key()]);
        until(|| returning.kept.kept() == 1).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let error = returning.is_rejected().await;
        assert!(matches!(error, TrustError::NotEndorsed { .. }), "{error}");
    });
}

#[test]
fn an_expired_certificate_cannot_resume() {
    if lacks_patch("N11-A9") {
        return;
    }
    run_tokio(async || {
        let returning = Returning::with(short_lived(Duration::from_secs(4)), credential());
        returning.get_ticket().await;
        let (_client, _server, is_resumed) = returning.dial().await;
        assert!(is_resumed);
        until(|| returning.kept.kept() == 1).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(matches!(returning.is_rejected().await, TrustError::Expired { .. }));
    });
}

/// A credential whose certificate ends soon.
fn short_lived(lifetime: Duration) -> NetCredential {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["short".to_owned()]).unwrap();
    parameters.not_after = (std::time::SystemTime::now() + lifetime).into();
    let certificate = parameters.self_signed(&key).unwrap();
    let chain = [certificate.der().to_vec()];
    NetCredential::from_der(chain, key.serialize_der(), TrustPolicy::Any).unwrap()
}

#[test]
fn another_key_of_either_side_needs_a_full_handshake() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let mut returning = Returning::new();
        returning.get_ticket().await;
        // The client changes its key: tickets belong to the one before.
        let before = returning.configuration.clone();
        returning.client = credential();
        returning.configuration =
            configure(&returning.registration, &returning.kept, &returning.client);
        let (_client, server, is_resumed) = returning.dial().await;
        assert!(!is_resumed);
        assert_eq!(server.peer_identity().unwrap().hash, returning.client.identity());
        until(|| returning.kept.kept() == 2).await;
        drop(before);
        // The server changes its key: it issued no ticket with the new one.
        let server = credential();
        let resuming = settings().resumption(returning.issued.clone());
        let configuration =
            Configuration::server(&returning.registration, &[ALPN], &resuming, &server).unwrap();
        returning.listener.set_credential(configuration, server.clone()).unwrap();
        let (client, _server, is_resumed) = returning.dial().await;
        assert!(!is_resumed);
        assert_eq!(client.peer_identity().unwrap().hash, server.identity());
    });
}

#[test]
fn tickets_are_forgotten_on_either_side() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let returning = Returning::new();
        returning.get_ticket().await;
        returning.kept.forget();
        assert_eq!(returning.kept.kept(), 0);
        returning.get_ticket().await;
        returning.issued.forget();
        let (_client, _server, is_resumed) = returning.dial().await;
        assert!(!is_resumed);
        until(|| returning.kept.kept() == 1).await;
        assert!(returning.dial().await.2, "tickets of afterwards count");
    });
}

#[test]
fn limits_of_an_earlier_connection_are_not_remembered() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let server = credential();
        let returning = Returning::with(credential(), server.clone());
        returning.get_ticket().await;
        // The server allows no streams any more.
        let registration = &returning.registration;
        let resuming = settings().peer_uni_streams(0).resumption(returning.issued.clone());
        let configuration =
            Configuration::server(registration, &[ALPN], &resuming, &server).unwrap();
        returning.listener.set_credential(configuration, server).unwrap();
        let (client, _server, is_resumed) = returning.dial().await;
        assert!(!is_resumed);
        let stream = client.open_outbound_stream(StreamType::Unidirectional, true).await;
        assert!(stream.is_err(), "msquic opens it with the limit of before");
    });
}

#[test]
fn many_dials_at_once_use_each_ticket_once() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async || {
        let returning = Returning::new();
        let mut resumed = 0;
        for _ in 0..4 {
            let dials = (0..8).map(|_| returning.try_dial());
            let connections = futures::future::join_all(dials).await;
            resumed += connections.iter().filter(|(client, ..)| client.is_resumed()).count();
            until(|| returning.kept.kept() == 4).await; // the most for one server
        }
        // A late ticket of one round may serve a dial of the next.
        assert!((12..=24).contains(&resumed), "{resumed}");
    });
}
