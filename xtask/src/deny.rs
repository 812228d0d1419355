//! `deny`: checks the dependencies with cargo-deny, by the rules in deny.toml.

use crate::process::{self, Workspace};
use anyhow::{Result, bail};

/// Checks licences, banned crates, registries and, over the network, known vulnerabilities.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if !is_installed(workspace) {
        bail!("missing: cargo-deny; run `cargo install --locked cargo-deny`");
    }
    process::run(&mut workspace.cargo(["deny", "check"]))
}

/// The checks that need no list of vulnerabilities, as `ci` makes them.
pub(crate) const OFFLINE: [&str; 5] = ["deny", "check", "bans", "licenses", "sources"];

pub(crate) fn is_installed(workspace: &Workspace) -> bool {
    process::output(&mut workspace.cargo(["deny", "--version"])).is_ok()
}
