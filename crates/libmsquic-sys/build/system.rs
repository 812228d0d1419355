//! Finds an installed libmsquic: the prefix in `MSQUIC_DIR`, or that of pkg-config.

use crate::environment::{self as env, failed};
use crate::{Result, write_linkage};
use std::fs;
use std::path::{Path, PathBuf};

/// The oldest release whose table has all functions that msquic-async uses.
const OLDEST: (u32, u32, u32) = (2, 5, 0);

pub(crate) fn link() -> Result<()> {
    write_linkage("System", &[])?;
    let Some(prefix) = env::user("MSQUIC_DIR").map(PathBuf::from) else {
        return by_pkg_config();
    };
    let folders = ["lib", "lib64", "bin"].map(|name| prefix.join(name));
    let names = ["libmsquic.so.2", "libmsquic.so", "libmsquic.2.dylib", "libmsquic.dylib"];
    let candidates = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    let library = candidates.into_iter().find(|path| path.exists()).ok_or_else(|| {
        format!("MSQUIC_DIR={} contains no libmsquic in lib, lib64 or bin", prefix.display())
    })?;
    let library = library.canonicalize().map_err(|error| failed("resolve", &library, &error))?;
    check(&library)?;
    println!("cargo::rerun-if-changed={}", library.display());

    // Cargo adds folders below OUT_DIR to the library path of the programs that it runs.
    let folder = env::out_dir()?.join("system");
    fs::create_dir_all(&folder).map_err(|error| failed("create", &folder, &error))?;
    let is_darwin = library.extension().is_some_and(|extension| extension == "dylib");
    let links = if is_darwin {
        ["libmsquic.dylib", "libmsquic.2.dylib"]
    } else {
        ["libmsquic.so", "libmsquic.so.2"]
    };
    for name in links {
        let link = folder.join(name);
        let _ = fs::remove_file(&link);
        symlink(&library, &link).map_err(|error| failed("link", &link, &error))?;
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=dylib=msquic");
    let lib = library.parent().unwrap_or(&prefix);
    println!("cargo::metadata=lib={}", lib.display());
    Ok(())
}

fn by_pkg_config() -> Result<()> {
    let oldest = format!("{}.{}.{}", OLDEST.0, OLDEST.1, OLDEST.2);
    let mut config = pkg_config::Config::new();
    config.atleast_version(&oldest);
    let found = config.probe("msquic").or_else(|_| config.probe("libmsquic"));
    found.map(|_| ()).map_err(|error| {
        format!("set MSQUIC_DIR to the prefix of a libmsquic of {oldest} or later; pkg-config says: {error}")
    })
}

/// The full name ends in the version. Without a version, the library is checked at run time.
fn check(library: &Path) -> Result<()> {
    let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let numbers = name.trim_start_matches("libmsquic.").trim_start_matches("so.");
    let numbers: Vec<u32> = numbers.split('.').map_while(|number| number.parse().ok()).collect();
    let [major, minor, patch] = numbers[..] else { return Ok(()) };
    if (major, minor, patch) < OLDEST || major != OLDEST.0 {
        return Err(format!(
            "{} is version {major}.{minor}.{patch}; this needs {}.{}.{} or a later 2.x",
            library.display(),
            OLDEST.0,
            OLDEST.1,
            OLDEST.2
        ));
    }
    Ok(())
}

#[cfg(unix)]
use std::os::unix::fs::symlink;

#[cfg(not(unix))]
fn symlink(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to).map(|_| ())
}
