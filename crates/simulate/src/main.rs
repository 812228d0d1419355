//! `simulate`: runs simulations, and prints what they have seen.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use msquic_transport::MsQuicTransport;
use quinn_transport::QuinnTransport;
use simulate::{Loopback, Mutant, Outcome, Plan, run_real, run_virtual};
use std::fs;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tcp_tls_transport::TcpTlsTransport;

/// Run a gossip of many nodes under faults from a seed, and check what happens to each message
#[derive(Debug, Parser)]
struct Options {
    /// How many nodes there are
    #[arg(long, default_value_t = 200)]
    peers: u32,
    /// How long faults happen, in minutes
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// All decisions are derived from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run so many seeds, beginning with `--seed`
    #[arg(long, default_value_t = 1, value_name = "N")]
    seeds: u64,
    /// What the nodes run on
    #[arg(long, value_enum, default_value_t = Over::Memory)]
    over: Over,
    /// Give all nodes a fault, for tests of the checker
    #[arg(long, value_enum, hide = true)]
    mutant: Option<Mutant>,
}

impl Options {
    /// Returns the command that runs one seed.
    fn command(&self, seed: u64) -> String {
        let Self { peers, minutes, seed: _, seeds: _, over, mutant } = self;
        let over = name(*over);
        let mutant = mutant.map(|it| format!(" --mutant {}", name(it))).unwrap_or_default();
        format!(
            "cargo xtask simulate --peers {peers} --minutes {minutes} --seed {seed} --over {over}{mutant}"
        )
    }
}

/// Returns the name of a value on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// A virtual network in virtual time, with partitions and slow links
    Memory,
    /// QUIC by msquic, over the loopback interface
    Msquic,
    /// QUIC by quinn, over the loopback interface
    Quinn,
    /// TCP with TLS, over the loopback interface
    Tcp,
}

/// The memory of the program, in KiB, that does not depend on the number of nodes.
const BASE: u64 = 64 * 1024;

/// The memory for each node, in KiB, that is not exceeded. Each has about eight connections, of
/// which both ends are in this process.
const PER_NODE: u64 = 320;

fn main() -> ExitCode {
    let options = Options::parse();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        let Options { peers, minutes, over, .. } = options;
        // Printed first, for a run that does not end.
        println!("seed {seed}: {peers} nodes, {minutes} min over {}", name(over));
        let outcome = catch_unwind(|| run(&options, seed));
        let outcome =
            outcome.unwrap_or_else(|_| Err(anyhow!("the simulation panicked, see above")));
        if let Err(error) = outcome {
            eprintln!("simulate: seed {seed}: {error:#}");
            eprintln!("repeat it with: {}", options.command(seed));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options, seed: u64) -> Result<()> {
    let Options { peers, minutes, over, mutant, .. } = *options;
    let began = Instant::now();
    let real = || Plan { mutant, ..Plan::real_time(peers, minutes, seed) };
    let outcome = match over {
        Over::Memory => {
            let progress = |now: Duration| eprintln!("  {:.1} min", now.as_secs_f64() / 60.0);
            run_virtual(&Plan { progress, mutant, ..Plan::virtual_time(peers, minutes, seed) })?
        }
        Over::Msquic => run_real(&Loopback(|| Ok(MsQuicTransport::new())), &real())?,
        Over::Quinn => run_real(&Loopback(|| Ok(QuinnTransport::new())), &real())?,
        Over::Tcp => run_real(&Loopback(|| Ok(TcpTlsTransport::new())), &real())?,
    };
    print(&outcome, began.elapsed());
    let (peak, limit) = (peak()?, BASE + PER_NODE * u64::from(peers));
    println!(
        "  memory: {} MiB at most, {} KiB for each node",
        peak / 1024,
        peak / u64::from(peers)
    );
    ensure!(
        over != Over::Memory || peak <= limit,
        "the program had {peak} KiB of memory, and {limit} KiB are expected at most"
    );
    Ok(())
}

fn print(outcome: &Outcome, took: Duration) {
    let Outcome { counts, steps, digest, slowest_rumor, connections } = outcome;
    println!("  it took {:.1} s; the digest is {digest:016x}", took.as_secs_f64());
    let steps: Vec<_> = steps.iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!("  {}", steps.join(", "));
    println!(
        "  messages: {} sent, {} received, {} reported, {} of them both, {} not queued, {} forged",
        counts.sent, counts.received, counts.reported, counts.both, counts.refused, counts.forged
    );
    println!(
        "  a message was settled after {:.1} s and a rumor known after {:.0} s at most; a node held {} bytes at most, and had {connections:.1} connections at the end",
        counts.longest.as_secs_f64(),
        slowest_rumor.as_secs_f64(),
        counts.most_held
    );
}

/// Returns the most memory that the process had, in KiB; 0 if the system does not tell.
fn peak() -> Result<u64> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return Ok(0) };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
    kib.context("the status of the process has no VmHWM")
}
