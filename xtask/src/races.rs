//! `races`: tests under ThreadSanitizer, which sees this workspace, its dependencies, the standard library and the C
//! library.
//!
//! Without an instrumented standard library and C library, their locks would not order anything, and most reports
//! would be false. The standard library is therefore built from its source, and gcc instruments the C library.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Options of the tests.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Options {
    /// Run only unit tests of msquic-async with threads of libmsquic, as in `ci`
    #[arg(long)]
    short: bool,
}

/// The tests: arguments of `cargo test`.
const TESTS: [&[&str]; 4] = [
    &["--package", "msquic-async", "--lib"],
    &["--package", "msquic-transport", "--features", "driver,metrics", "--test", "conformance"],
    &["--package", "tcp-tls-transport", "--test", "conformance"],
    &["--package", "quinn-transport", "--test", "conformance"],
];

/// Filters for those of the first that are run with `--short`.
const SHORT: [&str; 1] = ["ffi::contract::"];

/// Is not run: the allocator of ThreadSanitizer gives no memory back.
const SKIPPED: [&str; 2] = ["--skip", "memory_of_closed_connections_is_given_back"];

/// What is not reported: races of which one access is in libmsquic's own code, since it reads flags, and counters of
/// its assertions, without a lock while other threads change them; what the tasks of tokio's sockets find by a pointer
/// that the kernel returns, which orders nothing for ThreadSanitizer; and the features of the processor, which several
/// threads of ring may store, each the same, while its C code reads them.
const IGNORED: &str = "race_top:/out/source/src/
race:tokio::runtime::io::scheduled_io::ScheduledIo
race:ring::cpu::
";

/// Returns whether the source of the standard library is installed.
pub(crate) fn has_source() -> bool {
    rustlib().is_ok_and(|rustlib| rustlib.join("src/rust/library").exists())
}

/// Returns whether the compiler has ThreadSanitizer, and the source that it needs.
pub(crate) fn is_possible() -> bool {
    let has_runtime = || -> Result<bool> {
        let libraries = fs::read_dir(rustlib()?.join(process::host()?).join("lib"))?;
        let mut names =
            libraries.filter_map(|library| library.ok()?.file_name().into_string().ok());
        Ok(names.any(|name| name.contains("tsan")))
    };
    cfg!(target_os = "linux") && has_source() && has_runtime().unwrap_or(false)
}

/// Returns the folder of the compiler's libraries.
fn rustlib() -> Result<PathBuf> {
    let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib"))
}

/// Runs the tests. A race fails them, and is printed with both accesses.
pub(crate) fn run(workspace: &Workspace, options: Options) -> Result<()> {
    ensure!(
        is_possible(),
        "missing: Linux, ThreadSanitizer in this compiler, or rust-src (`cargo xtask setup`)"
    );
    let (host, target) = (process::host()?, workspace.target.join("races"));
    fs::create_dir_all(&target).context("cannot create the target directory")?;
    let ignored = target.join("ignored");
    fs::write(&ignored, IGNORED).context("cannot write what is not reported")?;
    let tests = if options.short { &TESTS[..1] } else { &TESTS };
    for arguments in tests {
        let mut test = workspace.cargo_linked(["test", "-Zbuild-std", "--target", &host]);
        test.arg("--target-dir").arg(&target).args(*arguments);
        test.arg("--").args(SKIPPED).args(if options.short { &SHORT[..] } else { &[] });
        // ThreadSanitizer is not stable. What is not reported is found by names of files.
        test.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=thread");
        test.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        // Memory pools would hide that memory is used after it was freed.
        let flags = format!("CFLAGS_{}", host.replace('-', "_"));
        test.env(flags, "-fsanitize=thread -DDISABLE_CXPLAT_POOL=1");
        test.env("TSAN_OPTIONS", format!("suppressions={}", ignored.display()));
        process::run(&mut test)?;
    }
    Ok(())
}
