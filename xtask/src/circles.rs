//! Import circles: files of a crate that need each other, found by what they import.
//!
//! A re-export makes a path shorter and is no import: an import counts for the file that defines
//! the item. Tests, and what stands inside macro calls, do not count.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use syn::visit::{self, Visit};

/// A module as the segments of its path below the crate.
type Module = Vec<String>;

/// The circles of the crate with its sources in `folder`, larger than a handle with its future.
pub(crate) fn find(folder: &Path) -> Result<Vec<String>> {
    let mut files = BTreeMap::new();
    read(folder, &[], &mut files)?;
    let imports = files.iter().map(|(module, file)| (module, file.imports(module, &files)));
    let imports: BTreeMap<_, _> = imports.collect();
    let reach: BTreeMap<_, _> =
        imports.keys().map(|module| (*module, reachable(module, &imports))).collect();
    let mut circles = BTreeSet::new();
    for (module, reached) in &reach {
        let circle: BTreeSet<_> =
            reached.iter().filter(|other| reach[*other].contains(*module)).copied().collect();
        let has_future = circle.iter().any(|it| it.last().is_some_and(|name| name == "future"));
        if circle.len() > 2 || circle.len() == 2 && !has_future {
            circles.insert(circle);
        }
    }
    let shown = |circle: BTreeSet<&Module>| {
        let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
        format!("{} files import each other: {}", names.len(), names.join(", "))
    };
    Ok(circles.into_iter().map(shown).collect())
}

/// The modules that a module imports, directly or not.
fn reachable<'a>(
    from: &Module,
    imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
) -> BTreeSet<&'a Module> {
    let (mut reached, mut open) = (BTreeSet::new(), Vec::from_iter(&imports[from]));
    while let Some(module) = open.pop() {
        if reached.insert(*module) {
            open.extend(&imports[module]);
        }
    }
    reached
}

/// Reads the modules in a folder, tests excepted.
fn read(folder: &Path, parent: &[String], files: &mut BTreeMap<Module, File>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let below = [parent, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            read(&path, &below, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let syntax =
                syn::parse_file(&text).with_context(|| format!("cannot parse {path:?}"))?;
            let is_root = ["mod", "lib", "main"].contains(&name.as_str());
            files.insert(if is_root { parent.to_vec() } else { below }, File::new(&syntax));
        }
    }
    let tests: BTreeSet<_> = files.values().flat_map(|file| file.tests.clone()).collect();
    files.retain(|module, _| !module.iter().any(|name| tests.contains(name)));
    Ok(())
}

/// The references of a file to other files.
#[derive(Default)]
struct File {
    /// The paths that it names, as written.
    paths: Vec<Vec<String>>,
    /// Its re-exports: the name, and the path as written.
    exports: BTreeMap<String, Vec<String>>,
    /// Its modules for tests.
    tests: BTreeSet<String>,
}

impl File {
    fn new(syntax: &syn::File) -> Self {
        let mut file = Self::default();
        file.visit_file(syntax);
        file
    }

    fn imports<'a>(
        &self,
        module: &Module,
        files: &'a BTreeMap<Module, Self>,
    ) -> BTreeSet<&'a Module> {
        let mut imports = BTreeSet::new();
        for path in &self.paths {
            let target = absolute(module, path).and_then(|path| resolve(&path, files));
            imports.extend(target.filter(|target| *target != module && !target.is_empty()));
        }
        imports
    }
}

/// A path as segments below the crate; `None` if it leads out of it, or may.
fn absolute(module: &Module, path: &[String]) -> Option<Module> {
    let ups = path.iter().take_while(|segment| *segment == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        _ => Some([module, path].concat()),
    }
}

/// The module that defines what is at `path`, through re-exports.
fn resolve<'a>(path: &[String], files: &'a BTreeMap<Module, File>) -> Option<&'a Module> {
    let mut path = path.to_vec();
    for _ in 0..MAX_EXPORTS {
        let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
        let (module, file) = files.get_key_value(&path[..length])?;
        match path.get(length).and_then(|name| file.exports.get(name)) {
            Some(export) => path = [&absolute(module, export)?, &path[length + 1..]].concat(),
            None => return Some(module),
        }
    }
    None
}

/// A longer chain of re-exports is a circle itself.
const MAX_EXPORTS: usize = 8;

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
        attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}

impl<'ast> Visit<'ast> for File {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            self.tests.insert(item.ident.to_string());
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_for_tests(&item.attrs) {
            return;
        }
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        let mut leaves = Vec::new();
        flatten(&item.tree, &[], &mut leaves);
        for (name, path) in leaves {
            if is_export {
                self.exports.insert(name, path);
            } else {
                self.paths.push(path);
            }
        }
    }

    /// `pub(super)` says who may see an item, and imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        if ["crate", "super"].contains(&segments[0].as_str()) {
            self.paths.push(segments);
        }
        visit::visit_path(self, path);
    }
}

/// The names that a `use` declares, with their paths.
fn flatten(tree: &syn::UseTree, before: &[String], leaves: &mut Vec<(String, Vec<String>)>) {
    let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), leaves),
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before, leaves));
        }
        syn::UseTree::Name(name) => leaves.push((name.ident.to_string(), with(&name.ident))),
        syn::UseTree::Rename(name) => leaves.push((name.rename.to_string(), with(&name.ident))),
        syn::UseTree::Glob(_) => leaves.push(("*".to_owned(), before.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(sources: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in sources {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        find(folder.path()).unwrap()
    }

    #[test]
    fn files_that_import_each_other_are_found_through_exports_and_parents() {
        let two = ["2 files import each other: a, b"];
        assert_eq!(circles(&[("a.rs", "use crate::b::B;"), ("b.rs", "use super::a::A;")]), two);
        assert_eq!(circles(&[("a.rs", "fn f(_: crate::b::B) {}"), ("b.rs", "use crate::a;")]), two);
        let through_export = [
            ("a/mod.rs", "mod c; pub use c::C;"),
            ("a/c.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::C;"),
        ];
        assert_eq!(circles(&through_export), ["2 files import each other: a::c, b"]);
    }

    #[test]
    fn tests_exports_and_futures_make_no_circle() {
        let tested =
            [("a.rs", "use crate::b::B;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }")];
        assert!(circles(&tested).is_empty());
        assert!(
            circles(&[("a/mod.rs", "mod b; pub use b::B;"), ("a/b.rs", "use super::A;")])
                .is_empty()
        );
        let visible = [("a/mod.rs", "use b::B;"), ("a/b.rs", "pub(super) struct B;")];
        assert!(circles(&visible).is_empty());
        let handle = [("a/mod.rs", "use future::F;"), ("a/future.rs", "use super::A;")];
        assert!(circles(&handle).is_empty());
    }
}
