//! The vendored build: patched source, TLS library, one object file with two visible symbols.

use crate::environment::{self as env, failed};
use crate::library::{self, Library};
use crate::patch::{self, Edit, Patch, Verdict, sha256};
use crate::source::{self, Source};
use crate::tls;
use crate::{Result, write_linkage};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The compiled folders, relative to the root of the source.
const FOLDERS: [&str; 3] = ["src/core", "src/inc", "src/platform"];

/// The files of a source tree, patched, by their path.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

pub(crate) fn link() -> Result<()> {
    println!("cargo::rerun-if-changed=patches");
    let source = source::find()?;
    println!("cargo::rerun-if-changed={}", source.root.join("src").display());
    let (tree, patches) = patched(&source)?;
    write_linkage("Vendored", &patches.iter().map(entry).collect::<Vec<_>>())?;

    let out = env::out_dir()?.join("lib");
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=msquic");
    println!("cargo::metadata=lib={}", out.display());
    for framework in library::frameworks()? {
        println!("cargo::rustc-link-lib=framework={framework}");
    }
    if only_checks() {
        // This file never exists, so cargo runs the script again, and the next full build sees all
        // changes.
        println!("cargo::rerun-if-changed={}", out.with_file_name("never").display());
        return Ok(());
    }
    let tls = tls::Tls::plan(&source)?;
    let library = Library::plan(tree, tls)?;
    reuse_or_build(&out, &library)
}

/// Applies the patches, and returns the applied ones.
fn patched(source: &Source) -> Result<(Tree, Vec<Patch>)> {
    let mut tree = read_tree(&source.root)?;
    let without = env::user("LIBMSQUIC_SYS_WITHOUT").unwrap_or_default();
    let without = without.to_string_lossy().into_owned();
    let is_left_out = |fault: &str| without.split(',').any(|name| name == fault || name == "all");
    let mut edits: BTreeMap<String, Vec<Edit>> = BTreeMap::new();
    let mut applied = Vec::new();
    let text = |path: &str| tree.get(path).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
    for patch in read_patches(&PathBuf::from(env::cargo("CARGO_MANIFEST_DIR")?).join("patches"))? {
        if is_left_out(patch.key("fault")) {
            println!("cargo::warning=libmsquic is built without patch {}", patch.key("fault"));
            continue;
        }
        if patch.judge(source.version, text)? == Verdict::Applies {
            for file in &patch.files {
                edits.entry(file.path.clone()).or_default().extend_from_slice(&file.edits);
            }
            applied.push(patch);
        }
    }
    for (path, edits) in edits {
        let old = tree.get(&path).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let new = patch::apply(&old.unwrap_or_default(), &edits)
            .map_err(|why| format!("the patches of {path}: {why}"))?;
        tree.insert(path, new.into_bytes());
    }
    Ok((tree, applied))
}

/// Returns all patches, ordered by name.
fn read_patches(folder: &Path) -> Result<Vec<Patch>> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .map_err(|error| failed("read", folder, &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
        Patch::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn read_tree(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    for folder in FOLDERS {
        let path = root.join(folder);
        for entry in fs::read_dir(&path).map_err(|error| failed("read", &path, &error))? {
            let file = entry.map_err(|error| failed("read", &path, &error))?.path();
            let name = file.file_name().and_then(|name| name.to_str());
            let is_code = |name: &&str| [".c", ".h", ".ver"].iter().any(|end| name.ends_with(end));
            if let Some(name) = name.filter(is_code) {
                let bytes = fs::read(&file).map_err(|error| failed("read", &file, &error))?;
                tree.insert(format!("{folder}/{name}"), bytes);
            }
        }
    }
    Ok(tree)
}

/// Formats an entry of the crate's list of patches.
fn entry(patch: &Patch) -> String {
    let [fault, title, issue] = ["fault", "title", "issue"].map(|name| patch.key(name));
    format!("    Patch {{ fault: {fault:?}, title: {title:?}, issue: {issue:?} }},\n")
}

/// Uses the library in the cache `LIBMSQUIC_SYS_CACHE` if it matches; otherwise builds it and adds
/// it to the cache.
///
/// The script does not run again for this variable, which does not affect the result.
fn reuse_or_build(out: &Path, library: &Library) -> Result<()> {
    let key = library.key();
    let stamp = out.join("key");
    if fs::read_to_string(&stamp).is_ok_and(|built| built == key) {
        return Ok(());
    }
    let cached = std::env::var_os("LIBMSQUIC_SYS_CACHE").map(|root| PathBuf::from(root).join(&key));
    let _ = fs::remove_file(&stamp); // a partial result must not be used
    match &cached {
        Some(cached) if cached.join("key").exists() => {
            let _ = fs::remove_dir_all(out);
            copy_files(cached, out)?;
        }
        _ => {
            library.build(out)?;
            if let Some(cached) = &cached {
                publish(out, cached, &key);
            }
        }
    }
    env::write_if_changed(&stamp, key.as_bytes())
}

/// Adds a result to the cache atomically, so that no other build sees a partial result. A failure
/// is only a warning.
pub(crate) fn publish(from: &Path, to: &Path, key: &str) {
    // Process ids repeat where several systems share the cache.
    let own = env::out_dir().map(|out| sha256(out.to_string_lossy().as_bytes()));
    let partial = to.with_extension(format!("{}.partial", &own.unwrap_or_default()));
    let copied = copy_files(from, &partial)
        .and_then(|()| env::write_if_changed(&partial.join("key"), key.as_bytes()));
    if let Err(why) = &copied {
        println!("cargo::warning=the cache of libmsquic was not filled: {why}");
    }
    if copied.is_err() || fs::rename(&partial, to).is_err() {
        let _ = fs::remove_dir_all(&partial); // another build added it first
    }
}

/// Copies a folder recursively.
pub(crate) fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|error| failed("create", to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| failed("read", from, &error))? {
        let entry = entry.map_err(|error| failed("read", from, &error))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_files(&from, &to)?;
        } else {
            fs::copy(&from, &to).map_err(|error| failed("copy", &from, &error))?;
        }
    }
    Ok(())
}

/// Whether cargo runs `check`, `clippy` or `doc`, which do not link. If this cannot be detected,
/// the library is built.
fn only_checks() -> bool {
    #[cfg(target_os = "linux")]
    {
        let parent = std::os::unix::process::parent_id();
        let line = fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0).skip(1);
        let subcommand = words.find(|word| !word.starts_with(b"+") && !word.starts_with(b"-"));
        matches!(subcommand, Some(b"check" | b"clippy" | b"doc"))
    }
    #[cfg(not(target_os = "linux"))]
    false
}
