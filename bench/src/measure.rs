//! `Measure`: carries out workloads, over any transport.

use crate::machine::{allows_descriptors, cpu_time, resident};
use crate::network::NETWORKS;
use crate::transport::{End, Transport};
use crate::workload::{Workload, cost, rate};
use anyhow::{Context, Result};
use net_relay::Relay;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

/// What carries out workloads.
pub(crate) trait Measure: Send + Sync + 'static {
    /// Returns the figures; `None` if the contender does not have the workload.
    fn measure(
        self: Arc<Self>,
        workload: Workload,
    ) -> impl Future<Output = Result<Option<Vec<f64>>>> + Send;
}

impl<T: Transport> Measure for T {
    async fn measure(self: Arc<Self>, workload: Workload) -> Result<Option<Vec<f64>>> {
        let figures = match workload {
            Workload::OneWay { connections, size, count } => {
                one_way(&*self, connections, size, count / connections).await?
            }
            Workload::FanOut { connections, size, count } => {
                fan_out(&*self, connections, size, count / connections).await?
            }
            Workload::SlowReader { size, count } => slow_reader(&*self, size, count).await?,
            Workload::PingPong { size, count } => ping_pong(&*self, size, count).await?,
            Workload::Handshakes { at_once, count } => handshakes(&self, at_once, count).await?,
            Workload::Idle { connections } => return idle(&*self, connections).await,
            Workload::Transfer { network, seed, milliseconds } => {
                transfer(&*self, network, seed, Duration::from_millis(milliseconds)).await?
            }
        };
        Ok(Some(figures))
    }
}

async fn one_way<T: Transport>(
    transport: &T,
    connections: usize,
    size: usize,
    each: usize,
) -> Result<Vec<f64>> {
    let pairs = Pairs::connect(transport, connections).await?;
    pairs.pass(size, warm_up(each)).await?;
    let (cpu, started) = (cpu_time(), Instant::now());
    pairs.pass(size, each).await?;
    let figures = rates(size, each * connections, started, cpu);
    pairs.close(transport).await;
    Ok(figures)
}

async fn fan_out<T: Transport>(
    transport: &T,
    connections: usize,
    size: usize,
    each: usize,
) -> Result<Vec<f64>> {
    let pairs = Pairs::connect(transport, connections).await?;
    pairs.fan_out(size, warm_up(each)).await?;
    let (cpu, started) = (cpu_time(), Instant::now());
    pairs.fan_out(size, each).await?;
    let figures = rates(size, each * connections, started, cpu);
    pairs.close(transport).await;
    Ok(figures)
}

/// How many messages a sender passes on while its peer does not read, and the rate of another
/// connection meanwhile.
async fn slow_reader<T: Transport>(transport: &T, size: usize, count: usize) -> Result<Vec<f64>> {
    let (slow, _reader) = transport.connect(transport.address()).await?;
    let mut accepted = 0;
    while let Ok(sent) = timeout(STALLED, slow.send(size, 1)).await {
        sent?;
        accepted += 1;
    }
    let pairs = Pairs::connect(transport, 1).await?;
    pairs.pass(size, warm_up(count)).await?;
    let started = Instant::now();
    pairs.pass(size, count).await?;
    let per_second = count as f64 / started.elapsed().as_secs_f64();
    pairs.close(transport).await;
    Ok(vec![rate(size, per_second), (accepted * size) as f64 / 1024.0])
}

async fn ping_pong<T: Transport>(transport: &T, size: usize, count: usize) -> Result<Vec<f64>> {
    let (client, server) = transport.connect(transport.address()).await?;
    let (server, all) = (Arc::new(server), warm_up(count) + count);
    let of_echo = server.clone();
    let echo = tokio::spawn(async move { of_echo.echo(size, all).await });
    let cpu = cpu_time();
    let times = client.ping(size, all).await?.split_off(warm_up(count));
    echo.await??;
    let cpu = cpu_time() - cpu;
    if let Some(server) = Arc::into_inner(server) {
        transport.close(client, server).await;
    }
    let mut figures = percentiles(times);
    figures.push(cpu.as_secs_f64() * 1e6 / all as f64);
    Ok(figures)
}

async fn handshakes<T: Transport>(
    transport: &Arc<T>,
    at_once: usize,
    count: usize,
) -> Result<Vec<f64>> {
    let each = count.div_ceil(at_once);
    open_and_close(transport, at_once, warm_up(each)).await?;
    let (cpu, started) = (cpu_time(), Instant::now());
    open_and_close(transport, at_once, each).await?;
    Ok(costs(each * at_once, started, cpu))
}

/// The memory of idle connections, both ends together.
async fn idle<T: Transport>(transport: &T, connections: usize) -> Result<Option<Vec<f64>>> {
    let descriptors = connections * transport.descriptors() + OTHER_DESCRIPTORS;
    if !allows_descriptors(descriptors) || resident().is_none() {
        return Ok(None);
    }
    // What the first connections allocate for the process does not belong to a connection.
    Pairs::connect(transport, FIRST_CONNECTIONS).await?.close(transport).await;
    sleep(SETTLED).await;
    let before = resident().unwrap_or_default();
    let pairs = Pairs::connect(transport, connections).await?;
    sleep(SETTLED).await;
    let during = resident().unwrap_or_default();
    pairs.close(transport).await;
    sleep(if connections < MANY { SETTLED } else { GIVEN_BACK }).await;
    let after = resident().unwrap_or_default();
    let each = |kib: u64| kib.saturating_sub(before) as f64 / connections as f64;
    Ok(Some(vec![each(during), each(after)]))
}

