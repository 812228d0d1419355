//! QUIC first, and TCP where QUIC is blocked.

use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_peers::{FallbackConfig, FallbackConnection, FallbackTransport};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::{Harness, Limits};
use std::net::SocketAddr;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};

const ALPN: &str = "test/1";

/// Runs the conformance suite on the fallback from QUIC to TCP.
mod conformance {
    use super::*;

    /// When QUIC fails, TCP is tried too, but the tests of the suite accept one attempt only:
    /// the second one ends after this time.
    const SECOND_HANDSHAKE: Duration = Duration::from_secs(1);

    struct Both;

    impl Harness for Both {
        type Transport = FallbackTransport<MsQuicTransport, TcpTlsTransport>;

        fn keeps_what_is_acknowledged(&self) -> bool {
            msquic_async::library_patches().iter().any(|patch| patch.fault == "N60")
        }

        fn transport(&self, limits: &Limits) -> Self::Transport {
            let config = MsQuicTransportConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout)
                .stream_op_timeout(limits.no_progress_timeout)
                .operation_timeout(limits.operation_timeout)
                .linger(limits.linger)
                .max_connections(limits.max_connections)
                .max_connections_per_identity(limits.max_connections_per_identity)
                .receive_queue(limits.receive_queue)
                .max_memory(limits.max_memory)
                .message_timeout(limits.message_timeout);
            let tcp = TcpTlsConfig::new()
                .max_message_size(limits.max_message_size)
                .max_request_size(limits.max_request_size)
                .handshake_timeout(limits.handshake_timeout.min(SECOND_HANDSHAKE))
                .no_progress_timeout(limits.no_progress_timeout)
                .operation_timeout(limits.operation_timeout)
                .linger(limits.linger)
                .max_connections(limits.max_connections)
                .max_connections_per_identity(limits.max_connections_per_identity)
                .receive_queue(limits.receive_queue)
                .max_memory(limits.max_memory)
                .message_timeout(limits.message_timeout);
            FallbackTransport::new(
                MsQuicTransport::with_config(config).unwrap(),
                TcpTlsTransport::with_config(tcp).unwrap(),
            )
        }
    }

    net_traits_test::conformance!(
        Both,
        // Limits apply to each of the two.
        without: [raw_peer, anonymous_peer, connection_limit, path],
    );

    #[test]
    fn random_schedules_keep_the_contract() {
        net_traits_test::random::run(Both, 0..50);
    }
}

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn quic_and_tcp() -> FallbackTransport<MsQuicTransport, TcpTlsTransport> {
    FallbackTransport::new(MsQuicTransport::new(), TcpTlsTransport::new())
}

#[tokio::test]
async fn quic_is_used_if_available() {
    let transport = quic_and_tcp();
    let listener = transport.create_listener(any_port(), &[ALPN], trusting()).await.unwrap();
    let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    assert!(matches!(dialled.unwrap(), FallbackConnection::Primary(_)));
    assert!(matches!(accepted, FallbackConnection::Primary(_)));
}

#[tokio::test]
async fn tcp_is_used_if_quic_is_not_available() {
    let config = FallbackConfig::new().delay(Duration::from_millis(10));
    let (quic, tcp) = (MsQuicTransport::new(), TcpTlsTransport::new());
    let transport = FallbackTransport::with_config(quic, tcp, config).unwrap();
    let tcp = TcpTlsTransport::new();
    let listener = tcp.create_listener(any_port(), &[ALPN], trusting()).await.unwrap();
    let dial = transport.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    let dialled = dialled.unwrap();
    assert!(matches!(dialled, FallbackConnection::Secondary(_)));
    dialled.send(b"over TCP").await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().0, "over TCP");
}

#[tokio::test]
async fn both_listen_on_one_port() {
    let transport = quic_and_tcp();
    let listener = transport.create_listener(any_port(), &[ALPN], trusting()).await.unwrap();
    assert_eq!(listener.primary().local_addr(), listener.secondary().local_addr());
    let (quic, tcp) = (MsQuicTransport::new(), TcpTlsTransport::new());
    let accept = || async { listener.accept().await.unwrap().accept().await.unwrap() };
    let address = listener.local_addr();
    let (dialled, accepted) = tokio::join!(tcp.connect(address, &[ALPN], trusting()), accept());
    assert!(dialled.is_ok() && matches!(accepted, FallbackConnection::Secondary(_)));
    let (dialled, accepted) = tokio::join!(quic.connect(address, &[ALPN], trusting()), accept());
    assert!(dialled.is_ok() && matches!(accepted, FallbackConnection::Primary(_)));
}
