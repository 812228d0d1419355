//! One node sends each message to 1000 subscribers, over the in-memory transport. Over a real transport
//! only `network.transport()` changes.
//!
//! ```sh
//! cargo run --release --example fanout
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Result, ensure};
use bytes::Bytes;
use net_peers::{Endpoint, PeerEvent, PeerPool, PeerPoolConfig, StaticResolver};
use net_traits::{NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
use net_traits_test::memory::MemoryNetwork;
use std::time::Instant;
use tokio::sync::mpsc;

const ALPN: &str = "news/1";
const SUBSCRIBERS: usize = 1000;
const MESSAGES: usize = 10;

/// Listens as a subscriber, and reports each message to `received`.
async fn subscribe(
    network: &MemoryNetwork,
    publisher: &NetCredential,
    received: mpsc::Sender<Bytes>,
) -> Result<Endpoint> {
    let credential = NetCredential::self_signed(TrustPolicy::hashes([publisher.identity()]))?;
    let identity = credential.identity();
    let transport = network.transport();
    let listener = transport.create_listener("0.0.0.0:0".parse()?, &[ALPN], credential).await?;
    let endpoint = Endpoint::new(listener.local_addr()).with_identity(identity);
    let handler = move |connection| receive(connection, received.clone());
    tokio::spawn(async move { net_peers::serve(&listener, handler).await });
    Ok(endpoint)
}

async fn receive(connection: impl NetConnection, received: mpsc::Sender<Bytes>) {
    while let Ok((message, _elapsed)) = connection.recv().await {
        if received.send(message).await.is_err() {
            break;
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let network = MemoryNetwork::new(0);
    let publisher = NetCredential::self_signed(TrustPolicy::reject_all())?;
    // Bounded: while it is full, the subscribers receive nothing, and the queues of the publisher fill.
    let (sender, mut received) = mpsc::channel(SUBSCRIBERS);
    let mut endpoints = Vec::new();
    for _ in 0..SUBSCRIBERS {
        endpoints.push(subscribe(&network, &publisher, sender.clone()).await?);
    }

    // The pool dials each subscriber, and again when a connection breaks.
    let trusted = TrustPolicy::hashes(endpoints.iter().filter_map(|it| it.identity));
    let publisher = publisher.with_trust(trusted);
    let (pool, mut events) =
        PeerPool::new(network.transport(), &[ALPN], publisher, PeerPoolConfig::new())?;
    let begin = Instant::now();
    let _follow = pool.follow(StaticResolver::new(endpoints));
    let mut connected = 0;
    while connected < SUBSCRIBERS {
        match events.recv().await {
            Some(PeerEvent::Connected { .. }) => connected += 1,
            other => anyhow::bail!("not every subscriber is connected: {other:?}"),
        }
    }
    println!("{connected} subscribers are connected after {:?}", begin.elapsed());

    let begin = Instant::now();
    let publish = async {
        for number in 0..MESSAGES {
            // The subscribers share the memory of the message.
            let broadcast = pool.broadcast(pool.peers(), Bytes::from(format!("news {number}")));
            for unsent in broadcast.unsent().await {
                println!("{} does not get news {number}: {}", unsent.peer, unsent.error);
            }
        }
        Ok(())
    };
    let count = async {
        for count in 0..SUBSCRIBERS * MESSAGES {
            ensure!(received.recv().await.is_some(), "only {count} messages arrived");
        }
        Ok(())
    };
    tokio::try_join!(publish, count)?;
    println!("{} messages arrived after {:?}", SUBSCRIBERS * MESSAGES, begin.elapsed());
    Ok(())
}
