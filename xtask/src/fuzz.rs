//! `fuzz`: gives the parsers of untrusted bytes inputs that reach new code, with libFuzzer.
//!
//! The programs are in `fuzz/targets`, a workspace of its own. The compiler instruments them as cargo-fuzz does,
//! with options that every compiler has, so `cargo fuzz` is not needed.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Options of the fuzzer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How long to fuzz each target, after the kept inputs were tried
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// Run one target only
    #[arg(long, value_name = "TARGET")]
    only: Option<String>,
    /// Add inputs that reached new code to fuzz/corpus
    #[arg(long)]
    keep: bool,
}

impl Options {
    /// The options in `ci`.
    pub(crate) fn short() -> Self {
        Self { seconds: 5, only: None, keep: false }
    }
}

/// The instrumentation that libFuzzer needs.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// How long one input may take, in seconds, and how much memory the program may use, in MiB.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// Returns whether the C++ compiler that builds libFuzzer exists.
pub(crate) fn is_possible() -> bool {
    cfg!(target_os = "linux") && process::output(Command::new("c++").arg("--version")).is_ok()
}

/// Runs the targets. An input that fails is kept in `target/fuzz-failed`, and its path is printed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(is_possible(), "missing: c++, which builds libFuzzer; or this system is not Linux");
    let folder = workspace.root.join("fuzz");
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder.join("targets")).context("cannot read fuzz/targets")? {
        let name = entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned());
        targets.extend(name.filter(|name| options.only.as_ref().is_none_or(|only| only == name)));
    }
    if targets.is_empty() {
        bail!(
            "there is no target {}; fuzz/targets has them",
            options.only.as_deref().unwrap_or("")
        );
    }
    targets.sort();
    let programs = build(workspace)?;
    for target in targets {
        let kept = folder.join("corpus").join(&target);
        let found = workspace.target.join("fuzz").join(&target);
        let failed = workspace.target.join("fuzz-failed");
        for inputs in [&kept, &found, &failed] {
            fs::create_dir_all(inputs).context("cannot create a folder for inputs")?;
        }
        println!("fuzz: {target}");
        let program = programs.join(&target);
        let mut fuzz = Command::new(&program);
        fuzz.args([&found, &kept]).args(LIMITS).arg("-verbosity=0").arg("-print_final_stats=1");
        fuzz.arg(format!("-max_total_time={}", options.seconds));
        fuzz.arg(format!("-artifact_prefix={}/{target}-", failed.display()));
        process::run(&mut fuzz)?;
        if options.keep {
            let mut merge = Command::new(&program);
            process::run(merge.arg("-merge=1").args([&kept, &found]).args(LIMITS))?;
        }
    }
    Ok(())
}

/// Builds all targets, and returns the folder of the programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say which system it is for")?;
    // With a target, what runs while building is not instrumented.
    let mut build = workspace.cargo(["build", "--release", "--target", host]);
    build.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(&workspace.target);
    process::run(build.env("RUSTFLAGS", INSTRUMENTED))?;
    Ok(workspace.target.join(host).join("release"))
}
