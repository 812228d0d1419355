//! Hosts of an in-memory network, for all tests.
#![allow(dead_code, reason = "each test file uses a part")]

use net_peers::{PeerEvent, PeerEvents, PeerPool, PeerPoolConfig, Undelivered};
use net_traits::{
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::memory::{MemoryConnection, MemoryListener, MemoryNetwork, MemoryTransport};
use std::net::SocketAddr;

pub(crate) const ALPN: &str = "test/1";

pub(crate) type Events = PeerEvents<MemoryConnection>;
pub(crate) type Pool = PeerPool<MemoryTransport>;

pub(crate) fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// Creates two credentials, the one with the smaller identity first.
pub(crate) fn two_trusting() -> (NetCredential, NetCredential) {
    let (one, other) = (trusting(), trusting());
    if one.identity() < other.identity() { (one, other) } else { (other, one) }
}

/// Any free port of a host.
pub(crate) fn any_port() -> SocketAddr {
    "0.0.0.0:0".parse().unwrap()
}

/// Listens on a new host of `network`.
pub(crate) async fn listen(network: &MemoryNetwork, credential: &NetCredential) -> MemoryListener {
    let host = network.transport();
    host.create_listener(any_port(), &[ALPN], credential.clone()).await.unwrap()
}

pub(crate) async fn accept(listener: &MemoryListener) -> MemoryConnection {
    listener.accept().await.unwrap().accept().await.unwrap()
}

/// Creates a pool on a new host of `network`.
pub(crate) fn pool(
    network: &MemoryNetwork,
    credential: NetCredential,
    config: PeerPoolConfig,
) -> (Pool, Events) {
    PeerPool::new(network.transport(), &[ALPN], credential, config).unwrap()
}

/// Waits for the next message.
pub(crate) async fn recv(connection: &MemoryConnection) -> Vec<u8> {
    connection.recv().await.unwrap().0.to_vec()
}

/// Waits for the next report of a message that was not delivered.
pub(crate) async fn undelivered(events: &mut Events) -> Undelivered {
    loop {
        if let PeerEvent::Undelivered(undelivered) = events.recv().await.unwrap() {
            return undelivered;
        }
    }
}
