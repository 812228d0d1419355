//! `PeerPool::follow`: connections with the peers that a resolver lists.

mod common;

use common::{ALPN, Events, Pool, accept, any_port, listen, pool, recv, trusting};
use net_peers::{
    DropError, Endpoint, PeerEvent, PeerPool, PeerPoolConfig, ResolveError, Resolver,
    StaticResolver, WatchResolver,
};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, close_code,
};
use net_traits_test::memory::{
    LinkPlan, MemoryConnection, MemoryListener, MemoryNetwork, MemoryTransport,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// Waits for a connection that the pool dialled.
async fn connected(events: &mut Events) -> (CertHash, MemoryConnection) {
    loop {
        match events.recv().await.unwrap() {
            PeerEvent::Connected { peer, connection, .. } => return (peer, connection),
            // A message that the peer received just before the end.
            PeerEvent::Undelivered(report) if report.may_have_arrived => {}
            event => panic!("{event:?}"),
        }
    }
}

/// Waits for the end of a connection.
async fn disconnected(events: &mut Events) -> CloseReason {
    loop {
        match events.recv().await.unwrap() {
            PeerEvent::Disconnected { reason, .. } => return reason,
            // A message that the peer received just before the end.
            PeerEvent::Undelivered(report) if report.may_have_arrived => {}
            event => panic!("{event:?}"),
        }
    }
}

/// A list that the test changes.
fn list<E: Into<Endpoint>>(
    endpoints: impl IntoIterator<Item = E>,
) -> (watch::Sender<Vec<Endpoint>>, WatchResolver) {
    let (list, receiver) = watch::channel(endpoints.into_iter().map(Into::into).collect());
    (list, WatchResolver::new(receiver))
}

fn fresh(network: &MemoryNetwork) -> (Pool, Events) {
    pool(network, trusting(), PeerPoolConfig::new())
}

#[tokio::test(start_paused = true)]
async fn listed_peers_are_connected_get_broadcasts_and_are_redialled() {
    let network = MemoryNetwork::new(1);
    let (one, other) = (trusting(), trusting());
    let (at_one, at_other) = (listen(&network, &one).await, listen(&network, &other).await);
    let (pool, mut events) = fresh(&network);
    let known = Endpoint::new(at_other.local_addr()).with_identity(other.identity());
    let _follow = pool.follow(StaticResolver::new([Endpoint::new(at_one.local_addr()), known]));
    let (accepted_one, accepted_other) = tokio::join!(accept(&at_one), accept(&at_other));
    let (first, second) = (connected(&mut events).await, connected(&mut events).await);
    assert_eq!(
        BTreeSet::from([first.0, second.0]),
        BTreeSet::from([one.identity(), other.identity()])
    );
    assert_eq!(pool.broadcast(pool.peers(), "news".into()).unsent().await, []);
    assert_eq!(recv(&accepted_one).await, b"news");
    assert_eq!(recv(&accepted_other).await, b"news");

    accepted_one.close(0, "restart").await;
    let again = accept(&at_one).await;
    assert!(matches!(disconnected(&mut events).await, CloseReason::Peer { .. }));
    assert_eq!(connected(&mut events).await.0, one.identity());
    // Messages find the address, too.
    again.close(0, "restart").await;
    disconnected(&mut events).await;
    let broadcast = pool.broadcast([one.identity()], "later".into());
    assert_eq!(recv(&accept(&at_one).await).await, b"later");
    assert_eq!(broadcast.unsent().await, []);
}

#[tokio::test(start_paused = true)]
async fn additions_and_removals_are_followed() {
    let network = MemoryNetwork::new(1);
    let (one, other) = (trusting(), trusting());
    let (at_one, at_other) = (listen(&network, &one).await, listen(&network, &other).await);
    let (pool, mut events) = fresh(&network);
    let (list, resolver) = list([at_one.local_addr()]);
    let _follow = pool.follow(resolver);
    let accepted_one = accept(&at_one).await;
    connected(&mut events).await;

    list.send(vec![at_other.local_addr().into()]).unwrap();
    let removed = Instant::now();
    let _accepted_other = accept(&at_other).await;
    assert_eq!(connected(&mut events).await.0, other.identity());
    assert_eq!(removed.elapsed(), Duration::ZERO, "additions are dialled immediately");
    let reason = accepted_one.watch_close().await;
    let expected = CloseReason::Peer { code: 0, reason: "no longer listed".to_owned() };
    assert_eq!(reason, expected);
    let took = removed.elapsed();
    assert!(took >= 30 * SECOND && took < 31 * SECOND, "{took:?}");
    disconnected(&mut events).await;
    assert_eq!(pool.peers(), [other.identity()]);
    let again = timeout(600 * SECOND, at_one.accept()).await;
    assert!(again.is_err(), "an address that is not listed is dialled");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_missing_briefly_is_kept() {
    let network = MemoryNetwork::new(1);
    let listener = listen(&network, &trusting()).await;
    let (pool, mut events) = fresh(&network);
    let (list, resolver) = list([listener.local_addr()]);
    let _follow = pool.follow(resolver);
    let accepted = accept(&listener).await;
    connected(&mut events).await;
    for _ in 0..10 {
        list.send(Vec::new()).unwrap();
        tokio::time::sleep(29 * SECOND).await;
        list.send(vec![listener.local_addr().into()]).unwrap();
        tokio::time::sleep(29 * SECOND).await;
    }
    let ended = timeout(600 * SECOND, accepted.watch_close()).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_another_address_stays_when_one_is_removed() {
    let network = MemoryNetwork::new(1);
    let (peer, host) = (trusting(), network.transport());
    let listen = || host.create_listener(any_port(), &[ALPN], peer.clone());
    let (first, second) = (listen().await.unwrap(), listen().await.unwrap());
    let (pool, mut events) = fresh(&network);
    let (list, resolver) = list([first.local_addr(), second.local_addr()]);
    let _follow = pool.follow(resolver);
    // Both addresses are dialled once, and one connection is closed as redundant.
    let (one, other) = tokio::join!(accept(&first), accept(&second));
    connected(&mut events).await;
    let reason = tokio::select! { it = one.watch_close() => it, it = other.watch_close() => it };
    assert!(matches!(reason, CloseReason::Peer { code: close_code::DUPLICATE, .. }), "{reason:?}");
    let idle = async || {
        tokio::select! {
            _ = first.accept() => panic!("it is dialled again"),
            _ = second.accept() => panic!("it is dialled again"),
            () = tokio::time::sleep(600 * SECOND) => {}
        }
    };
    idle().await;
    list.send(vec![first.local_addr().into()]).unwrap();
    idle().await;
    assert_eq!(pool.peers(), [peer.identity()]);
    assert!(events.try_recv().is_none(), "it is still connected");
    list.send(Vec::new()).unwrap();
    assert!(matches!(disconnected(&mut events).await, CloseReason::Local { code: 0, .. }));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_address_is_reported_once_and_dialled_with_backoff() {
    let network = MemoryNetwork::new(1);
    let (peer, host) = (trusting(), network.transport());
    let address = SocketAddr::new(host.ip(), 4433);
    let (pool, mut events) = fresh(&network);
    let _follow = pool.follow(StaticResolver::new([address]));
    let event = events.recv().await.unwrap();
    let PeerEvent::Unreachable { address: reported, error } = event else { panic!("{event:?}") };
    assert_eq!((reported, error), (address, ConnectError::Refused(address)));
    let again = timeout(600 * SECOND, events.recv()).await;
    assert!(again.is_err(), "it is reported again: {again:?}");
    let listener = host.create_listener(address, &[ALPN], peer.clone()).await.unwrap();
    let waited = Instant::now();
    let _accepted = accept(&listener).await;
    assert!(waited.elapsed() <= 30 * SECOND, "it is dialled at least twice a minute");
    assert_eq!(connected(&mut events).await.0, peer.identity());
}

#[tokio::test(start_paused = true)]
async fn a_listed_peer_is_known_before_it_is_connected() {
    let network = MemoryNetwork::new(1);
    let (peer, host) = (trusting(), network.transport());
    let address = SocketAddr::new(host.ip(), 4433);
    let (pool, mut events) = fresh(&network);
    let endpoint = Endpoint::new(address).with_identity(peer.identity());
    let _follow = pool.follow(StaticResolver::new([endpoint]));
    let event = events.recv().await.unwrap();
    assert!(matches!(event, PeerEvent::Unreachable { .. }), "{event:?}");
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(pool.peers(), [peer.identity()]);
    let broadcast = pool.broadcast(pool.peers(), "news".into());
    let listener = host.create_listener(address, &[ALPN], peer).await.unwrap();
    let accepted = accept(&listener).await;
    assert_eq!(recv(&accepted).await, b"news");
    assert_eq!(broadcast.unsent().await, []);
    connected(&mut events).await;
    tokio::time::sleep(600 * SECOND).await;
    drop(listener);
    accepted.close(0, "bye").await;
    disconnected(&mut events).await;
    assert_eq!(pool.peers().len(), 1, "its address is still listed");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_soon_is_redialled_with_backoff() {
    let network = MemoryNetwork::new(1);
    let listener = listen(&network, &trusting()).await;
    let (pool, events) = fresh(&network);
    drop(events);
    let _follow = pool.follow(StaticResolver::new([listener.local_addr()]));
    let mut dials = 0;
    let close_all = async {
        loop {
            let accepted = accept(&listener).await;
            dials += 1;
            tokio::time::sleep(SECOND).await;
            accepted.close(0, "go away").await;
        }
    };
    assert!(timeout(60 * SECOND, close_all).await.is_err());
    // The backoffs are at most 0.1, 0.2, 0.4 s and so on up to 30 s, and at least half of that.
    assert!((9..=11).contains(&dials), "{dials} dials");
}

#[tokio::test(start_paused = true)]
async fn this_node_is_recognized_in_the_list() {
    let network = MemoryNetwork::new(1);
    let (me, host) = (trusting(), network.transport());
    let listener = host.create_listener(any_port(), &[ALPN], me.clone()).await.unwrap();
    let (pool, mut events) =
        PeerPool::new(host.clone(), &[ALPN], me.clone(), PeerPoolConfig::new()).unwrap();
    let known = Endpoint::new("10.0.0.1:1".parse().unwrap()).with_identity(me.identity());
    let _follow = pool.follow(StaticResolver::new([listener.local_addr().into(), known]));
    assert!(listener.accept().await.unwrap().accept().await.is_err());
    let quiet = timeout(600 * SECOND, async {
        tokio::select! {
            _ = listener.accept() => panic!("it is dialled again"),
            event = events.recv() => panic!("{event:?}"),
        }
    });
    assert!(quiet.await.is_err());
    assert_eq!(pool.peers(), []);
}

#[tokio::test(start_paused = true)]
async fn another_peer_at_an_address_is_accepted_unless_the_identity_is_listed() {
    let network = MemoryNetwork::new(1);
    let (before, after, host) = (trusting(), trusting(), network.transport());
    let listen = |port, credential: &NetCredential| {
        host.create_listener(SocketAddr::new(host.ip(), port), &[ALPN], credential.clone())
    };
    let (any, known) = (listen(1, &before).await.unwrap(), listen(2, &before).await.unwrap());
    let (pool, mut events) = fresh(&network);
    let known_address = Endpoint::new(known.local_addr()).with_identity(before.identity());
    for address in [Endpoint::new(any.local_addr()), known_address] {
        let listener = if address.identity.is_some() { &known } else { &any };
        let follow = pool.follow(StaticResolver::new([address]));
        let accepted = accept(listener).await;
        connected(&mut events).await;
        listener.set_credential(after.clone()).unwrap();
        accepted.close(0, "restart").await;
        disconnected(&mut events).await;
        // The first dial still expects the old identity.
        assert!(listener.accept().await.unwrap().accept().await.is_err());
        if address.identity.is_none() {
            let _accepted = accept(listener).await;
            assert_eq!(connected(&mut events).await.0, after.identity());
        } else {
            let event = events.recv().await.unwrap();
            assert!(matches!(event, PeerEvent::Unreachable { .. }), "{event:?}");
        }
        drop(follow);
        pool.remove(after.identity());
        while events.try_recv().is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_beyond_the_limit_are_reported_and_wait_for_room() {
    let network = MemoryNetwork::new(1);
    let credentials = [trusting(), trusting(), trusting()];
    let mut listeners = Vec::new();
    for credential in &credentials {
        listeners.push(listen(&network, credential).await);
    }
    let addresses: Vec<Endpoint> = listeners.iter().map(|it| it.local_addr().into()).collect();
    let config = PeerPoolConfig::new().max_followed(2);
    let (pool, mut events) = pool(&network, trusting(), config);
    let (list, resolver) = list(addresses.clone());
    let _follow = pool.follow(resolver);
    let event = events.recv().await.unwrap();
    let expected = ResolveError::TooMany { listed: 3, limit: 2 };
    assert!(
        matches!(&event, PeerEvent::ResolveFailed { error } if *error == expected),
        "{event:?}"
    );
    let _accepted = tokio::join!(accept(&listeners[0]), accept(&listeners[1]));
    connected(&mut events).await;
    connected(&mut events).await;
    let third = timeout(600 * SECOND, listeners[2].accept()).await;
    assert!(third.is_err(), "more addresses are followed than the limit");
    list.send(addresses[1..].to_vec()).unwrap();
    accept(&listeners[2]).await;
}

#[tokio::test(start_paused = true)]
async fn dials_at_once_are_limited() {
    let network = MemoryNetwork::new(1);
    let silent = network.transport();
    let listener = silent.create_listener(any_port(), &[ALPN], trusting()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(silent.create_listener(any_port(), &[ALPN], trusting()).await.unwrap());
    }
    others.push(listener);
    let config = PeerPoolConfig::new().max_dials(4);
    let (pool, _events) = pool(&network, trusting(), config);
    let _follow = pool.follow(StaticResolver::new(others.iter().map(NetListener::local_addr)));
    // No handshake completes; each takes 10 s until it times out.
    tokio::time::sleep(SECOND).await;
    let arrived = futures_util::future::join_all(
        others.iter().map(|listener| async { timeout(SECOND, listener.accept()).await }),
    );
    assert_eq!(arrived.await.iter().filter(|arrived| arrived.is_ok()).count(), 4);
}

/// A resolver that fails now and then.
struct Failing {
    answers: Vec<Result<Vec<Endpoint>, ResolveError>>,
}

#[async_trait::async_trait]
impl Resolver for Failing {
    async fn resolve(&mut self) -> Result<Vec<Endpoint>, ResolveError> {
        tokio::time::sleep(SECOND).await;
        self.answers.pop().unwrap_or_else(|| Ok(Vec::new()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_reported_once_and_changes_nothing() {
    let network = MemoryNetwork::new(1);
    let listener = listen(&network, &trusting()).await;
    let error = || ResolveError::Other(net_traits::Cause::new("no answer"));
    let mut answers = vec![Ok(vec![listener.local_addr().into()])];
    answers.extend((0..100).map(|_| Err(error())));
    answers.push(Ok(vec![listener.local_addr().into()]));
    let (pool, mut events) = fresh(&network);
    let _follow = pool.follow(Failing { answers });
    let accepted = accept(&listener).await;
    connected(&mut events).await;
    let event = events.recv().await.unwrap();
    assert!(
        matches!(&event, PeerEvent::ResolveFailed { error: it } if *it == error()),
        "{event:?}"
    );
    let again = timeout(1000 * SECOND, events.recv()).await;
    assert!(again.is_err(), "it is reported again: {again:?}");
    // Much later the list is empty.
    accepted.watch_close().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_stops_following_and_keeps_connections() {
    let network = MemoryNetwork::new(1);
    let (peer, listener) = {
        let peer = trusting();
        let listener = listen(&network, &peer).await;
        (peer, listener)
    };
    let (pool, mut events) = fresh(&network);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let follow = pool.follow(StaticResolver::new([listener.local_addr()]));
    let accepted = accept(&listener).await;
    connected(&mut events).await;
    drop(follow);
    let ended = timeout(600 * SECOND, accepted.watch_close()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(pool.peers(), [peer.identity()]);
    accepted.close(0, "").await;
    drop(accepted); // a transport has tasks while it has connections
    disconnected(&mut events).await;
    assert!(timeout(600 * SECOND, listener.accept()).await.is_err(), "it is dialled again");
    let unsent = pool.broadcast([peer.identity()], "no way".into()).unsent().await;
    assert!(matches!(unsent[0].error, DropError::Queue(_)), "{unsent:?}");
    while tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_pool_ends_the_tasks_that_follow() {
    let network = MemoryNetwork::new(1);
    let listener = listen(&network, &trusting()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (pool, mut events) = fresh(&network);
    let absent = "10.9.9.9:1".parse().unwrap();
    let follow = pool.follow(StaticResolver::new([listener.local_addr(), absent]));
    let accepted = accept(&listener).await;
    drop(pool);
    accepted.watch_close().await;
    drop(accepted); // a transport has tasks while it has connections
    while events.recv().await.is_some() {}
    while tasks() > before {
        tokio::task::yield_now().await;
    }
    drop(follow);
}

/// A node of a service whose members follow the same list.
struct Member {
    identity: CertHash,
    host: MemoryTransport,
    pool: Pool,
    address: SocketAddr,
}

async fn member(network: &MemoryNetwork) -> Member {
    let (credential, host) = (trusting(), network.transport());
    let listener: MemoryListener =
        host.create_listener(any_port(), &[ALPN], credential.clone()).await.unwrap();
    let (identity, address) = (credential.identity(), listener.local_addr());
    let (pool, _) =
        PeerPool::new(host.clone(), &[ALPN], credential, PeerPoolConfig::new()).unwrap();
    let accepting = pool.clone();
    tokio::spawn(async move {
        while let Ok(request) = listener.accept().await {
            if let Ok(connection) = request.accept().await {
                accepting.insert(connection);
            }
        }
    });
    Member { identity, host, pool, address }
}

#[tokio::test(start_paused = true)]
async fn the_members_of_a_service_find_each_other_and_keep_one_connection_each() {
    let network = MemoryNetwork::new(7);
    network.set_links(LinkPlan::new().latency(Duration::from_millis(10)));
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(member(&network).await);
    }
    let list: Vec<_> = members.iter().map(|member| member.address).collect();
    let follows: Vec<_> = members
        .iter()
        .map(|member| member.pool.follow(StaticResolver::new(list.clone())))
        .collect();
    // Of each pair both dial, and one connection is closed.
    tokio::time::sleep(60 * SECOND).await;
    for round in 0..2 {
        for member in &members {
            assert_eq!(member.host.connections().len(), 4, "in round {round}");
            let peers: BTreeSet<_> = member.pool.peers().into_iter().collect();
            assert_eq!(peers.len(), 4);
            assert!(!peers.contains(&member.identity));
            assert_eq!(member.pool.broadcast(peers, "all".into()).unsent().await, []);
        }
        for member in &members {
            for _ in 0..4 {
                assert_eq!(member.pool.recv().await.1, "all");
            }
        }
        tokio::time::sleep(600 * SECOND).await;
    }
    drop(follows);
}
