//! `fuzz`: gives the parsers of untrusted bytes inputs that reach new code, with libFuzzer.
//!
//! The programs are in `fuzz/targets`, a workspace of its own. The compiler instruments them as cargo-fuzz does,
//! with options that every compiler has, so `cargo fuzz` is not needed. Those in C are about the C library, which is
//! built once more for them: gcc instruments it, and AddressSanitizer checks its memory.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// The same of gcc. Memory pools would hide freed memory.
const INSTRUMENTED_C: &str =
    "-fsanitize=address -fsanitize-coverage=trace-pc,trace-cmp -DDISABLE_CXPLAT_POOL=1";

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
        let source = entry?.path();
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_target =
            source.extension().is_some_and(|extension| extension == "rs" || extension == "c");
        if is_target && options.only.as_ref().is_none_or(|only| *only == name) {
            targets.push((name, source));
        }
    }
    if targets.is_empty() {
        bail!(
            "there is no target {}; fuzz/targets has them",
            options.only.as_deref().unwrap_or("")
        );
    }
    targets.sort();
    let is_c = |source: &Path| source.extension().is_some_and(|extension| extension == "c");
    let host = process::host()?;
    let programs = workspace.target.join(&host).join("release");
    if targets.iter().any(|(_, source)| !is_c(source)) {
        process::run(&mut of_targets(workspace, &host))?;
    }
    for (target, source) in targets {
        if is_c(&source) {
            build_c(workspace, &host, &source, &programs.join(&target))?;
        }
        let kept = folder.join("corpus").join(&target);
        let found = workspace.target.join("fuzz").join(&target);
        let failed = workspace.target.join("fuzz-failed");
        for inputs in [&kept, &found, &failed] {
            fs::create_dir_all(inputs).context("cannot create a folder for inputs")?;
        }
        println!("fuzz: {target}");
        let program = programs.join(&target);
        let mut fuzz = Command::new(&program);
        fuzz.env("ASAN_OPTIONS", "quarantine_size_mb=8"); // within the limit of memory
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

/// Returns the command that builds all targets in Rust.
fn of_targets(workspace: &Workspace, host: &str) -> Command {
    // With a target, what runs while building is not instrumented.
    let mut build = workspace.cargo(["build", "--release", "--target", host]);
    build.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(&workspace.target);
    build.env("RUSTFLAGS", INSTRUMENTED);
    build
}

/// Builds a target in C, with the internal functions of the C library.
fn build_c(workspace: &Workspace, host: &str, source: &Path, program: &Path) -> Result<()> {
    let mut library = workspace.cargo_linked(["build", "--target", host]);
    library.env(format!("CFLAGS_{}", host.replace('-', "_")), INSTRUMENTED_C);
    let library = output_folder(&mut library, "libmsquic-sys")?.join("lib/internal");
    let fuzzer = output_folder(&mut of_targets(workspace, host), "libfuzzer-sys")?;
    let flags = fs::read_to_string(library.join("flags")).context("cannot read the flags")?;
    let mut compile = Command::new("cc");
    compile.args(flags.lines()).args(["-w", "-g", "-O1", "-fms-extensions", "-fsanitize=address"]);
    for folder in ["src/core", "src/platform", "src/inc", "include"] {
        compile.arg("-I").arg(library.join(folder));
    }
    compile.arg("-o").arg(program).arg(source);
    compile.args(REPLACED.map(|name| format!("-Wl,--wrap={name}")));
    compile.arg(library.join("libmsquic_internal.a")).arg(fuzzer.join("libfuzzer.a"));
    compile.args(["libssl.a", "libcrypto.a"].map(|name| library.join(name)));
    process::run(compile.args(["-lstdc++", "-lpthread", "-ldl", "-lm"]))
}

/// The functions that the targets in C define instead of the libraries.
const REPLACED: [&str; 2] = ["__sanitizer_cov_trace_pc", "QuicConnCloseLocally"];

/// Builds a package, and returns the folder that its build script has filled.
fn output_folder(build: &mut Command, package: &str) -> Result<PathBuf> {
    build.args(["--package", package, "--message-format=json-render-diagnostics"]);
    let printed = process::output(build.stderr(Stdio::inherit()))?;
    let folder = Message::parse_stream(printed.as_bytes()).find_map(|message| match message {
        Ok(Message::BuildScriptExecuted(script)) if script.package_id.repr.contains(package) => {
            Some(script.out_dir.into_std_path_buf())
        }
        _ => None,
    });
    folder.with_context(|| format!("cargo did not run the build script of {package}"))
}
