//! A simulation test: nodes that spread the largest number that they know, over a virtual network that
//! breaks in a different way for each seed. A paused clock makes an hour of network take no time.
//!
//! The seed determines the faults. Keys and the backoff of pools are random, so that a failure may need
//! several runs of its seed.
//!
//! ```sh
//! cargo run --release --example simulate            # 20 seeds
//! SEED=7 cargo run --release --example simulate     # the seed of a failure
//! ```
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use net_peers::{Endpoint, PeerPool, PeerPoolConfig, WatchResolver};
use net_traits::{NetConnection, NetCredential, NetListener, NetTransport, TrustPolicy};
use net_traits_test::memory::{LinkPlan, MemoryConnection, MemoryNetwork, MemoryTransport};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

const ALPN: &str = "gossip/1";
const NODES: usize = 5;

/// How often a node tells its number, whether it changed or not.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time in which all nodes must agree after the network works again. Pools dial every 30 s at least.
const AGREEMENT: Duration = Duration::from_secs(120);

/// The program under test. It knows nothing of the simulation.
async fn gossip<T: NetTransport>(pool: PeerPool<T>, largest: watch::Sender<u64>) {
    let mut ticks = interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let number = Bytes::copy_from_slice(&largest.borrow().to_be_bytes());
                pool.broadcast(pool.peers(), number);
            }
            (_, message) = pool.recv() => {
                let Ok(number) = message.as_ref().try_into().map(u64::from_be_bytes) else { continue };
                largest.send_if_modified(|own| (number > *own).then(|| *own = number).is_some());
            }
        }
    }
}

/// A node: its pool dials the listed endpoints, and its listener adds those that dial it.
async fn start(
    transport: MemoryTransport,
    number: u64,
    endpoints: watch::Receiver<Vec<Endpoint>>,
) -> Result<(Endpoint, watch::Receiver<u64>)> {
    let credential = NetCredential::self_signed(TrustPolicy::Any)?;
    let endpoint = |address| Endpoint::new(address).with_identity(credential.identity());
    let listener =
        transport.create_listener("0.0.0.0:0".parse()?, &[ALPN], credential.clone()).await?;
    let endpoint = endpoint(listener.local_addr());
    let (pool, events) = PeerPool::new(transport, &[ALPN], credential, PeerPoolConfig::new())?;
    drop(events); // a lost number is told again
    let (largest, observed) = watch::channel(number);
    let follow = pool.follow(WatchResolver::new(endpoints));
    let accepting = pool.clone();
    tokio::spawn(async move {
        net_peers::serve(&listener, move |connection: MemoryConnection| {
            accepting.insert(connection.clone());
            async move { drop(connection.watch_close().await) }
        })
        .await;
        drop(follow);
    });
    tokio::spawn(gossip(pool, largest));
    Ok((endpoint, observed))
}

/// One run: the nodes start, the network breaks and heals, and all must know the largest number.
async fn run(seed: u64) -> Result<Duration> {
    let network = MemoryNetwork::new(seed);
    let links =
        LinkPlan::new().latency(Duration::from_millis(20)).jitter(Duration::from_millis(50));
    network.set_links(links.reset_after(50..500));
    let (list, endpoints) = watch::channel(Vec::new());
    let (mut hosts, mut nodes) = (Vec::new(), Vec::new());
    for number in 0..NODES as u64 {
        let transport = network.transport();
        hosts.push(transport.ip());
        let (endpoint, observed) = start(transport, number, endpoints.clone()).await?;
        list.send_modify(|list| list.push(endpoint));
        nodes.push(observed);
    }
    let cut = 1 + (seed as usize) % (NODES - 1);
    network.partition(&hosts[..cut], &hosts[cut..]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    network.heal();
    let begin = Instant::now();
    for node in &mut nodes {
        let agreed = timeout(AGREEMENT, node.wait_for(|largest| *largest == NODES as u64 - 1));
        agreed.await.context("a node does not know the largest number in time")??;
    }
    Ok(begin.elapsed())
}

fn main() -> Result<()> {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().context("SEED is not a number")?],
        Err(_) => (0..20).collect(),
    };
    let mut longest = Duration::ZERO;
    for seed in &seeds {
        // A paused clock needs a runtime of one thread.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build()?;
        let took = runtime.block_on(run(*seed)).with_context(|| format!("SEED={seed}"))?;
        longest = longest.max(took);
    }
    println!("{} networks healed; agreement took at most {longest:?} of virtual time", seeds.len());
    ensure!(longest <= AGREEMENT, "agreement took too long");
    Ok(())
}