/// The rate in megabits per second during the first `time` of a connection.
async fn transfer<T: Transport>(
    transport: &T,
    network: usize,
    seed: u64,
    time: Duration,
) -> Result<Vec<f64>> {
    let (name, faults) = NETWORKS.get(network).context("no such network")?;
    let relay = Relay::new(transport.address(), faults(), seed)?;
    let connect = transport.connect(relay.address());
    let (client, server) = connect.await.with_context(|| format!("cannot connect: {name}"))?;
    let end = tokio::time::Instant::now() + time;
    let send = async {
        loop {
            client.send(PIECE, 1).await?;
        }
    };
    let mut received = 0;
    let receive = async {
        while let Ok(result) = timeout_at(end, server.receive(PIECE, 1)).await {
            result?;
            received += PIECE;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        failed = send => failed,
        done = receive => done,
    }?;
    Ok(vec![received as f64 * 8.0 / 1e6 / time.as_secs_f64()])
}

/// Open connections, with both ends.
struct Pairs<E>(Vec<(Arc<E>, Arc<E>)>);

impl<E: End> Pairs<E> {
    async fn connect<T: Transport<End = E>>(transport: &T, count: usize) -> Result<Self> {
        let mut pairs = Vec::with_capacity(count);
        for index in 1..=count {
            let mut attempts = 1;
            let (client, server) = loop {
                match transport.connect(transport.address()).await {
                    Ok(ends) => break ends,
                    // msquic refuses attempts while its threads are overloaded.
                    Err(_) if attempts < ATTEMPTS => sleep(PAUSE).await,
                    Err(error) => {
                        return Err(error.context(format!("connection {index} of {count}")));
                    }
                }
                attempts += 1;
            };
            pairs.push((Arc::new(client), Arc::new(server)));
        }
        Ok(Self(pairs))
    }

    /// Passes `each` messages over each connection, and returns when all have arrived.
    async fn pass(&self, size: usize, each: usize) -> Result<()> {
        let mut tasks = JoinSet::new();
        for pair in &self.0 {
            let (client, server) = pair.clone();
            tasks.spawn(async move { client.send(size, each).await });
            tasks.spawn(async move { server.receive(size, each).await });
        }
        all(tasks).await
    }

    /// Sends each of `each` messages over all connections, from one task.
    async fn fan_out(&self, size: usize, each: usize) -> Result<()> {
        let mut tasks = JoinSet::new();
        let clients: Vec<_> = self.0.iter().map(|(client, _)| client.clone()).collect();
        tasks.spawn(async move {
            for _ in 0..each {
                for client in &clients {
                    client.send(size, 1).await?;
                }
            }
            Ok(())
        });
        for (_, server) in &self.0 {
            let server = server.clone();
            tasks.spawn(async move { server.receive(size, each).await });
        }
        all(tasks).await
    }

    async fn close<T: Transport<End = E>>(self, transport: &T) {
        for (client, server) in self.0 {
            if let (Some(client), Some(server)) = (Arc::into_inner(client), Arc::into_inner(server))
            {
                transport.close(client, server).await;
            }
        }
    }
}

/// Opens and closes `each` connections in each of `at_once` tasks.
async fn open_and_close<T: Transport>(
    transport: &Arc<T>,
    at_once: usize,
    each: usize,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let transport = transport.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                let (client, server) = transport.connect(transport.address()).await?;
                transport.close(client, server).await;
            }
            Ok(())
        });
    }
    all(tasks).await
}

async fn all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}

/// Returns how many messages precede a measurement.
pub(crate) fn warm_up(count: usize) -> usize {
    (count / 10).max(1)
}

/// Returns the rate, and the processor time of each message, since a start.
pub(crate) fn rates(size: usize, count: usize, started: Instant, cpu: Duration) -> Vec<f64> {
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
    let count = count as f64;
    vec![rate(size, count / elapsed.as_secs_f64()), cost(size, cpu.as_secs_f64() / count)]
}

/// Returns handshakes per second, and the processor time of each in microseconds, since a start.
pub(crate) fn costs(count: usize, started: Instant, cpu: Duration) -> Vec<f64> {
    let (elapsed, cpu, count) = (started.elapsed(), cpu_time() - cpu, count as f64);
    vec![count / elapsed.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count]
}

/// Returns the median and the 99th and 99.9th percentile, in microseconds.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> Vec<f64> {
    times.sort_unstable();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
    vec![at(0.5), at(0.99), at(0.999)]
}

/// The time after which a send counts as blocked.
const STALLED: Duration = Duration::from_millis(200);

/// The time after which memory no longer changes, because queues are empty and handles are closed.
const SETTLED: Duration = Duration::from_millis(500);

/// From how many connections on a transport may give memory back, and the time after which it has done so.
const MANY: usize = 1000;
const GIVEN_BACK: Duration = Duration::from_secs(8);

/// How often a connection is attempted, and the time between attempts.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Descriptors besides those of connections.
const OTHER_DESCRIPTORS: usize = 256;

/// How many connections are opened and closed before memory is measured.
const FIRST_CONNECTIONS: usize = 16;

/// The size of the messages of a transfer.
const PIECE: usize = 16 << 10;
