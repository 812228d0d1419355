//! `cargo xtask`: everything that is done with this workspace besides `cargo build`.
//!
//! `setup` makes the machine ready; it is the only command that installs anything. `ci` is what a change must pass.
//! `demo` shows the product. `msquic` builds libmsquic into a prefix that other commands can use.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod api;
mod attack;
mod ci;
mod circles;
#[cfg(test)]
mod commands;
mod demo;
#[cfg(test)]
mod figures;
mod msquic;
mod msrv;
mod newcomer;
mod package;
mod patches;
mod process;
mod setup;
mod tidy;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
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
    /// Find what the build needs and install what is missing
    Setup {
        /// Install the oldest Rust that the workspace supports, too
        #[arg(long)]
        msrv: bool,
    },
    /// Build another libmsquic, unpatched, into target/msquic/VERSION-ORIGIN-TLS-PROFILE
    Msquic(msquic::Options),
    /// Run all tests
    Test(Linkage),
    /// Run all checks, tests, examples and the demo, as a change must pass them
    Ci(Linkage),
    /// Send hostile packets to the endpoints of this workspace
    Attack {
        #[command(flatten)]
        linkage: Linkage,
        #[command(flatten)]
        options: attack::Options,
    },
    /// Run all tests with the newest libmsquic that the registry offers
    Nightly,
    /// Send a file between two processes over mutual TLS
    Demo {
        #[command(flatten)]
        linkage: Linkage,
        #[command(flatten)]
        options: demo::Options,
    },
    /// Measure messages over loopback, beside quinn, TCP with TLS, and bare msquic
    Bench {
        #[command(flatten)]
        linkage: Linkage,
        /// For the benchmark, such as --rounds 3 or --quick
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Write the table of patches in docs/libmsquic.md
    Patches,
    /// Test the crates that do not link msquic, on any platform and without any tool besides Rust's
    Portable,
    /// Check the crates with the oldest Rust that the workspace supports
    Msrv,
    /// Build and run the program of README.md in a fresh project
    Readme {
        /// In release mode, without the help of this workspace, also beside another OpenSSL, and run elsewhere
        #[arg(long)]
        self_contained: bool,
    },
    /// Compare the public interfaces of the libraries with their snapshots
    Api {
        /// Accept the interfaces as they are now
        #[arg(long)]
        write: bool,
    },
    /// Pack the libraries and build the program of README.md from the packages alone, offline
    Package,
    /// Check what no compiler checks: file headers, where `unsafe` stands, lengths
    Tidy,
}

impl Command {
    /// The libmsquic that the command builds, for which the machine has to be ready.
    fn builds(&self) -> Option<Build> {
        match self {
            Self::Setup { .. }
            | Self::Api { .. }
            | Self::Patches
            | Self::Portable
            | Self::Msrv
            | Self::Tidy => None,
            Self::Msquic(_) | Self::Nightly => Some(Build::Prefix),
            Self::Attack { .. }
            | Self::Test(_)
            | Self::Ci(_)
            | Self::Demo { .. }
            | Self::Bench { .. }
            | Self::Package
            | Self::Readme { .. } => Some(Build::Vendored),
        }
    }
}

/// Which libmsquic to link.
#[derive(Debug, Clone, Default, Args)]
struct Linkage {
    /// Use the libmsquic of this prefix (see `cargo xtask msquic`) instead of the vendored one
    #[arg(long, value_name = "PREFIX")]
    msquic: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
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
        Command::Setup { msrv } => setup::run(*msrv),
        Command::Msquic(options) => msquic::build(&Workspace::new(None)?, options).map(|_| ()),
        Command::Test(linkage) => ci::test(&workspace(linkage)?),
        Command::Ci(linkage) => ci::run(&workspace(linkage)?),
        Command::Attack { linkage, options } => attack::run(&workspace(linkage)?, options),
        Command::Nightly => nightly(),
        Command::Demo { linkage, options } => demo::run(&workspace(linkage)?, options),
        Command::Bench { linkage, arguments } => ci::bench(&workspace(linkage)?, arguments),
        Command::Patches => patches::write(&Workspace::new(None)?.root),
        Command::Api { write } => api::run(&Workspace::new(None)?, *write),
        Command::Package => package::run(&Workspace::new(None)?),
        Command::Portable => ci::portable(&Workspace::new(None)?),
        Command::Msrv => msrv::run(&Workspace::new(None)?),
        Command::Readme { self_contained: false } => newcomer::run(&Workspace::new(None)?),
        Command::Readme { self_contained: true } => {
            newcomer::self_contained(&Workspace::new(None)?)
        }
        Command::Tidy => tidy::run(&Workspace::new(None)?.root),
    }
}

/// Runs the suites with libraries that the product was not written for.
fn nightly() -> Result<()> {
    for package in NEWEST {
        let options = msquic::Options::newest(package);
        let prefix = msquic::build(&Workspace::new(None)?, &options)?;
        ci::test(&Workspace::new(Some(&prefix))?)?;
    }
    Ok(())
}

/// Crates that ship a libmsquic: Microsoft's, and a fork that publishes later versions.
const NEWEST: [&str; 2] = ["msquic", "seera-msquic"];
