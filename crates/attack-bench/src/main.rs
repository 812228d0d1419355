//! Measures an endpoint under attack: how long honest peers wait for it, and its memory.
//!
//! `run` starts three processes of this program for each attack: a victim, honest peers that measure
//! round trips, and an attacker. The control of each attack has the same processes, but in place of
//! the attacker honest peers that send as many packets at the same times, and use as much processor
//! time.
//!
//! - [`victim`], [`honest`], [`attacks`] and [`control`] are the processes.
//! - [`attacker`] is a connection of an attacker, with quinn or rustls, and [`node`] what all share: the
//!   transports, and credentials that the victim trusts.
//! - [`experiment`] runs the processes and [`report`] prints the table. [`pace`] is what a control
//!   repeats of its attack.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod attacker;
mod attacks;
mod control;
mod experiment;
mod gaps;
mod honest;
mod node;
mod pace;
mod process;
mod report;
mod victim;

use anyhow::Result;
use attacks::Attack;
use clap::{Args, Parser, Subcommand};
use node::Kind;
use pace::Pace;
use std::net::SocketAddr;
use std::time::Duration;

/// Measure honest peers and memory of an endpoint under attack
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measure all attacks, each with its control
    Run(Run),
    /// Serve peers, as the other processes expect
    Victim {
        /// The victim's transport
        kind: Kind,
    },
    /// Measure round trips and new connections
    Honest {
        #[command(flatten)]
        target: Target,
    },
    /// Attack
    Attack {
        #[command(flatten)]
        target: Target,
        /// Name of the attack
        attack: Attack,
    },
    /// Send packets and use processor time at the pace of an attack, as honest peers do
    Control {
        #[command(flatten)]
        target: Target,
        /// Seconds, packets and processor seconds until then: `0.5:100:0.1,1:100:0.1`
        pace: Pace,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Seconds of each attack
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each attack and its control are measured, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only attacks whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Only this transport
    #[arg(long)]
    kind: Option<Kind>,
}

/// The endpoint under attack.
#[derive(Debug, Clone, Copy, Args)]
struct Target {
    /// The victim's transport
    kind: Kind,
    /// The victim's address
    address: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Options::parse().role {
        Role::Run(options) => {
            let rows = experiment::run_all(&options).await?;
            print!("{}", report::table(&rows, Duration::from_secs(options.seconds)));
            Ok(())
        }
        Role::Victim { kind } => victim::run(kind).await,
        Role::Honest { target } => honest::run(target).await,
        Role::Attack { target, attack } => attacks::run(target, attack).await,
        Role::Control { target, pace } => control::run(target, pace).await,
    }
}

#[cfg(test)]
mod tests {
    use super::Options;
    use clap::Parser;

    #[test]
    fn the_roles_that_an_experiment_starts_exist() {
        for arguments in [
            &["victim", "tcp"][..],
            &["honest", "tcp", "127.0.0.1:1"],
            &["attack", "tcp", "127.0.0.1:1", "empty-messages"],
            &["control", "tcp", "127.0.0.1:1", "0.5:1000:0.1,1:1000:0.1"],
        ] {
            let parsed = Options::try_parse_from([&["attack-bench"], arguments].concat());
            assert!(parsed.is_ok(), "{arguments:?}: {parsed:?}");
        }
    }
}
