//! Connecting: addresses, protocols, requests.

use crate::stage::{
    ALPN, PAUSE, Pair, Stage, credential, credentials, dial, greet, introduce, introduce_at,
    poll_once_until_ready,
};
use crate::{Harness, Limits};
use net_traits::{
    CloseReason, ConnectError, ListenError, NetConnection, NetIncomingRequest, NetListener,
    NetTransport, TrustPolicy,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tokio::time::sleep;

/// Port 0 becomes an assigned port, which `local_addr` returns, and each side knows the other's
/// address.
///
/// Addresses are passed on to other peers, so they must be reachable.
pub async fn each_side_knows_both_addresses<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    assert_ne!(listener.local_addr().port(), 0, "the listener returns its port");
    let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.remote_addr(), listener.local_addr());
    assert_eq!(accepted.local_addr(), listener.local_addr());
    assert_eq!(accepted.remote_addr(), dialled.local_addr());
}

/// A listener on `[::]` accepts both families, and IPv4 addresses are reported as IPv4.
///
/// A node with one listener is dialled at its IPv4 and its IPv6 address. Limits and logs need one
/// form of each address.
pub async fn a_listener_on_all_addresses_is_dual_stack<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let transport = stage.transport();
    let all = (Ipv6Addr::UNSPECIFIED, 0).into();
    let listener = transport.create_listener(all, &[ALPN], for_listener).await.unwrap();
    let port = listener.local_addr().port();
    for ip in loopbacks() {
        let address = SocketAddr::new(ip, port);
        let (dialled, accepted) =
            introduce_at::<H>(&transport, &listener, address, for_dialler.clone()).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        for addr in [accepted.remote_addr(), accepted.local_addr(), dialled.remote_addr()] {
            assert_eq!(addr.ip().to_canonical(), addr.ip(), "{address} is dialled");
        }
        greet(&dialled, &accepted).await;
    }
}

/// A dial of an unspecified address reaches this host, as with TCP.
///
/// Programs publish the address that they listen on.
pub async fn the_unspecified_address_is_this_host<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let transport = stage.transport();
    for ip in loopbacks() {
        let all = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listen = transport.create_listener((all, 0).into(), &[ALPN], for_listener.clone());
        let listener = listen.await.unwrap();
        let address = SocketAddr::new(all, listener.local_addr().port());
        let (dialled, accepted) =
            introduce_at::<H>(&transport, &listener, address, for_dialler.clone()).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert!(!dialled.remote_addr().ip().is_unspecified());
        greet(&dialled, &accepted).await;
    }
}

/// Returns the loopback addresses that the system has.
fn loopbacks() -> impl Iterator<Item = IpAddr> {
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let ipv6 = has_ipv6.then_some(Ipv6Addr::LOCALHOST.into());
    [Ipv4Addr::LOCALHOST.into()].into_iter().chain(ipv6)
}

/// Dialling an address that is not that of one host is `InvalidInput` over every transport.
///
/// Otherwise the caller would wait for a timeout, or get an error of the system.
pub async fn addresses_of_no_host_are_invalid_input<H: Harness>(stage: Stage<H>) {
    let transport = stage.transport();
    for address in ["127.0.0.1:0", "224.0.0.1:7", "255.255.255.255:7", "[ff02::1]:7", "[fe80::1]:7"]
    {
        let dialled =
            dial::<H>(&transport, address.parse().unwrap(), credential(TrustPolicy::Any)).await;
        let error = dialled.expect_err("it is not the address of a host");
        assert!(matches!(error, ConnectError::InvalidInput(_)), "{address}: {error}");
        assert!(!error.is_retryable());
    }
}

/// After a listener is dropped, another one can use its port, even if it had connections.
///
/// Nodes restart on their published port.
pub async fn the_port_of_a_dropped_listener_is_free<H: Harness>(stage: Stage<H>) {
    let Pair { one, other, listener, transports: [_, transport] } = stage.meet().await;
    let address = listener.local_addr();
    drop((one, other, listener));
    loop {
        let again = transport.create_listener(address, &[ALPN], credential(TrustPolicy::Any)).await;
        match again {
            Ok(listener) => return assert_eq!(listener.local_addr(), address),
            Err(ListenError::AddressInUse(_)) => sleep(PAUSE).await, // it may take a moment
            Err(error) => panic!("cannot listen on {address} again: {error}"),
        }
    }
}

/// Listening on a port in use is a typed error with the address.
///
/// An operator who starts a node twice needs a clear error.
pub async fn a_port_in_use_is_a_typed_error<H: Harness>(stage: Stage<H>) {
    let (transport, another) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
    let address = listener.local_addr();
    let taken = another.create_listener(address, &[ALPN], credential(TrustPolicy::Any)).await;
    // A transport whose hosts have their own addresses may reject this address.
    let error = taken.expect_err("a port in use is refused");
    let is_typed = matches!(error, ListenError::AddressInUse(_) | ListenError::InvalidInput(_));
    assert!(is_typed, "a port in use is a typed error, not: {error}");
    let taken = transport.create_listener(address, &[ALPN], credential(TrustPolicy::Any)).await;
    assert_eq!(taken.err(), Some(ListenError::AddressInUse(address)));
}

