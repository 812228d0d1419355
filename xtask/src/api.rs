//! `api`: the public interface of each library, compared with its reviewed snapshot; each of its
//! items has one path.
//!
//! The JSON format of rustdoc is unstable; it is that of the compiler in `rust-toolchain.toml`.
//! `RUSTC_BOOTSTRAP` enables it, with a separate target directory, because build scripts run again
//! when that variable changes.

use crate::package::NOT_PACKED;
use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Directory of the snapshots.
const SNAPSHOTS: &str = "docs/api";

/// Shows how the libraries differ from their snapshots, and fails if they do. With `write`, updates
/// the snapshots.
pub(crate) fn run(workspace: &Workspace, write: bool) -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    let libraries = metadata.packages.iter().filter(|it| is_public(&workspace.root, it));
    let folder = workspace.root.join(SNAPSHOTS);
    let mut differs = false;
    for library in libraries {
        // rustdoc compiles the dependencies at first, without output.
        println!("api: {}", library.name);
        let now = interface(workspace, &library.name)?;
        let snapshot = folder.join(format!("{}.txt", library.name));
        if write {
            fs::create_dir_all(&folder)?;
            fs::write(&snapshot, now)?;
            continue;
        }
        let reviewed = fs::read_to_string(&snapshot).unwrap_or_default();
        let changes = changes(&reviewed, &now);
        differs |= !changes.is_empty();
        changes.iter().for_each(|change| println!("{change}"));
    }
    ensure!(!differs, "public interfaces changed: review, then `cargo xtask api --write`");
    println!("api: the snapshots in {SNAPSHOTS} are {}", if write { "written" } else { "current" });
    Ok(())
}

/// Whether a package is meant for other projects.
fn is_public(root: &Path, package: &cargo_metadata::Package) -> bool {
    let is_library = package.targets.iter().any(cargo_metadata::Target::is_lib);
    is_library
        && !NOT_PACKED.contains(&package.name.as_str())
        && package.manifest_path.starts_with(root.join("crates"))
}

/// Lists the public items of a library with all its features, one per line.
fn interface(workspace: &Workspace, name: &str) -> Result<String> {
    let target = workspace.target.join("api");
    let mut rustdoc = workspace.cargo_linked(["rustdoc", "--quiet", "--lib", "--all-features"]);
    rustdoc.args(["--package", name, "--", "-Z", "unstable-options", "--output-format", "json"]);
    rustdoc.env("CARGO_TARGET_DIR", &target).env("RUSTC_BOOTSTRAP", "1");
    rustdoc.env("LIBMSQUIC_SYS_NO_BUILD", "1");
    process::output(&mut rustdoc)?;
    let json = target.join("doc").join(name.replace('-', "_")).with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("cannot read the interface of {name}"))?;
    let repeated = repeated(api.items().map(|it| (it.id(), it.to_string())));
    ensure!(
        repeated.is_empty(),
        "{name}: an item has one public path; make a module private or remove a `pub use`:\n  {}",
        repeated.join("\n  ")
    );
    Ok(api.to_string())
}

/// Returns the items that are listed more than once, with their paths.
fn repeated<I: Ord>(items: impl Iterator<Item = (I, String)>) -> Vec<String> {
    let mut listed = BTreeMap::<I, BTreeSet<String>>::new();
    for (id, text) in items.filter(|(_, text)| is_of_module(text)) {
        listed.entry(id).or_default().insert(text);
    }
    let several = listed.into_values().filter(|paths| paths.len() > 1);
    several.map(|paths| paths.into_iter().collect::<Vec<_>>().join(", ")).collect()
}

/// Whether the item belongs to a module, and not to an `impl` or a type.
fn is_of_module(item: &str) -> bool {
    let path = item.split_whitespace().find(|word| word.contains("::")).unwrap_or_default();
    let path = path.split(['<', '(']).next().unwrap_or_default().trim_end_matches(':');
    let module = path.rsplit_once("::").map_or("", |(module, _)| module);
    !item.starts_with("impl") && !module.contains(char::is_uppercase)
}

/// Returns the lines that are in one text only.
fn changes(before: &str, after: &str) -> Vec<String> {
    let [before, after] = [before, after].map(|text| text.lines().collect::<BTreeSet<_>>());
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    let new = after.difference(&before).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_the_removed_and_added_lines() {
        assert_eq!(changes("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(changes("a\nb\n", "b\na\n").is_empty());
    }

    #[test]
    fn an_item_has_one_path() {
        let items = |texts: [(u32, &str); 3]| {
            repeated(texts.into_iter().map(|(id, text)| (id, text.to_owned())))
        };
        let two = [(1, "pub struct a::A"), (2, "pub struct a::B"), (1, "pub struct a::b::A")];
        assert_eq!(items(two), ["pub struct a::A, pub struct a::b::A"]);
        let impls = [(1, "impl a::A"), (2, "pub fn a::A::f()"), (2, "pub fn a::b::A::f()")];
        assert!(items(impls).is_empty());
    }
}
