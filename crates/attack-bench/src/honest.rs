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
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Open connections that measure round trips.
const PEERS: usize = 8;

/// Each sends a message after this time, and waits for the answer.
const BETWEEN_PINGS: Duration = Duration::from_millis(10);

/// After this time another connection is opened, used once, and closed.
const BETWEEN_DIALS: Duration = Duration::from_millis(250);

/// What takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What was measured since the last command of the parent.
#[derive(Default)]
struct Measured {
    pings: Vec<Duration>,
    lost_pings: usize,
    dials: Vec<Duration>,
    failed_dials: usize,
}

/// Measures until the parent leaves; each line of standard input ends a period, whose figures are
/// printed.
pub(crate) async fn run(target: Target) -> Result<()> {
    let transport = target.kind.transport()?;
    let measured = Arc::new(Mutex::new(Measured::default()));
    for _ in 0..PEERS {
        tokio::spawn(ping(transport.clone(), target, node::member()?, measured.clone()));
    }
    tokio::spawn(dial(transport, target, node::member()?, measured.clone()));
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

async fn ping(
    transport: DynTransport,
    target: Target,
    credential: NetCredential,
    measured: Arc<Mutex<Measured>>,
) {
    let mut ticks = interval(BETWEEN_PINGS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        ticks.tick().await;
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => connect(&transport, target, credential.clone()).await,
        };
        let started = Instant::now();
        let answered = match &open {
            Ok(open) => echo(open).await,
            Err(_) => Err(anyhow::anyhow!("not connected")),
        };
        let mut measured = measured.lock().expect("no task panics");
        match answered {
            Ok(()) => measured.pings.push(started.elapsed()),
            Err(_) => measured.lost_pings += 1,
        }
        connection = answered.and(open).ok();
    }
}

async fn dial(
    transport: DynTransport,
    target: Target,
    credential: NetCredential,
    measured: Arc<Mutex<Measured>>,
) {
    let mut ticks = interval(BETWEEN_DIALS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let served = async {
            let connection = connect(&transport, target, credential.clone()).await?;
            echo(&connection).await?;
            Ok::<_, anyhow::Error>(connection)
        };
        let served = served.await;
        let elapsed = started.elapsed();
        if let Ok(connection) = &served {
            connection.close(0, "").await;
        }
        let mut measured = measured.lock().expect("no task panics");
        match served {
            Ok(_) => measured.dials.push(elapsed),
            Err(_) => measured.failed_dials += 1,
        }
    }
}

async fn connect(
    transport: &DynTransport,
    target: Target,
    credential: NetCredential,
) -> Result<DynConnection> {
    Ok(timeout(TIMEOUT, transport.connect(target.address, &[ALPN], credential)).await??)
}

async fn echo(connection: &DynConnection) -> Result<()> {
    let round_trip = async {
        connection.send_bytes(Bytes::from_static(&[ECHO; 128])).await?;
        connection.recv().await?;
        Ok(())
    };
    timeout(TIMEOUT, round_trip).await?
}
