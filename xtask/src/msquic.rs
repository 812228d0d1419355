//! `msquic`: libmsquic, built once into a prefix.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

/// Builds libmsquic from `source`, or from what the crate bundles, and returns the prefix.
pub(crate) fn build(workspace: &Workspace, source: Option<&Path>, debug: bool) -> Result<PathBuf> {
    let source = match source {
        Some(source) => {
            source.canonicalize().with_context(|| format!("{} does not exist", source.display()))?
        }
        None => bundled()?,
    };
    let version = version(&source)?;
    let tls = tls_library(&source)?;
    let (profile, build_type) = if debug { ("debug", "Debug") } else { ("release", "Release") };
    let prefix = workspace.target.join("msquic").join(format!("{version}-{profile}"));
    let scratch = workspace.target.join("msquic").join(format!("build-{version}-{profile}"));
    forget_other_source(&scratch, &source)?;
    println!("building libmsquic {version} ({profile}) from {}", source.display());

    let define = |name: &str, value: &str| format!("-D{name}={value}");
    process::run(
        Command::new("cmake")
            .arg("-S")
            .arg(&source)
            .arg("-B")
            .arg(&scratch)
            .arg(define("CMAKE_BUILD_TYPE", build_type))
            .arg(define("CMAKE_INSTALL_PREFIX", &prefix.display().to_string()))
            .arg(define("CMAKE_INSTALL_LIBDIR", "lib"))
            .arg(define("QUIC_OUTPUT_DIR", &prefix.join("lib").display().to_string()))
            .arg(define("QUIC_TLS_LIB", tls))
            .arg(define("QUIC_ENABLE_LOGGING", "off")),
    )?;
    let jobs = available_parallelism().map_or(2, usize::from).to_string();
    process::run(Command::new("cmake").arg("--build").arg(&scratch).args([
        "--target",
        "install",
        "--parallel",
        &jobs,
    ]))?;
    println!("libmsquic {version} is in {}", prefix.display());
    println!("use it with: cargo xtask test --msquic {}", prefix.display());
    Ok(prefix)
}

/// Removes what was built there from another source tree: cmake refuses to go on with it.
fn forget_other_source(scratch: &Path, source: &Path) -> Result<()> {
    let Ok(cache) = std::fs::read_to_string(scratch.join("CMakeCache.txt")) else { return Ok(()) };
    let home = format!("CMAKE_HOME_DIRECTORY:INTERNAL={}", source.display());
    if !cache.lines().any(|line| line == home) {
        std::fs::remove_dir_all(scratch)?;
    }
    Ok(())
}

/// The directory of the source that the `msquic` crate brings.
fn bundled() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new().exec()?;
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "msquic");
    let manifest = &package.context("the workspace does not depend on msquic")?.manifest_path;
    Ok(manifest.parent().context("the msquic crate has no directory")?.into())
}

/// The version that the headers of a source tree say.
fn version(source: &Path) -> Result<String> {
    let path = source.join("src/inc/msquic.ver");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} is no source tree of msquic", source.display()))?;
    let number = |name: &str| {
        let define = format!("#define {name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&define));
        line.map(str::trim).with_context(|| format!("{} does not define {name}", path.display()))
    };
    Ok([number("VER_MAJOR")?, number("VER_MINOR")?, number("VER_PATCH")?].join("."))
}

/// The TLS library that comes with a source tree.
fn tls_library(source: &Path) -> Result<&'static str> {
    let bundled = |name: &&str| source.join("submodules").join(name).join("Configure").exists();
    let found = ["quictls", "openssl"].into_iter().find(bundled);
    ensure!(
        found.is_some(),
        "{} lacks its TLS library (git submodule update --init --recursive)",
        source.display()
    );
    Ok(found.unwrap_or_default())
}
