//! What `PeerPool::follow` does with a peer that is no longer listed and to which messages are sent.

mod common;

use common::{ALPN, Events, Pool, accept, any_port, listen, pool, recv, trusting};
use net_peers::{Endpoint, PeerEvent, PeerPoolConfig, WatchResolver};
use net_traits::{CertHash, CloseReason, NetConnection, NetCredential, NetListener, NetTransport};
use net_traits_test::memory::{LinkPlan, MemoryConnection, MemoryListener, MemoryNetwork};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// A pool that follows a list with one peer, and is connected with it.
struct Following {
    network: MemoryNetwork,
    /// Of the pool and of the peer.
    hosts: [IpAddr; 2],
    pool: Pool,
    events: Events,
    /// Of the pool and of the peer.
    credentials: [NetCredential; 2],
    list: watch::Sender<Vec<Endpoint>>,
    peer: CertHash,
    address: SocketAddr,
    listener: MemoryListener,
    accepted: MemoryConnection,
}

impl Following {
    async fn new(config: PeerPoolConfig) -> Self {
        let (network, credential) = (MemoryNetwork::new(1), trusting());
        let host = network.transport();
        let listener = host.create_listener(any_port(), &[ALPN], credential.clone());
        let listener = listener.await.unwrap();
        let address = listener.local_addr();
        let (list, listed) = watch::channel(vec![Endpoint::new(address)]);
        let own = trusting();
        let (pool, mut events) = pool(&network, own.clone(), config);
        std::mem::forget(pool.follow(WatchResolver::new(listed)));
        let accepted = accept(&listener).await;
        assert!(matches!(events.recv().await, Some(PeerEvent::Connected { .. })));
        let hosts = [accepted.remote_addr().ip(), host.ip()];
        let peer = credential.identity();
        let credentials = [own, credential];
        Self { network, hosts, pool, events, credentials, list, peer, address, listener, accepted }
    }

    fn send(&self, message: &'static str) {
        self.pool.send(self.peer, self.address, message.into()).unwrap();
    }
}

/// Checks that a connection ends since its peer is not listed.
async fn assert_unlisted(accepted: &MemoryConnection) {
    let reason = timeout(60 * SECOND, accepted.watch_close()).await;
    let expected = CloseReason::Peer { code: 0, reason: "no longer listed".to_owned() };
    assert_eq!(reason, Ok(expected));
}

#[tokio::test(start_paused = true)]
async fn the_address_of_a_message_does_not_keep_a_peer() {
    let it = Following::new(PeerPoolConfig::new()).await;
    it.send("news");
    assert_eq!(recv(&it.accepted).await, b"news");
    it.list.send(Vec::new()).unwrap();
    assert_unlisted(&it.accepted).await;
    assert_eq!(it.pool.peers(), []);
    let again = timeout(600 * SECOND, it.listener.accept()).await;
    assert!(again.is_err(), "an address that is not listed is dialled");
    // It is dialled for a further message.
    it.send("more");
    assert_eq!(recv(&accept(&it.listener).await).await, b"more");
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_disconnected_when_its_queued_messages_are_sent() {
    let config = PeerPoolConfig::new().removal_delay(Duration::ZERO).max_unconfirmed_bytes(1);
    let it = Following::new(config).await;
    let [one, other] = it.hosts;
    it.network.partition(&[one], &[other]);
    let messages = ["first", "second", "third"];
    messages.iter().for_each(|message| it.send(message));
    sleep(SECOND).await;
    it.list.send(Vec::new()).unwrap();
    sleep(SECOND).await;
    it.network.heal();
    for message in messages {
        assert_eq!(recv(&it.accepted).await, message.as_bytes());
    }
    assert_unlisted(&it.accepted).await;
    let again = timeout(600 * SECOND, it.listener.accept()).await;
    assert!(again.is_err(), "an address that is not listed is dialled");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_listed_again_stays() {
    let config = PeerPoolConfig::new().removal_delay(Duration::ZERO).max_unconfirmed_bytes(1);
    let it = Following::new(config).await;
    let [one, other] = it.hosts;
    it.network.partition(&[one], &[other]);
    it.send("first");
    it.send("second");
    sleep(SECOND).await;
    let listed = it.list.send_replace(Vec::new());
    sleep(SECOND).await;
    it.list.send(vec![listed[0].with_identity(it.peer)]).unwrap();
    sleep(SECOND).await;
    it.network.heal();
    assert_eq!(recv(&it.accepted).await, b"first");
    assert_eq!(recv(&it.accepted).await, b"second");
    let ended = timeout(600 * SECOND, it.accepted.watch_close()).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_after_its_removal_is_disconnected() {
    let mut it = Following::new(PeerPoolConfig::new().removal_delay(Duration::ZERO)).await;
    sleep(20 * SECOND).await;
    it.network.set_links(LinkPlan::new().latency(5 * SECOND));
    it.accepted.abort(0, "restart");
    assert!(matches!(it.events.recv().await, Some(PeerEvent::Disconnected { .. })));
    sleep(SECOND).await; // the pool dials again meanwhile
    it.list.send(Vec::new()).unwrap();
    let again = timeout(60 * SECOND, accept(&it.listener)).await.expect("it is dialled again");
    assert_unlisted(&again).await;
    assert_eq!(it.pool.peers(), []);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_another_resolver_lists_stays() {
    let it = Following::new(PeerPoolConfig::new().removal_delay(Duration::ZERO)).await;
    let endpoint = Endpoint::new(it.address).with_identity(it.peer);
    let (other, listed) = watch::channel(vec![endpoint]);
    let _follow = it.pool.follow(WatchResolver::new(listed));
    sleep(SECOND).await;
    it.list.send(Vec::new()).unwrap();
    let ended = timeout(600 * SECOND, it.accepted.watch_close()).await;
    assert!(ended.is_err(), "{ended:?}");
    other.send(Vec::new()).unwrap();
    assert_unlisted(&it.accepted).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_identity_becomes_known_stays() {
    let it = Following::new(PeerPoolConfig::new().removal_delay(Duration::ZERO)).await;
    it.list.send(vec![Endpoint::new(it.address).with_identity(it.peer)]).unwrap();
    let ended = timeout(600 * SECOND, it.accepted.watch_close()).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_to_a_peer_that_is_disconnected_are_settled_before() {
    let mut it = Following::new(PeerPoolConfig::new().removal_delay(Duration::ZERO)).await;
    it.send("news");
    assert_eq!(recv(&it.accepted).await, b"news");
    it.list.send(Vec::new()).unwrap();
    assert_unlisted(&it.accepted).await;
    let event = it.events.recv().await;
    assert!(matches!(event, Some(PeerEvent::Disconnected { .. })), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_further_connection_is_closed_when_messages_are_lost_with_the_other_one() {
    let it = Following::new(PeerPoolConfig::new().removal_delay(Duration::ZERO)).await;
    let [own, credential] = it.credentials.clone();
    let (listener, host) = (listen(&it.network, &own).await, it.network.transport());
    let dial = host.connect(listener.local_addr(), &[ALPN], credential);
    let (dialled, accepted) = tokio::join!(dial, accept(&listener));
    it.pool.insert(accepted.clone());
    it.network.partition(&[listener.local_addr().ip()], &[host.ip()]);
    it.send("news");
    sleep(SECOND).await;
    it.list.send(Vec::new()).unwrap();
    sleep(SECOND).await;
    accepted.abort(0, "lost");
    assert_unlisted(&it.accepted).await;
    assert_eq!(it.pool.peers(), []);
    drop(dialled);
}
