//! A pool and a peer whose host has failed: it sends nothing more, and no message arrives.

mod common;

use common::{ALPN, run};
use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
use net_peers::{PeerEvent, PeerPool, PeerPoolConfig};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::{Path, Relay};
use quinn_transport::{QuinnConfig, QuinnTransport};
use std::collections::BTreeSet;
use std::time::Duration;
use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};

/// How long a pool keeps messages after a flush.
const KEEP_SENT: Duration = Duration::from_millis(100);

/// When the connection ends.
const IDLE: Duration = Duration::from_secs(6);

const COUNT: u8 = 50;

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// Sends messages to a host that has failed, and checks that the pool reports each of them.
async fn all_are_reported<T: NetTransport>(make: impl Fn() -> T, is_tcp: bool) {
    let (server, transport) = (trusting(), make());
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], server.clone()).await.unwrap();
    let relay = match is_tcp {
        true => Relay::tcp(listener.local_addr()).await.unwrap(),
        false => Relay::udp(listener.local_addr()).await.unwrap(),
    };
    let config = PeerPoolConfig::new().max_attempts(1).keep_sent(KEEP_SENT);
    let (pool, mut events) = PeerPool::new(make(), &[ALPN], trusting(), config).unwrap();
    let send = |message: Vec<u8>| pool.send(server.identity(), relay.address(), message.into());
    send(b"before".to_vec()).unwrap();
    let accepted = listener.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(accepted.recv().await.unwrap().0, "before");

    relay.interrupt(relay.address());
    (0..COUNT).for_each(|number| send(vec![number]).unwrap());
    let mut reported = BTreeSet::new();
    while reported.len() < usize::from(COUNT) {
        let PeerEvent::Undelivered(report) = events.recv().await.unwrap() else { continue };
        if report.message == "before" {
            continue; // it was sent just before
        }
        assert!(report.may_have_arrived, "it was written");
        assert!(reported.insert(report.message[0]), "each is reported once");
    }
}

#[test]
fn a_pool_over_tcp_reports_what_a_failed_host_did_not_get() {
    let config = TcpTlsConfig::new().idle_timeout(IDLE);
    let make = || TcpTlsTransport::with_config(config.clone()).unwrap();
    run(all_are_reported(make, true));
}

#[test]
fn a_pool_over_quinn_reports_what_a_failed_host_did_not_get() {
    let config = QuinnConfig::new().idle_timeout(IDLE);
    let make = || QuinnTransport::with_config(config.clone()).unwrap();
    run(all_are_reported(make, false));
}

#[test]
fn a_pool_over_msquic_reports_what_a_failed_host_did_not_get() {
    let config = MsQuicTransportConfig::new().idle_timeout(IDLE);
    let make = || MsQuicTransport::with_config(config.clone()).unwrap();
    run(all_are_reported(make, false));
}
