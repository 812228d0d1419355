//! `package`: packs the libraries as for a registry, and builds a program from the packages only.
//!
//! Some packages are marked `publish = false`, because the public registry has another project's
//! package of the same name, to which cargo would resolve the dependency. They are packed from a
//! copy of the workspace without the mark. The program gets them and all their dependencies from a
//! directory registry (source replacement).

use crate::process::{self, Workspace};
use crate::readme;
use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages that are not meant for other projects.
pub(crate) const NOT_PACKED: [&str; 11] = [
    "attack-bench",
    "bench-report",
    "examples",
    "net-relay",
    "netmsg",
    "quic-attack",
    "simulate",
    "soak",
    "spelling",
    "transport-bench",
    "xtask",
];

/// The mark of packages that must not be published.
const MARK: &str = "publish = false";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let scratch = workspace.target.join("packed");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot empty {scratch:?}"))?;
    }
    let copy = scratch.join("workspace");
    copy_workspace(&workspace.root, &copy)?;
    let packages = pack(workspace, &copy)?;

    let registry = scratch.join("registry");
    let mut vendor = workspace.cargo(["vendor", "--quiet", "--locked", "--versioned-dirs"]);
    process::output(vendor.arg(&registry).current_dir(&copy))?;
    for package in &packages {
        add(package, &registry)?;
    }
    readme::build_from_registry(workspace, &registry, |lock| {
        packages.iter().filter(|it| it.is_marked).try_for_each(|it| it.check(lock))
    })?;
    println!("package: {} packages serve a program without this workspace", packages.len());
    Ok(())
}

/// Copies the files that git tracks, and follows links.
fn copy_workspace(root: &Path, copy: &Path) -> Result<()> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    for path in process::output(&mut list)?.split('\0').filter(|path| !path.is_empty()) {
        let (from, to) = (root.join(path), copy.join(path));
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(copy))?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {path}"))?;
        }
    }
    Ok(())
}

/// A package in the form of a registry.
struct Package {
    name: String,
    version: String,
    file: PathBuf,
    checksum: String,
    /// Whether it must not be published.
    is_marked: bool,
}

/// Packs the libraries of the copy.
fn pack(workspace: &Workspace, copy: &Path) -> Result<Vec<Package>> {
    let manifest = copy.join("Cargo.toml");
    let mut metadata = cargo_metadata::MetadataCommand::new();
    let metadata = metadata.manifest_path(&manifest).no_deps().exec()?;
    let libraries = metadata.packages.iter().filter(|it| !NOT_PACKED.contains(&it.name.as_str()));
    let mut marked = Vec::new();
    for library in libraries.clone() {
        let text = fs::read_to_string(&library.manifest_path)?;
        if text.contains(MARK) {
            marked.push(library.name.to_string());
            fs::write(&library.manifest_path, text.replace(MARK, ""))?;
        }
    }
    let target = copy.join("target");
    let mut package = workspace.cargo(["package", "--quiet", "--workspace", "--no-verify"]);
    package.args(NOT_PACKED.iter().flat_map(|name| ["--exclude", name]));
    package.current_dir(copy).env("CARGO_TARGET_DIR", &target);
    process::output(&mut package)?;
    libraries
        .map(|library| {
            let (name, version) = (library.name.to_string(), library.version.to_string());
            let file = target.join("package").join(format!("{name}-{version}.crate"));
            let bytes = fs::read(&file).with_context(|| format!("{name} was not packed"))?;
            let checksum = HEXLOWER.encode(&Sha256::digest(bytes));
            let is_marked = marked.contains(&name);
            Ok(Package { name, version, file, checksum, is_marked })
        })
        .collect()
}

/// Unpacks a package into a directory registry, in place of another project's of that name.
fn add(package: &Package, registry: &Path) -> Result<()> {
    let Package { name, version, file, checksum, .. } = package;
    let folder = registry.join(format!("{name}-{version}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    process::run(Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(registry))?;
    for needed in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        ensure!(folder.join(needed).is_file(), "the package {name} has no {needed}");
    }
    let checksums = format!("{{\"files\":{{}},\"package\":\"{checksum}\"}}");
    Ok(fs::write(folder.join(".cargo-checksum.json"), checksums)?)
}

impl Package {
    /// Whether a `Cargo.lock` names this package, and not another one of its name.
    fn check(&self, lock: &str) -> Result<()> {
        let Self { name, checksum, .. } = self;
        let entry = lock
            .split("[[package]]")
            .find(|entry| entry.contains(&format!("\nname = \"{name}\"\n")))
            .with_context(|| format!("the program does not use {name}"))?;
        let is_ours = entry.contains(&format!("\nchecksum = \"{checksum}\"\n"));
        ensure!(is_ours, "the program uses another {name} than this workspace's:{entry}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_package_of_the_same_name_is_detected() {
        let package = Package {
            name: "ours".to_owned(),
            version: "0.1.0".to_owned(),
            file: PathBuf::new(),
            checksum: "ab".to_owned(),
            is_marked: true,
        };
        let lock = |name: &str, checksum: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\nchecksum = \"{checksum}\"\n")
        };
        package.check(&(lock("a", "cd") + &lock("ours", "ab"))).unwrap();
        assert!(package.check(&(lock("a", "ab") + &lock("ours", "cd"))).is_err());
        assert!(package.check(&lock("a", "ab")).is_err());
    }
}
