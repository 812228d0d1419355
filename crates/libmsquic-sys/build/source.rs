//! Finds the C source that the `msquic` crate ships.

use crate::environment::{self as env, failed};
use crate::{Result, patch::Version};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pinned version of the crate, for whose source the patches are made.
const PINNED: &str = "2.5.1-beta";

/// A source tree of msquic.
pub(crate) struct Source {
    pub(crate) root: PathBuf,
    pub(crate) version: Version,
}

/// Returns the tree in `LIBMSQUIC_SYS_SOURCE`, otherwise that of the pinned crate.
pub(crate) fn find() -> Result<Source> {
    let root = match env::user("LIBMSQUIC_SYS_SOURCE") {
        Some(path) => PathBuf::from(path),
        None => pinned()?,
    };
    let header = root.join("src/inc/msquic.ver");
    let text = fs::read_to_string(&header).map_err(|error| failed("read", &header, &error))?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        line.and_then(|number| number.trim().parse().ok())
            .ok_or_else(|| format!("{} does not define {name}", header.display()))
    };
    let version = (number("VER_MAJOR")?, number("VER_MINOR")?, number("VER_PATCH")?);
    Ok(Source { root, version })
}

/// Asks cargo, which handles vendored registries and other homes. If that fails, searches next to
/// this package.
fn pinned() -> Result<PathBuf> {
    let asked = ask_cargo();
    if let Ok(path) = &asked {
        return Ok(path.clone());
    }
    let own = PathBuf::from(env::cargo("CARGO_MANIFEST_DIR")?);
    let beside = [format!("msquic-{PINNED}"), "msquic".to_owned()];
    let found = own.parent().and_then(|parent| {
        let mut candidates = beside.iter().map(|name| parent.join(name));
        candidates.find(|path| path.join("src/inc/msquic.ver").exists())
    });
    found.ok_or_else(|| {
        let why = asked.err().unwrap_or_default();
        format!(
            "cannot find the source of the crate msquic {PINNED}: {why}\n\
             set LIBMSQUIC_SYS_SOURCE to a checkout of msquic, with its submodule quictls"
        )
    })
}

/// Asks cargo for the package's directory, with a manifest that depends on the pinned version only.
///
/// Cargo searches for its configuration, which may replace the source of packages, upwards from the
/// current directory. Try the build's own directory first, then that in which the user called
/// cargo.
fn ask_cargo() -> Result<PathBuf> {
    let directory = env::out_dir()?.join("locate");
    let manifest = format!(
        "[package]\nname = \"locate\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [lib]\npath = \"lib.rs\"\n[dependencies]\n\
         msquic = {{ version = \"={PINNED}\", default-features = false }}\n[workspace]\n"
    );
    env::write_if_changed(&directory.join("Cargo.toml"), manifest.as_bytes())?;
    env::write_if_changed(&directory.join("lib.rs"), b"")?;
    let called_in = std::env::var_os("PWD").map(PathBuf::from);
    let own = PathBuf::from(env::cargo("CARGO_MANIFEST_DIR")?);
    let mut answer = Err(String::new());
    for current in [Some(directory.clone()), called_in, Some(own)].into_iter().flatten() {
        answer = ask_cargo_in(&current, &directory.join("Cargo.toml"));
        if answer.is_ok() {
            break;
        }
    }
    answer
}

fn ask_cargo_in(current: &Path, manifest: &Path) -> Result<PathBuf> {
    let output = Command::new(env::cargo("CARGO")?)
        .current_dir(current)
        .args(["metadata", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        // Packages for other platforms were not downloaded.
        .args(["--filter-platform", &env::cargo("TARGET")?])
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata printed no JSON: {error}"))?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let package = packages.iter().find(|package| package["name"] == "msquic");
    package
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(Path::to_owned)
        .ok_or_else(|| "cargo metadata does not list msquic".to_owned())
}
