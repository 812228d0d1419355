//! `races`: tests under ThreadSanitizer, which sees this workspace, its dependencies, the standard library and the C
//! library.
//!
//! Without an instrumented standard library and C library, their locks would not order anything, and most reports
//! would be false. The standard library is therefore built from its source, and gcc instruments the C library.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The tests: arguments of `cargo test`.
const TESTS: [&[&str]; 4] = [
    &["--package", "msquic-async", "--lib"],
    &["--package", "msquic-transport", "--features", "driver,metrics", "--test", "conformance"],
    &["--package", "tcp-tls-transport", "--test", "conformance"],
    &["--package", "quinn-transport", "--test", "conformance"],
];

/// What is not reported: races of which one access is in libmsquic's own code, since it reads flags, and counters of
/// its assertions, without a lock while other threads change them; and what the tasks of tokio's sockets find by a
/// pointer that the kernel returns, which orders nothing for ThreadSanitizer.
const IGNORED: &str =
    "race_top:/out/source/src/\nrace:tokio::runtime::io::scheduled_io::ScheduledIo\n";

/// Runs the tests. A race fails them, and is printed with both accesses.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let rustc = ["run", "nightly", "rustc", "--print", "sysroot"];
    let sysroot = process::output(Command::new("rustup").args(rustc))
        .context("the races need a nightly compiler: cargo xtask setup --nightly")?;
    ensure!(
        Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library").exists(),
        "the source of the standard library is missing: cargo xtask setup --nightly"
    );
    let (host, target) = (process::host()?, workspace.target.join("races"));
    fs::create_dir_all(&target).context("cannot create the target directory")?;
    let ignored = target.join("ignored");
    fs::write(&ignored, IGNORED).context("cannot write what is not reported")?;
    for arguments in TESTS {
        let mut test = workspace.nightly(["test", "-Zbuild-std", "--target", &host]);
        workspace.choose_library(&mut test);
        test.arg("--target-dir").arg(&target).args(arguments);
        test.env("RUSTFLAGS", "-Zsanitizer=thread");
        // Memory pools would hide that memory is used after it was freed.
        let flags = format!("CFLAGS_{}", host.replace('-', "_"));
        test.env(flags, "-fsanitize=thread -DDISABLE_CXPLAT_POOL=1");
        test.env("TSAN_OPTIONS", format!("suppressions={}", ignored.display()));
        process::run(&mut test)?;
    }
    Ok(())
}
