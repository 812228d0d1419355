//! Links an empty archive in the place of libmsquic, for which the crate `msquic` asks. The target `events` has a
//! script instead.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(folder.join("libmsquic.a"), "!<arch>\n")?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
