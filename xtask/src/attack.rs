//! `attack`: hostile packets against the endpoints of this workspace, optionally under a memory
//! checker.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::process::{Command, Stdio};

/// Attacks to run under valgrind: those on memory that libmsquic frees and moves.
const ON_MEMORY: [&str; 4] =
    ["hello_with_more_crypto", "connection_ids_withdrawn", "overlapping_bytes", "ack_below_zero"];

/// Options of the attacks.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// Check memory; valgrind runs the attacks on memory only, AddressSanitizer all
    #[arg(long, value_enum)]
    under: Option<Watcher>,
    /// Number of packets per flood
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    rounds: u32,
    /// Measure honest peers and memory during attacks of this duration instead, and update the
    /// table in docs/security.md; takes a quiet machine and about half an hour
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["under", "rounds"])]
    measure: Option<u64>,
}

impl Options {
    /// The options in `ci`.
    pub(crate) fn valgrind() -> Self {
        Self { under: Some(Watcher::Valgrind), rounds: 1000, measure: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Watcher {
    Valgrind,
    Asan,
}

/// Runs the attacks; under AddressSanitizer also the tests of migrating clients, which use freed
/// memory.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some(seconds) = options.measure {
        return measure(workspace, seconds);
    }
    let is_asan = matches!(options.under, Some(Watcher::Asan));
    let mut test = workspace.cargo_linked(["test", "--package", "quic-attack"]);
    watch(&mut test, workspace, options)?;
    process::run(test.args(is_asan.then_some("--tests")))?;
    if is_asan {
        let mut test =
            workspace.cargo_linked(["test", "--package", "msquic-async", "--test", "workers"]);
        watch(&mut test, workspace, options)?;
        test.env("MOVES", MOVES.to_string()).args(["rebind", "--", "--test-threads=1"]);
        process::run(&mut test)?;
    }
    Ok(())
}

fn measure(workspace: &Workspace, seconds: u64) -> Result<()> {
    ensure!(workspace.is_bundled(), "the attacks are measured with the bundled libmsquic");
    let mut bench = workspace.cargo_linked(["run", "--release", "--package", "attack-bench", "--"]);
    bench.args(["run", "--seconds", &seconds.to_string()]).stderr(Stdio::inherit());
    let table = process::output(&mut bench)?;
    let path = workspace.root.join("docs/security.md");
    let document = fs::read_to_string(&path)?;
    let (before, rest) = document.split_once(BEGIN).context("docs/security.md has no table")?;
    let (_, after) = rest.split_once(END).context("the table in docs/security.md has no end")?;
    Ok(fs::write(&path, format!("{before}{BEGIN}\n{table}{END}{after}"))?)
}

/// The lines before and after the table of [`measure`].
const BEGIN: &str = "<!-- measured attacks -->";
const END: &str = "<!-- end of measured attacks -->";

/// How often a client migrates under AddressSanitizer.
const MOVES: u32 = 1000;

fn watch(test: &mut Command, workspace: &Workspace, options: &Options) -> Result<()> {
    test.args(workspace.features());
    test.env("QUIC_ATTACK_ROUNDS", options.rounds.to_string());
    match options.under {
        None => {}
        Some(Watcher::Valgrind) => {
            ensure!(has_valgrind(), "valgrind is not installed");
            // Undefined values are not checked: valgrind does not support the assembly of the
            // tests' cipher.
            let options =
                ["--quiet", "--error-exitcode=9", "--fair-sched=yes", "--undef-value-errors=no"];
            let words = options.map(|option| format!("'{option}'")).join(", ");
            test.arg("--config").arg(format!("target.'cfg(unix)'.runner=['valgrind', {words}]"));
            test.args(ON_MEMORY.iter().flat_map(|name| ["--test", name]));
        }
        Some(Watcher::Asan) => {
            // With an explicit target, the flags do not reach build scripts. Memory pools would
            // hide freed memory.
            let target = process::host()?;
            let name = target.replace('-', "_");
            test.args(["--target", &target, "--no-fail-fast"]);
            // rustc omits the libraries that `-fsanitize=address` would add; they must be loaded
            // first.
            let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", name.to_uppercase());
            test.env(flags, "-C link-arg=-lasan");
            let library = process::output(Command::new("cc").arg("-print-file-name=libasan.so"))?;
            let preload = format!("LD_PRELOAD={}", library.trim());
            test.arg("--config").arg(format!("target.'cfg(unix)'.runner=['env', '{preload}']"));
            test.env(format!("CFLAGS_{name}"), "-fsanitize=address -DDISABLE_CXPLAT_POOL=1");
            // Threads of libmsquic hold memory until the process ends, and the quarantine must not
            // look like growth.
            test.env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1:quarantine_size_mb=8");
        }
    }
    Ok(())
}

pub(crate) fn has_valgrind() -> bool {
    process::output(Command::new("valgrind").arg("--version")).is_ok()
}
