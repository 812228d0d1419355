//! `miri`: tests under miri, which detects undefined behaviour: what handles the bytes of peers, and `msquic-async`,
//! also its unsafe module, with a script instead of libmsquic.

use crate::process::{self, Workspace};
use anyhow::{Context, Result};
use std::fs;

/// Filters for the tests of what handles the bytes of peers.
const PARSERS: [&str; 5] =
    ["frame::", "record::", "receipts::", "unacknowledged::", "violations::"];

/// Filters for the unit tests of `msquic-async` that do not call libmsquic.
const PURE: [&str; 7] = [
    "buffer::",
    "coop::",
    "ffi::slot::",
    "ffi::status::",
    "listener::state::",
    "stream::state::",
    "waiters::tests::a_wake_between",
];

/// Those among them for which miri takes minutes.
const LONG: [&str; 2] = ["contiguous_front", "batches_are_cut_and_keep_the_order"];

/// A target for which ring, which hashes certificates, calls neither assembly nor C.
const WITHOUT_ASSEMBLY: &str = "loongarch64-unknown-linux-gnu";

pub(crate) fn is_installed(workspace: &Workspace) -> bool {
    process::output(&mut workspace.nightly(["miri", "--version"])).is_ok()
}

/// Runs the tests.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    process::output(&mut workspace.nightly(["miri", "--version"]))
        .context("miri is missing: cargo xtask setup --nightly")?;
    // Property tests read a file, and a few cases are sufficient.
    let test = |flags: &str| {
        let mut test = workspace.nightly(["miri", "test"]);
        let flags = format!("-Zmiri-disable-isolation {flags}");
        test.env("MIRIFLAGS", flags).env("PROPTEST_CASES", "8");
        test
    };
    let mut parsers = test("");
    parsers.args(["--lib", "--package", "net-kit", "--package", "tcp-tls-transport", "--"]);
    process::run(parsers.args(PARSERS))?;

    let lock = workspace.target.join("miri/Cargo.lock");
    fs::create_dir_all(workspace.target.join("miri")).context("cannot create a directory")?;
    let scripted = |arguments: &[&str]| -> Result<()> {
        // cargo would write the stand-in into the lock file.
        fs::copy(workspace.root.join("Cargo.lock"), &lock).context("cannot copy Cargo.lock")?;
        // The threads of this process outlive its tests, which is a leak to miri.
        let mut test = test("-Zmiri-ignore-leaks");
        test.arg("-Zlockfile-path");
        test.arg("--config").arg(format!("resolver.lockfile-path={:?}", lock));
        let stand_in = workspace.root.join("xtask/miri/ctor");
        test.arg("--config").arg(format!("patch.crates-io.ctor.path={stand_in:?}"));
        test.args(["--target", WITHOUT_ASSEMBLY]);
        // The host's compiler suffices for C code that is never called.
        let name = WITHOUT_ASSEMBLY.replace('-', "_");
        test.env(format!("CC_{name}"), "cc").env(format!("AR_{name}"), "ar");
        test.args(["--package", "msquic-async", "--no-default-features", "--features", "testing"]);
        process::run(test.args(arguments))
    };
    let long = LONG.iter().flat_map(|name| ["--skip", name]);
    scripted(&[&["--lib", "--"], &PURE[..], &long.collect::<Vec<_>>()].concat())?;
    scripted(&["--test", "events"])
}
