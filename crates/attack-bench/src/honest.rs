//! Honest peers: round trips over open connections, and new connections.

use crate::Target;
use crate::node::{self, ALPN};
use crate::process;
use crate::victim::ECHO;
use anyhow::Result;
use bytes::Bytes;
use net_traits::{DynConnection, DynTransport, NetConnection, NetCredential, NetTransport};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How many connections stay open and measure round trips.
const PEERS: usize = 8;

/// How often each of them sends a message and waits for the answer.
const BETWEEN_PINGS: Duration = Duration::from_millis(10);

/// How often a further connection is opened, used once, and closed.
const BETWEEN_DIALS: Duration = Duration::from_millis(250);

/// After this time a round trip or a connection attempt counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What was measured since the last command of the parent.
#[derive(Default)]
struct Measured {
    pings: Vec<Duration>,
    lost_pings: usize,
    dials: Vec<Duration>,
    failed_dials: usize,
}

/// Measures until standard input is closed. Each line of standard input ends a period, whose
/// figures are printed.
pub(crate) async fn run(target: Target) -> Result<()> {
    let transport = target.kind.transport()?;
    let measured = Arc::new(Mutex::new(Measured::default()));
    let peer = || -> Result<Peer> {
        let (transport, measured) = (transport.clone(), measured.clone());
        Ok(Peer { transport, target, credential: node::member()?, measured })
    };
    for _ in 0..PEERS {
        tokio::spawn(peer()?.ping());
    }
    tokio::spawn(peer()?.dial());
    while process::parent_commands().await {
        let mut measured = std::mem::take(&mut *measured.lock().expect("no task panics"));
        let [p50, p99, worst] = quantiles(&mut measured.pings);
        let [dial, _, slowest] = quantiles(&mut measured.dials);
        println!(
            "{} {p50} {p99} {worst} {} {} {dial} {slowest} {}",
            measured.pings.len(),
            measured.lost_pings,
            measured.dials.len(),
            measured.failed_dials,
        );
    }
    Ok(())
}

/// Returns median, 99th percentile and maximum in microseconds.
fn quantiles(times: &mut [Duration]) -> [u128; 3] {
    times.sort_unstable();
    let at = |index: usize| times.get(index).map_or(0, Duration::as_micros);
    [times.len() / 2, times.len() * 99 / 100, times.len().saturating_sub(1)].map(at)
}

/// An honest peer, and the figures that it adds to.
struct Peer {
    transport: DynTransport,
    target: Target,
    credential: NetCredential,
    measured: Arc<Mutex<Measured>>,
}

impl Peer {
    /// Measures round trips over one connection, which is replaced when it has ended.
    async fn ping(self) {
        let mut ticks = ticks(BETWEEN_PINGS);
        let mut connection = None;
        loop {
            ticks.tick().await;
            let open = match connection.take() {
                Some(open) => Ok(open),
                None => self.connect().await,
            };
            let answered = async {
                let open = open?;
                echo(&open).await?;
                Ok(open)
            };
            connection = self.measure(answered, |it| (&mut it.pings, &mut it.lost_pings)).await;
        }
    }

    /// Measures how long it takes to connect and to get an answer.
    async fn dial(self) {
        let mut ticks = ticks(BETWEEN_DIALS);
        loop {
            ticks.tick().await;
            let served = async {
                let connection = self.connect().await?;
                echo(&connection).await?;
                Ok(connection)
            };
            let served = self.measure(served, |it| (&mut it.dials, &mut it.failed_dials)).await;
            if let Some(connection) = served {
                connection.close(0, "").await;
            }
        }
    }

    /// Adds the time of `step` to the figures, or counts its failure.
    async fn measure<T>(
        &self,
        step: impl Future<Output = Result<T>>,
        figures: impl FnOnce(&mut Measured) -> (&mut Vec<Duration>, &mut usize),
    ) -> Option<T> {
        let started = Instant::now();
        let done = step.await;
        let elapsed = started.elapsed();
        let mut measured = self.measured.lock().expect("no task panics");
        let (times, failures) = figures(&mut measured);
        match &done {
            Ok(_) => times.push(elapsed),
            Err(_) => *failures += 1,
        }
        done.ok()
    }

    async fn connect(&self) -> Result<DynConnection> {
        let dial = self.transport.connect(self.target.address, &[ALPN], self.credential.clone());
        Ok(timeout(TIMEOUT, dial).await??)
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn echo(connection: &DynConnection) -> Result<()> {
    let round_trip = async {
        connection.send_bytes(Bytes::from_static(&[ECHO; 128])).await?;
        connection.recv().await?;
        Ok(())
    };
    timeout(TIMEOUT, round_trip).await?
}
