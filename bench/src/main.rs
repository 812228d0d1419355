//! Framed messages over loopback: this transport against quinn, TCP with TLS, and msquic's bare
//! callbacks, in one process. Rounds are interleaved, so that all contenders see the same load; the
//! results are the ratios within a round.
#![allow(clippy::print_stdout, reason = "a program")]

mod batched;
mod contender;
#[cfg(target_os = "linux")]
mod driven;
mod handshakes;
mod machine;
mod network;
mod ours;
mod quinn_peer;
mod raw;
mod report;
mod sharing;
mod streams;
mod tcp;
mod telemetry;
mod tls;

use anyhow::Result;
use clap::Parser;
use contender::Contender;
use report::Report;
use std::path::PathBuf;
use std::time::Duration;
use streams::Writes;

/// Benchmark messages of this transport against other transports
#[derive(Debug, Parser)]
struct Options {
    /// Number of rounds; by default 9, with `--quick` 1
    #[arg(long)]
    rounds: Option<usize>,
    /// Write the figures of all rounds to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Send a tenth of the messages, in one round: whether the benchmark works
    #[arg(long)]
    quick: bool,
    /// Run only workloads whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Compare shared sockets with one socket per connection, instead of other transports
    #[arg(long)]
    sharing: bool,
    /// Compare connections per second, with certificates of both sides
    #[arg(long, conflicts_with = "sharing")]
    handshakes: bool,
    /// Compare transfers through a relay with delay, loss and reordering
    #[arg(long, conflicts_with_all = ["sharing", "handshakes"])]
    network: bool,
    /// Compare this transport with a recorder of metrics and without one
    #[arg(long, conflicts_with_all = ["sharing", "handshakes", "network"])]
    telemetry: bool,
    /// Compare `send_many`, `recv_many` and inline handlers with gathered writes of other transports
    #[arg(long, conflicts_with_all = ["sharing", "telemetry"])]
    batched: bool,
    /// Run msquic inside the runtime of this program, and compare with quinn in the same
    /// runtime
    #[cfg(target_os = "linux")]
    #[arg(long)]
    driven: bool,
    /// With `--driven`: use a runtime of one thread
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "driven")]
    current_thread: bool,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 9 })
    }

    /// Returns the divisor of the number of messages.
    fn part(&self) -> usize {
        if self.quick { 10 } else { 1 }
    }
}

/// A workload.
#[derive(Debug, Clone, Copy)]
enum Workload {
    /// Messages of a size, at full speed; megabytes or thousands of messages per second.
    OneWay { size: usize, count: usize, in_megabytes: bool },
    /// Round trips of a message; percentiles in microseconds.
    PingPong { size: usize, count: usize },
}

const WORKLOADS: [(&str, Workload); 5] = [
    ("128 B one-way, 1000/s", Workload::OneWay { size: 128, count: 300_000, in_megabytes: false }),
    ("4 KiB one-way, MB/s", Workload::OneWay { size: 4 << 10, count: 30_000, in_megabytes: true }),
    ("64 KiB one-way, MB/s", Workload::OneWay { size: 64 << 10, count: 3000, in_megabytes: true }),
    ("1 MiB one-way, MB/s", Workload::OneWay { size: 1 << 20, count: 200, in_megabytes: true }),
    ("128 B ping-pong", Workload::PingPong { size: 128, count: 3000 }),
];

fn main() -> Result<()> {
    let options = Options::parse();
    #[cfg(target_os = "linux")]
    if options.driven {
        return driven::run(options);
    }
    tokio::runtime::Runtime::new()?.block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    if options.sharing {
        return sharing::run(&options).await;
    }
    if options.handshakes {
        return handshakes::run(&options).await;
    }
    if options.network {
        return network::run(&options).await;
    }
    if options.telemetry {
        return telemetry::run(&options).await;
    }
    if options.batched {
        return compare(
            &options,
            vec![
                Box::new(batched::Batched::new().await?),
                Box::new(ours::Ours::new().await?),
                Box::new(quinn_peer::Quinn::new(Writes::Gathered).await?),
                Box::new(tcp::Tcp::new().await?),
            ],
        )
        .await;
    }
    let contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(ours::Ours::new().await?),
        Box::new(quinn_peer::Quinn::new(Writes::Single).await?),
        Box::new(quinn_peer::Quinn::new(Writes::Gathered).await?),
        Box::new(tcp::Tcp::new().await?),
        Box::new(raw::Raw::new()?),
    ];
    compare(&options, contenders).await
}

async fn compare(options: &Options, contenders: Vec<Box<dyn Contender>>) -> Result<()> {
    let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
    let mut report = Report::new(&names);
    for (name, workload) in WORKLOADS {
        if options.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        for round in 0..=options.rounds() {
            let mut figures = vec![Vec::new(); contenders.len()];
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len(); // no contender is always first
                figures[index] = measure(&*contenders[index], workload, options.part()).await?;
            }
            // The first round warms up.
            if round > 0 {
                for (row, what) in workload.rows().iter().enumerate() {
                    let of_row = figures.iter().map(|of_contender| of_contender[row]).collect();
                    report.add(format!("{name}{what}"), of_row);
                }
            }
        }
    }
    report.finish(options.json.as_deref())?;
    for contender in contenders {
        contender.close().await;
    }
    Ok(())
}

impl Workload {
    /// Returns the suffix of the name of each figure.
    fn rows(self) -> &'static [&'static str] {
        match self {
            Self::OneWay { .. } => &["", ", CPU ns per message"],
            Self::PingPong { .. } => &[" p50, us", " p99, us", " p99.9, us"],
        }
    }
}

async fn measure(contender: &dyn Contender, workload: Workload, part: usize) -> Result<Vec<f64>> {
    Ok(match workload {
        Workload::OneWay { size, count, in_megabytes } => {
            let count = count / part;
            let before = cpu_time();
            let seconds = contender.one_way(size, count).await?.as_secs_f64();
            let cpu_time = cpu_time() - before;
            let per_second = count as f64 / seconds;
            let rate = if in_megabytes { per_second * size as f64 / 1e6 } else { per_second / 1e3 };
            vec![rate, cpu_time.as_secs_f64() * 1e9 / count as f64]
        }
        Workload::PingPong { size, count } => {
            let mut times = contender.ping_pong(size, count / part).await?;
            times.sort_unstable();
            let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6;
            vec![at(0.5), at(0.99), at(0.999)]
        }
    })
}

/// Returns the processor time of all threads of this process so far.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