/// Dialling an address without a listener is a retryable typed error within the handshake timeout.
///
/// The peer may be about to start.
pub async fn no_listener_is_a_typed_error<H: Harness>(stage: Stage<H>) {
    let limits = Limits { handshake_timeout: Duration::from_secs(2), ..Limits::default() };
    let dialler = stage.transport_with(limits);
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let transport = stage.transport();
        let listener = stage.listen(&transport, credential(TrustPolicy::Any)).await;
        let address = listener.local_addr();
        drop((listener, transport));
        match dial::<H>(&dialler, address, credential(TrustPolicy::Any)).await.err() {
            Some(error @ (ConnectError::Refused(_) | ConnectError::TimedOut { .. })) => {
                return assert!(error.is_retryable());
            }
            answer => answers.push(answer), // another process may listen there now
        }
    }
    panic!("no listener is a typed error, not: {answers:?}");
}

/// Both sides agree on the listener's first protocol that the dialler offers too.
///
/// A node that supports several versions must know which one is used with this peer.
pub async fn a_common_protocol_is_negotiated<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let names = ["conformance/3", "conformance/2", "conformance/1"];
    let bind_addr = stage.harness.bind_addr();
    let listener = transport.create_listener(bind_addr, &names, for_listener).await.unwrap();
    let offered = ["conformance/4", "conformance/1", "conformance/2"];
    let dial = dialler.connect(listener.local_addr(), &offered, for_dialler);
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.alpn_negotiated(), "conformance/2");
    assert_eq!(accepted.alpn_negotiated(), "conformance/2");
}

/// Having no common protocol is a typed error.
///
/// Dialling again does not help, but an update may.
pub async fn no_common_protocol_is_a_typed_error<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let address = listener.local_addr();
    let dial = dialler.connect(address, &["another/1"], for_dialler);
    let accept = async {
        loop {
            // The listener may reject such a peer before `accept`.
            let accepted = listener.accept().await.unwrap().accept().await;
            assert!(accepted.is_err(), "there is no common protocol");
        }
    };
    let error = tokio::select! {
        dialled = dial => dialled.expect_err("there is no common protocol"),
        () = accept => unreachable!("it never ends"),
    };
    let offered = vec!["another/1".to_owned()];
    assert_eq!(error, ConnectError::NoCommonAlpn { remote_addr: address, offered });
    assert!(!error.is_retryable());
}

/// An empty list of protocols is rejected at once.
///
/// The caller should find this mistake without a peer that rejects every dial.
pub async fn no_protocol_is_invalid_input<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let transport = stage.transport();
    let listened =
        transport.create_listener(stage.harness.bind_addr(), &[], for_listener.clone()).await;
    assert!(matches!(listened.err(), Some(ListenError::InvalidInput(_))), "a listener needs one");
    let listener = stage.listen(&transport, for_listener).await;
    let dialled = stage.transport().connect(listener.local_addr(), &[], for_dialler).await;
    assert!(matches!(dialled.err(), Some(ConnectError::InvalidInput(_))), "a dialler needs one");
}

/// A refused peer is notified immediately, not by its timeout, whatever the code.
///
/// A full node refuses many peers, which can then try another node.
pub async fn a_refused_peer_is_notified<H: Harness>(stage: Stage<H>) {
    for code in [7, u64::MAX] {
        rejected(&stage, |request| request.refuse(code)).await;
    }
}

/// A peer whose request is dropped is also notified immediately.
pub async fn a_dropped_request_is_rejected<H: Harness>(stage: Stage<H>) {
    rejected(&stage, drop).await;
}

async fn rejected<H: Harness>(
    stage: &Stage<H>,
    reject: impl FnOnce(<crate::stage::Listener<H> as NetListener>::IncomingRequest),
) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let dial = dial::<H>(&dialler, listener.local_addr(), for_dialler);
    let accept = async { reject(listener.accept().await.unwrap()) };
    let (dialled, ()) = tokio::join!(dial, accept);
    let error = dialled.expect_err("the request was rejected");
    let is_notified =
        matches!(error, ConnectError::Refused(_) | ConnectError::Closed(CloseReason::Peer { .. }));
    assert!(is_notified, "the rejected peer is notified, instead of: {error}");
}

/// A pending request does not delay others: `accept` returns the next one, which can finish first.
///
/// Otherwise one slow or hostile peer would block a node.
pub async fn a_slow_peer_does_not_delay_others<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let address = listener.local_addr();
    let first = dial::<H>(&dialler, address, for_dialler.clone());
    let others = async {
        let slow = listener.accept().await.unwrap();
        let (dialled, accepted) = introduce::<H>(&dialler, &listener, for_dialler).await;
        greet(&dialled.unwrap(), &accepted.unwrap()).await;
        slow.accept().await.unwrap()
    };
    let (first, accepted) = tokio::join!(first, others);
    greet(&first.unwrap(), &accepted).await;
}

/// `accept` of the listener is cancel-safe: dropping its futures loses no request.
///
/// Servers accept in a `select!` with other branches.
pub async fn a_cancelled_accept_loses_no_request<H: Harness>(stage: Stage<H>) {
    let (for_listener, for_dialler) = credentials();
    let (transport, dialler) = (stage.transport(), stage.transport());
    let listener = stage.listen(&transport, for_listener).await;
    let dial = dial::<H>(&dialler, listener.local_addr(), for_dialler);
    let accept = async {
        let request = poll_once_until_ready(|| listener.accept()).await.unwrap();
        request.accept().await
    };
    let (dialled, accepted) = tokio::join!(dial, accept);
    greet(&dialled.unwrap(), &accepted.unwrap()).await;
}
