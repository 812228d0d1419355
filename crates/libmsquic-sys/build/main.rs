//! Selects the libmsquic to link: `vendored` builds it, `system` finds it.
//!
//! ```text
//! source ─▶ patch ─▶ tree (in memory) ─▶ library ─▶ one object, two visible symbols ─▶ libmsquic.a
//!                                  tls ───▲
//! ```
#![allow(clippy::print_stdout, reason = "cargo reads the directives of a build script there")]

mod environment;
#[cfg(all(feature = "vendored", not(feature = "system")))]
mod library;
#[cfg(all(feature = "vendored", not(feature = "system")))]
mod patch;
#[cfg(all(feature = "vendored", not(feature = "system")))]
mod source;
#[cfg(feature = "system")]
mod system;
#[cfg(all(feature = "vendored", not(feature = "system")))]
mod tls;
#[cfg(all(feature = "vendored", not(feature = "system")))]
mod vendored;

use environment as env;
use std::process::ExitCode;

/// An error message for the user.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rustc-env=TARGET_TRIPLE={}", env::cargo("TARGET")?);
    if env::is_set("DOCS_RS") || env::flag("LIBMSQUIC_SYS_NO_BUILD") {
        return link_nothing();
    }
    #[cfg(feature = "system")]
    return system::link();
    #[cfg(all(feature = "vendored", not(feature = "system")))]
    return vendored::link();
    #[cfg(not(any(feature = "vendored", feature = "system")))]
    link_nothing()
}

/// Links no library, for `cargo check` and documentation.
fn link_nothing() -> Result<()> {
    write_linkage("None", &[])
}

/// Writes constants about the linked library for the crate.
fn write_linkage(kind: &str, patches: &[String]) -> Result<()> {
    let text = format!(
        "/// The libmsquic that this build links.\npub const LINKAGE: Linkage = Linkage::{kind};\n\
         /// The patches in it.\npub const PATCHES: &[Patch] = &[\n{}];\n",
        patches.concat()
    );
    env::write_if_changed(&env::out_dir()?.join("linkage.rs"), text.as_bytes())
}
