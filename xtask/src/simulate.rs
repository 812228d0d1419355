//! `simulate`: a gossip of many nodes under faults from a seed.

use crate::process::{self, Workspace};
use anyhow::Result;
use std::ffi::OsStr;

/// The arguments of the runs of `ci`.
pub(crate) const SHORT: [&str; 4] = [
    "--peers 200 --minutes 2 --seed 1 --seeds 2 --over memory",
    "--peers 20 --minutes 0.09 --seed 1 --over msquic",
    "--peers 20 --minutes 0.09 --seed 1 --over quinn",
    "--peers 20 --minutes 0.09 --seed 1 --over tcp",
];

/// Runs a simulation in release mode; `arguments` go to the program.
pub(crate) fn run(
    workspace: &Workspace,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<()> {
    let mut run = workspace.cargo_linked(["run", "--release", "--package", "simulate"]);
    if !workspace.is_bundled() {
        run.args(["--no-default-features", "--features", "system"]);
    }
    process::run(run.arg("--").args(arguments))
}
