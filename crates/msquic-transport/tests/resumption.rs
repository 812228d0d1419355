//! Resumed sessions keep the peers' identities, and revoked peers are rejected.

mod common;
mod quinn_peer;

use common::{ALPN, has_patch, lacks_patch, run};
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_traits::{
    ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    TrustPolicy,
};
use quinn_peer::{QuinnPeer, Verdict};

/// One transport for both sides.
struct Returning {
    transport: MsQuicTransport,
    listener: MsQuicListener,
    server: NetCredential,
    client: NetCredential,
}

type BothResults = [Result<MsQuicNetConnection, ConnectError>; 2];

impl Returning {
    async fn new(resumption: bool) -> Self {
        let (server, client) = (trusting(), trusting());
        let config = MsQuicTransportConfig::new()
            .resumption(resumption)
            .max_connections_per_identity(1_000_000);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &[ALPN], server.clone()).await.unwrap();
        Self { transport, listener, server, client }
    }

    async fn connect_pair(&self) -> BothResults {
        let address = self.listener.local_addr();
        let dial = self.transport.connect(address, &[ALPN], self.client.clone());
        let accept = async { self.listener.accept().await.unwrap().accept().await };
        let (client, server) = tokio::join!(dial, accept);
        [client, server]
    }

    /// Connects, checks the peers' identities, and returns whether the session was resumed.
    async fn is_resumed(&self) -> bool {
        let [client, server] = self.connect_pair().await.map(Result::unwrap);
        assert_eq!(server.remote_identity(), self.client.identity().to_string());
        assert_eq!(client.remote_identity(), self.server.identity().to_string());
        // The ticket is sent before the message.
        server.send(b"hello").await.unwrap();
        assert_eq!(&*client.recv().await.unwrap().0, b"hello");
        assert_eq!(client.is_resumed(), server.is_resumed());
        client.is_resumed()
    }
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

fn is_possible() -> bool {
    has_patch("N11-A9")
}

#[test]
fn sessions_are_resumed_only_if_asked_for() {
    run(async {
        let without = Returning::new(false).await;
        assert!(!without.is_resumed().await && !without.is_resumed().await);
        if is_possible() {
            let with = Returning::new(true).await;
            assert!(!with.is_resumed().await);
            for _ in 0..10 {
                assert!(with.is_resumed().await);
            }
        }
    });
}

#[test]
fn a_library_without_support_is_a_typed_error() {
    run(async {
        let config = MsQuicTransportConfig::new().resumption(true);
        let transport = MsQuicTransport::with_config(config).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport.create_listener(address, &[ALPN], trusting()).await;
        assert_eq!(listener.is_ok(), is_possible(), "{listener:?}");
    });
}

#[test]
fn a_revocation_ends_all_tickets() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async {
        let returning = Returning::new(true).await;
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
        returning.transport.revoke(&TrustPolicy::reject_all()).await;
        // The listener still trusts the peer, which needs a full handshake.
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
    });
}

#[test]
fn a_peer_that_the_listener_no_longer_trusts_cannot_resume() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async {
        let returning = Returning::new(true).await;
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
        let none = returning.server.with_trust(TrustPolicy::reject_all());
        returning.listener.set_credential(none).unwrap();
        let [_, server] = returning.connect_pair().await;
        assert!(matches!(server, Err(ConnectError::Rejected(_))), "{server:?}");
        returning.listener.set_credential(returning.server.clone()).unwrap();
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
    });
}

#[test]
fn another_certificate_of_either_side_needs_a_full_handshake() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async {
        let mut returning = Returning::new(true).await;
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
        returning.client = trusting();
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
        returning.server = trusting();
        returning.listener.set_credential(returning.server.clone()).unwrap();
        assert!(!returning.is_resumed().await && returning.is_resumed().await);
    });
}

#[test]
fn a_quinn_client_resumes_and_gets_no_early_data() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async {
        let returning = Returning::new(true).await;
        let credential = trusting();
        let peer = QuinnPeer::new(Some(&credential), Verdict::Accepts, ALPN);
        for is_resumed in [false, true, true] {
            let connect = peer.connect_early(returning.listener.local_addr());
            let accept = async { returning.listener.accept().await.unwrap().accept().await };
            let ((theirs, is_early), ours) = tokio::join!(connect, accept);
            let (theirs, ours) = (theirs.unwrap(), ours.unwrap());
            assert!(!is_early);
            assert_eq!(ours.is_resumed(), is_resumed);
            assert_eq!(ours.peer_identity().hash, credential.identity());
            ours.send(b"hello").await.unwrap(); // after the ticket
            let mut stream = theirs.accept_uni().await.unwrap();
            assert_eq!(quinn_peer::read_frame(&mut stream).await.unwrap(), b"hello");
        }
    });
}

#[test]
fn a_session_with_a_quinn_server_is_resumed() {
    if lacks_patch("N11-A9") {
        return;
    }
    run(async {
        let returning = Returning::new(true).await;
        let credential = trusting();
        let peer = QuinnPeer::new(Some(&credential), Verdict::Accepts, ALPN);
        for is_resumed in [false, true, true] {
            let connect =
                returning.transport.connect(peer.local_addr(), &[ALPN], returning.client.clone());
            let (ours, theirs) = tokio::join!(connect, peer.accept());
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            assert_eq!(ours.is_resumed(), is_resumed);
            assert_eq!(ours.peer_identity().hash, credential.identity());
            let mut stream = theirs.open_uni().await.unwrap();
            stream.write_all(&quinn_peer::frame(b"hello")).await.unwrap(); // after the tickets
            assert_eq!(&*ours.recv().await.unwrap().0, b"hello");
        }
    });
}
