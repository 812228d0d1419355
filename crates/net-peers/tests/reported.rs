//! Events of a pool, for the application and for operators, tell the same.

mod common;

use common::{ALPN, accept, listen, pool, trusting};
use net_peers::{PeerEvent, PeerPoolConfig};
use net_traits::{CertHash, NetListener, NetTransport};
use net_traits_test::memory::MemoryNetwork;
use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// Calls a function with the message of each event of a pool.
struct OnEvent(Box<dyn Fn(&str) + Send + Sync>);

impl Subscriber for OnEvent {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "net::pool"
    }

    /// `sometimes`, because other threads have no subscriber.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        (self.0)(&message.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_while_it_is_removed_is_not_reported_as_disconnected() {
    let network = MemoryNetwork::new(1);
    let (me, peer) = (trusting(), trusting());
    let listener = listen(&network, &me).await;
    let (pool, mut events) = pool(&network, me, PeerPoolConfig::new());
    let host = network.transport();
    let mut connections = Vec::new();
    for _ in 0..2 {
        let dial = host.connect(listener.local_addr(), &[ALPN], peer.clone());
        let (dialled, accepted) = tokio::join!(dial, accept(&listener));
        connections.push((dialled.unwrap(), accepted));
    }
    let (_second, at_me) = connections.pop().unwrap();
    pool.insert(connections[0].1.clone());
    assert!(matches!(events.recv().await, Some(PeerEvent::Connected { .. })));

    let (inserting, second) = (pool.clone(), Mutex::new(Some(at_me)));
    let on_lost = move |message: &str| {
        if message == "peer lost" {
            second.lock().take().into_iter().for_each(|second| inserting.insert(second));
        }
    };
    let _guard = tracing::subscriber::set_default(OnEvent(Box::new(on_lost)));
    pool.remove(peer.identity());
    assert_eq!(pool.peers(), [peer.identity()]);
    assert!(matches!(events.recv().await, Some(PeerEvent::Replaced { .. })));
}

#[tokio::test(start_paused = true)]
async fn each_message_of_a_broadcast_that_is_not_sent_is_counted_once() {
    let undelivered = Arc::new(Mutex::new(0));
    let counted = undelivered.clone();
    let count =
        move |message: &str| *counted.lock() += usize::from(message == "message undelivered");
    let _guard = tracing::subscriber::set_default(OnEvent(Box::new(count)));
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(1));
    let (absent, unknown) = (CertHash::from_bytes([1; 32]), CertHash::from_bytes([2; 32]));
    pool.send(absent, "10.9.9.9:1".parse().unwrap(), "alone".into()).unwrap();
    while !matches!(events.recv().await, Some(PeerEvent::Undelivered(_))) {}
    assert_eq!(*undelivered.lock(), 1);
    let unsent = pool.broadcast([absent, unknown], "received".into()).unsent().await;
    assert_eq!((unsent.len(), *undelivered.lock()), (2, 3));
    drop(pool.broadcast([unknown], "dropped".into()));
    while !matches!(events.recv().await, Some(PeerEvent::Undelivered(_))) {}
    assert_eq!(*undelivered.lock(), 4);
}
