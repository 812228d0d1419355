//! `simulate`: a gossip of many nodes under faults from a seed.

use crate::process::{self, Workspace};
use anyhow::Result;
use clap::{Args, ValueEnum};

/// Options of a simulation.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many nodes there are
    #[arg(long, default_value_t = 200)]
    peers: u32,
    /// How long faults happen, in minutes; virtual ones on the memory network
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

impl Options {
    /// The runs of `ci`.
    pub(crate) fn short() -> [Self; 4] {
        let memory = Self { peers: 200, minutes: 2.0, seed: 1, seeds: 2, over: Over::Memory };
        let real = |over| Self { peers: 8, minutes: 0.1, seeds: 1, over, ..memory.clone() };
        [memory.clone(), real(Over::Msquic), real(Over::Quinn), real(Over::Tcp)]
    }
}

/// Runs a simulation. `profile` contains the arguments that select the profile.
pub(crate) fn run(workspace: &Workspace, options: &Options, profile: &[&str]) -> Result<()> {
    let Options { peers, minutes, seed, seeds, over } = options;
    let mut run = workspace.cargo_linked(["run", "--package", "simulate"]);
    run.args(profile);
    if !workspace.is_bundled() {
        run.args(["--no-default-features", "--features", "system"]);
    }
    let numbers = [
        ("--peers", peers.to_string()),
        ("--minutes", minutes.to_string()),
        ("--seed", seed.to_string()),
        ("--seeds", seeds.to_string()),
    ];
    run.arg("--").args(numbers.iter().flat_map(|(option, value)| [*option, value]));
    if let Some(over) = over.to_possible_value() {
        run.args(["--over", over.get_name()]);
    }
    process::run(&mut run)
}
