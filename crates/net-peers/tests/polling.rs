//! The futures of pools need only the waker of their last poll, and take nothing when they are dropped.

mod common;

use bytes::Bytes;
use common::{accept, listen, pool, trusting};
use futures_util::{SinkExt, StreamExt};
use net_peers::{MessageSink, MessageStream, PeerEvent, PeerPoolConfig};
use net_traits::{CertHash, NetConnection, NetListener};
use net_traits_test::Checked;
use net_traits_test::memory::{MemoryConnection, MemoryNetwork};
use std::time::Duration;
use tokio::time::sleep;

async fn send_later(connection: &MemoryConnection, message: Bytes) {
    sleep(Duration::from_millis(1)).await; // the receiver waits
    connection.send_bytes(message).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pools_need_only_the_last_waker() {
    for seed in 0..5 {
        let (network, credential) = (MemoryNetwork::new(seed), trusting());
        let listener = listen(&network, &credential).await;
        let (peer, address) = (credential.identity(), listener.local_addr());
        let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(1));
        let (ours, theirs, event) = tokio::join!(
            Checked::new(pool.connection(peer, address), seed),
            accept(&listener),
            Checked::new(events.recv(), seed)
        );
        assert!(matches!(event, Some(PeerEvent::Connected { .. })), "{event:?}");

        let news = Bytes::from("news");
        let receive = Checked::new(pool.recv(), seed);
        let (received, ()) = tokio::join!(receive, send_later(&theirs, news.clone()));
        assert_eq!(received, (peer, news.clone()));

        let absent = CertHash::from_bytes([7; 32]);
        pool.send(absent, "10.9.9.9:1".parse().unwrap(), news.clone()).unwrap();
        let mut broadcast = pool.broadcast([peer, absent], news);
        let unsent = Checked::new(broadcast.next_unsent(), seed).await.unwrap();
        assert_eq!(unsent.peer, absent);
        assert!(Checked::new(broadcast.next_unsent(), seed).await.is_none());

        let mut sink = MessageSink::new(ours.unwrap());
        let mut stream = MessageStream::new(theirs.clone());
        let send = async {
            for _ in 0..100 {
                Checked::new(sink.send(vec![0; 100_000].into()), seed).await.unwrap();
            }
            Checked::new(sink.close(), seed).await.unwrap();
        };
        let receive = async {
            for _ in 0..101 {
                Checked::new(stream.next(), seed).await.unwrap().unwrap();
            }
        };
        tokio::join!(send, receive);

        let end = async {
            while let Some(event) = Checked::new(events.recv(), seed).await {
                if matches!(event, PeerEvent::Disconnected { .. }) {
                    return;
                }
            }
            panic!("the end is not reported");
        };
        tokio::join!(end, theirs.close(0, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_recv_takes_nothing_at_any_step() {
    let (network, credential) = (MemoryNetwork::new(1), trusting());
    let listener = listen(&network, &credential).await;
    let (pool, _events) = pool(&network, trusting(), PeerPoolConfig::new());
    let dial = pool.connection(credential.identity(), listener.local_addr());
    let (_ours, theirs) = tokio::join!(dial, accept(&listener));
    for step in 0..100 {
        let message = Bytes::from(step.to_string());
        let receive = Checked::new(pool.recv(), 0).dropped_at(step);
        let (taken, ()) = tokio::join!(receive, send_later(&theirs, message.clone()));
        let is_complete = taken.is_some();
        let (_, received) = match taken {
            Some(received) => received,
            None => pool.recv().await,
        };
        assert_eq!(received, message, "step {step}");
        if is_complete {
            return;
        }
    }
    panic!("it never completes");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_dial_continues_and_is_reported_at_any_step() {
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    let mut connections = Vec::new();
    for step in 0..100 {
        let credential = trusting();
        let listener = listen(&network, &credential).await;
        let dial = || pool.connection(credential.identity(), listener.local_addr());
        let (dialled, accepted, event) = tokio::join!(
            Checked::new(dial(), 0).dropped_at(step),
            accept(&listener),
            Checked::new(events.recv(), 0).dropped_at(step)
        );
        let is_complete = dialled.is_some() && event.is_some();
        connections.push((dial().await.unwrap(), accepted));
        let event = match event {
            Some(event) => event,
            None => events.recv().await,
        };
        let Some(PeerEvent::Connected { peer, .. }) = event else { panic!("{event:?}") };
        assert_eq!(peer, credential.identity(), "step {step}");
        if is_complete {
            return;
        }
    }
    panic!("they never complete");
}
