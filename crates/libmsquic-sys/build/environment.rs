//! Environment variables of cargo and the user, and file access.

use crate::Result;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Reads a variable of the user. A change runs the script again.
pub(crate) fn user(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var_os(name).filter(|value| !value.is_empty())
}

pub(crate) fn is_set(name: &str) -> bool {
    user(name).is_some()
}

/// Whether a variable is set to any value except `0`.
pub(crate) fn flag(name: &str) -> bool {
    user(name).is_some_and(|value| value != "0")
}

/// Reads a variable that cargo sets for every build script.
pub(crate) fn cargo(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| format!("cargo did not set {name}"))
}

pub(crate) fn out_dir() -> Result<PathBuf> {
    std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| "cargo did not set OUT_DIR".into())
}

/// Writes a file, keeping its modification time if the content is the same.
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
