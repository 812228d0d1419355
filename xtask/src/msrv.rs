//! `msrv`: checks the crates with the oldest supported Rust, or with the next one.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Checks the libraries with their optional features. Tests and examples may need a newer Rust.
///
/// libmsquic is not built, because checking does not link.
pub(crate) fn run(workspace: &Workspace, beta: bool) -> Result<()> {
    let version = version(beta)?;
    let rustup = || {
        let mut rustup = Command::new("rustup");
        rustup.current_dir(&workspace.root).args(["run", &version]);
        rustup
    };
    if process::output(rustup().args(["rustc", "--version"])).is_err() {
        let option = if beta { "--beta" } else { "--msrv" };
        bail!("missing: Rust {version}; run `cargo xtask setup {option}`");
    }
    println!("checking with Rust {version}");
    let check = ["cargo", "check", "--locked", "--lib", "--no-default-features"];
    process::run(rustup().args(check).args(PACKAGES).args(FEATURES))
}

/// Installs the Rust that [`run`] needs, in addition to the current one.
pub(crate) fn install(beta: bool) -> Result<()> {
    let version = version(beta)?;
    let mut rustup = Command::new("rustup");
    process::run(rustup.args(["toolchain", "install", "--profile", "minimal", &version]))
}

/// Returns `beta`, or the `rust-version` of the workspace's manifest.
fn version(beta: bool) -> Result<String> {
    if beta {
        return Ok("beta".to_owned());
    }
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    let version = metadata.packages.iter().find_map(|package| package.rust_version.as_ref());
    Ok(version.context("the manifest has no rust-version")?.to_string())
}

/// The packages that other projects depend on.
const PACKAGES: [&str; 16] = [
    "--package",
    "net-traits",
    "--package",
    "net-kit",
    "--package",
    "net-traits-test",
    "--package",
    "net-peers",
    "--package",
    "tcp-tls-transport",
    "--package",
    "quinn-transport",
    "--package",
    "msquic-async",
    "--package",
    "msquic-transport",
];

/// The optional features.
const FEATURES: [&str; 2] = [
    "--features",
    "net-traits/self-signed,net-peers/dns,msquic-async/driver,msquic-transport/metrics",
];
