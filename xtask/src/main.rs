//! `cargo xtask`: the commands of this workspace.
//!
//! `setup` installs the build tools; no other command installs anything. `ci` runs the checks that
//! a change must pass. `demo` sends a file. `msquic` builds a libmsquic that other commands can
//! use.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod api;
mod attack;
mod beside;
mod ci;
mod circles;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod defaults;
mod demo;
mod deny;
mod doctor;
mod documents;
mod errors;
#[cfg(test)]
mod figures;
mod fuzz;
mod handshakes;
mod links;
mod miri;
mod msquic;
mod msrv;
mod observed;
mod package;
mod patches;
mod performance;
mod process;
mod promises;
mod races;
mod readme;
mod setup;
mod simulate;
mod tidy;
mod usage;

use anyhow::Result;
use clap::{Args, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use process::Workspace;
use setup::Build;
use std::path::PathBuf;
use std::process::ExitCode;

/// Builds msquic, runs the suites and the demo
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install missing build tools
    Setup(setup::Compilers),
    /// Build an unpatched libmsquic into target/msquic/VERSION-ORIGIN-TLS-PROFILE
    Msquic(msquic::Options),
    /// Run all tests
    Test(Linkage),
    /// Run all checks, tests, examples and the demo that a change must pass
    Ci {
        #[command(flatten)]
        linkage: Linkage,
        /// The name of the first step to run, as printed after `==`
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
    },
    /// Send hostile packets to the endpoints of this workspace
    Attack {
        #[command(flatten)]
        linkage: Linkage,
        #[command(flatten)]
        options: attack::Options,
    },
    /// Give the parsers of untrusted bytes inputs that reach new code (libFuzzer)
    Fuzz(fuzz::Options),
    /// Look for data races with ThreadSanitizer
    Races(races::Options),
    /// Look for undefined behaviour with miri
    Miri,
    /// Run all tests with the newest libmsquic in the registry
    Nightly,
    /// Send a file between two processes over mutual TLS
    Demo {
        #[command(flatten)]
        linkage: Linkage,
        #[command(flatten)]
        options: demo::Options,
    },
    /// Benchmark messages against quinn, s2n-quic, TCP with TLS, and bare msquic
    Bench {
        #[command(flatten)]
        linkage: Linkage,
        /// Write the figures and charts of docs/performance.md and docs/manual/comparison.md; takes
        /// a quiet machine and about twelve minutes
        #[arg(long)]
        write: bool,
        /// Also measure the msquic-async of the public registry, and msquic as its crate builds it; takes
        /// cmake, and is part of --write
        #[arg(long)]
        unpatched: bool,
        /// Write the same from the stored figures, without measuring
        #[arg(long, conflicts_with_all = ["write", "unpatched", "arguments"])]
        render: bool,
        /// Arguments of the benchmark, such as --rounds 3 or --quick
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Put a mixed load on all transports, and measure memory, handles and threads
    Soak {
        #[command(flatten)]
        linkage: Linkage,
        /// Arguments of the program, such as --minutes 60 --svg soak.svg --strict
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run a gossip of many nodes under faults from a seed, and check what happens to each message
    Simulate {
        #[command(flatten)]
        linkage: Linkage,
        /// Arguments of the program, such as --peers 10000 --minutes 60 --seed 7; --over selects a transport
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the table of patches in docs/libmsquic.md
    Patches,
    /// Write docs/errors.md, the list of the error messages
    Errors,
    /// Test the crates that do not link msquic; needs only Rust
    Portable,
    /// Check the crates with the oldest Rust that the workspace supports
    Msrv {
        /// With the beta of Rust instead, which shows what the next release rejects
        #[arg(long)]
        beta: bool,
    },
    /// Build and run the program of README.md in a new project
    Readme {
        /// Build in release mode without this workspace's cache, also with another OpenSSL, and run
        /// a copy
        #[arg(long)]
        self_contained: bool,
    },
    /// Compare the public interfaces of the libraries with their snapshots
    Api {
        /// Update the snapshots
        #[arg(long)]
        write: bool,
    },
    /// Pack the libraries and build the program of README.md from the packages, offline
    Package,
    /// Check file headers, the location of `unsafe`, file lengths, and links between documents
    Tidy,
    /// Check licences, sources and known vulnerabilities of the dependencies; needs cargo-deny
    Deny,
    /// Say what this machine has for building, testing and running, and what to do about the rest
    Doctor,
    /// Print completions of `xtask` for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Returns the libmsquic that the command builds, whose build tools must be installed.
    fn builds(&self) -> Option<Build> {
        match self {
            Self::Setup(_)
            | Self::Api { .. }
            | Self::Patches
            | Self::Errors
            | Self::Portable
            | Self::Miri
            | Self::Msrv { .. }
            | Self::Tidy
            | Self::Deny
            | Self::Doctor
            | Self::Bench { render: true, .. }
            | Self::Completions { .. } => None,
            Self::Msquic(_) | Self::Nightly => Some(Build::Prefix),
            Self::Attack { .. }
            | Self::Fuzz(_)
            | Self::Races(_)
            | Self::Test(_)
            | Self::Ci { .. }
            | Self::Demo { .. }
            | Self::Bench { .. }
            | Self::Soak { .. }
            | Self::Simulate { .. }
            | Self::Package
            | Self::Readme { .. } => Some(Build::Vendored),
        }
    }
}

/// Selects the libmsquic to link.
#[derive(Debug, Clone, Default, Args)]
struct Linkage {
    /// Use the libmsquic of this prefix (see `cargo xtask msquic`) instead of the vendored one
    #[arg(long, value_name = "PREFIX")]
    msquic: Option<PathBuf>,
}

fn main() -> ExitCode {
    let matches = usage::command().get_matches();
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if let Some(build) = options.command.builds() {
        setup::check(build)?;
    }
    let workspace = |linkage: &Linkage| Workspace::new(linkage.msquic.as_deref());
    match &options.command {
        Command::Setup(compilers) => setup::run(compilers),
        Command::Msquic(options) => msquic::build(&Workspace::new(None)?, options).map(|_| ()),
        Command::Test(linkage) => ci::test(&workspace(linkage)?),
        Command::Ci { linkage, from } => {
            ci::run(&workspace(linkage)?.without_incremental(), from.as_deref())
        }
        Command::Attack { linkage, options } => attack::run(&workspace(linkage)?, options),
        Command::Fuzz(options) => fuzz::run(&Workspace::new(None)?, options),
        Command::Races(options) => races::run(&Workspace::new(None)?, *options),
        Command::Miri => miri::run(&Workspace::new(None)?),
        Command::Nightly => nightly(),
        Command::Demo { linkage, options } => demo::run(&workspace(linkage)?, options),
        Command::Bench { render: true, .. } => performance::render(&Workspace::new(None)?.root),
        Command::Bench { linkage, write, unpatched, arguments, .. } => {
            performance::run(&workspace(linkage)?, *write, *unpatched, arguments)
        }
        Command::Soak { linkage, arguments } => ci::soak(&workspace(linkage)?, arguments),
        Command::Simulate { linkage, arguments } => simulate::run(&workspace(linkage)?, arguments),
        Command::Patches => patches::write(&Workspace::new(None)?.root),
        Command::Errors => errors::write(&Workspace::new(None)?.root),
        Command::Api { write } => api::run(&Workspace::new(None)?, *write),
        Command::Package => package::run(&Workspace::new(None)?),
        Command::Portable => ci::portable(&Workspace::new(None)?),
        Command::Msrv { beta } => msrv::run(&Workspace::new(None)?, *beta),
        Command::Readme { self_contained: false } => readme::run(&Workspace::new(None)?),
        Command::Readme { self_contained: true } => readme::self_contained(&Workspace::new(None)?),
        Command::Tidy => tidy::run(&Workspace::new(None)?),
        Command::Deny => deny::run(&Workspace::new(None)?),
        Command::Doctor => doctor::run(&Workspace::new(None)?),
        Command::Completions { shell } => {
            usage::complete(*shell);
            Ok(())
        }
    }
}

/// Runs the suites with the newest published libraries.
fn nightly() -> Result<()> {
    for package in NEWEST {
        let options = msquic::Options::newest(package);
        let prefix = msquic::build(&Workspace::new(None)?, &options)?;
        ci::test(&Workspace::new(Some(&prefix))?)?;
    }
    Ok(())
}

/// Crates that ship libmsquic: Microsoft's, and a fork that publishes later versions.
const NEWEST: [&str; 2] = ["msquic", "seera-msquic"];
