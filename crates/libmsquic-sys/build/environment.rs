//! What cargo and the user tell a build script, and files.

use crate::Result;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A variable of the user's. Another value runs the script again.
pub(crate) fn user(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var_os(name).filter(|value| !value.is_empty())
}

pub(crate) fn is_set(name: &str) -> bool {
    user(name).is_some()
}

/// A variable that is switched on by any value but `0`.
pub(crate) fn flag(name: &str) -> bool {
    user(name).is_some_and(|value| value != "0")
}

/// A variable that cargo sets for every build script.
pub(crate) fn cargo(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| format!("cargo did not set {name}"))
}

pub(crate) fn out_dir() -> Result<PathBuf> {
    std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| "cargo did not set OUT_DIR".into())
}

/// Keeps the time of a file that would not change.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("create", parent, &error))?;
    }
    fs::write(path, bytes).map_err(|error| failed("write", path, &error))
}

pub(crate) fn failed(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
