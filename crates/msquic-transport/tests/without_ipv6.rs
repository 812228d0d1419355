//! A host on which IPv6 is switched off: its addresses are errors, and IPv4 goes on.
#![cfg(target_os = "linux")]

mod common;

use common::{ALPN, credentials, run};
use msquic_transport::MsQuicTransport;
use net_peers::{Endpoint, FallbackTransport, PeerEvent, PeerPool, PeerPoolConfig, WatchResolver};
use net_traits::{
    CloseReason, ConnectError, ListenError, NetConnection, NetIncomingRequest, NetListener,
    NetTransport,
};
use quinn_transport::QuinnTransport;
use std::net::{SocketAddr, UdpSocket};
use tcp_tls_transport::TcpTlsTransport;
use tokio::sync::watch;

#[test]
fn without_ipv6_its_addresses_are_errors_and_ipv4_goes_on() {
    net_traits_test::in_own_network(&["net.ipv6.conf.all.disable_ipv6=1"], "switched_off::");
}

mod switched_off {
    use super::*;

    #[test]
    #[ignore = "started in a network of its own"]
    fn over_msquic() {
        run(ipv4_goes_on(MsQuicTransport::new));
    }

    #[test]
    #[ignore = "started in a network of its own"]
    fn over_quinn() {
        run(ipv4_goes_on(QuinnTransport::new));
    }

    #[test]
    #[ignore = "started in a network of its own"]
    fn over_tcp() {
        run(ipv4_goes_on(TcpTlsTransport::new));
    }

    #[test]
    #[ignore = "started in a network of its own"]
    fn over_a_fallback() {
        let make = || FallbackTransport::new(MsQuicTransport::new(), TcpTlsTransport::new());
        run(ipv4_goes_on(make));
    }
}

/// Listens and dials at addresses of both families, with the same two transports.
async fn ipv4_goes_on<T: NetTransport>(make: impl Fn() -> T) {
    assert!(UdpSocket::bind("[::1]:0").is_err(), "IPv6 is not switched off");
    let (server, client) = credentials();
    let (at_server, at_client) = (make(), make());
    let listened = at_server.create_listener(address("[::1]:0"), &[ALPN], server.clone()).await;
    assert!(matches!(listened, Err(ListenError::Transport(_))), "{:?}", listened.err());
    let listened = at_server.create_listener(address("127.0.0.1:0"), &[ALPN], server).await;
    let listener = listened.unwrap();
    let port = listener.local_addr().port();

    for ip in ["[::1]", "[2001:db8::7]"] {
        let remote = address(&format!("{ip}:{port}"));
        let error = at_client.connect(remote, &[ALPN], client.clone()).await.err().unwrap();
        assert!(matches!(error, ConnectError::Closed(CloseReason::Transport(_))), "{error:?}");
        assert!(error.is_retryable(), "IPv6 may be switched on");
    }
    let dial = at_client.connect(listener.local_addr(), &[ALPN], client.clone());
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    dialled.unwrap().send(b"over IPv4").await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().0, "over IPv4");

    // A peer with addresses of both families, of which the pool has dialled the other one first.
    let [ipv6, ipv4] = ["[2001:db8::7]", "127.0.0.1"].map(|ip| address(&format!("{ip}:{port}")));
    let (pool, mut events) = PeerPool::new(make(), &[ALPN], client, PeerPoolConfig::new()).unwrap();
    let (list, followed) = watch::channel(vec![Endpoint::new(ipv6)]);
    let _follow = pool.follow(WatchResolver::new(followed));
    match events.recv().await.unwrap() {
        PeerEvent::Unreachable { address, .. } => assert_eq!(address, ipv6),
        _ => panic!("IPv6 is switched off"),
    }
    list.send_modify(|list| list.push(Endpoint::new(ipv4)));
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (event, _accepted) = tokio::join!(events.recv(), accept);
    match event.unwrap() {
        PeerEvent::Connected { connection, .. } => assert_eq!(connection.remote_addr(), ipv4),
        _ => panic!("IPv4 goes on"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
