//! `tidy`: checks rules that the compiler does not.

use crate::process::{self, Workspace};
use crate::{
    circles, documents, errors, handshakes, links, observed, patches, performance, promises,
};
use anyhow::{Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most lines of a file, including its tests.
const MAX_LINES: usize = 800;

/// The largest hand-written file, in bytes.
const MAX_BYTES: u64 = 512 * 1024;

/// Words that hide who does something. In two parts, so that this file does not have them.
const VAGUE: [&str; 3] = [concat!("who", "ever"), concat!("no", "body"), concat!("some", "body")];

/// The only place for unsafe code.
const UNSAFE_HOME: &str = "crates/msquic-async/src/ffi";

/// The benchmark of bare msquic, which is not part of a library, needs it too.
const UNSAFE_BENCH: &str = "bench/src/contenders/raw.rs";

/// The files whose words are checked; others are for programs.
const TEXTS: [&str; 7] = ["md", "rs", "toml", "yml", "c", "h", "patch"];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let mut files = Vec::new();
    for directory in ["crates", "examples", "xtask", "bench"] {
        collect(&root.join(directory), &mut files)?;
    }
    let mut complaints = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path)?;
        let shown = path.strip_prefix(root).unwrap_or(path);
        complaints.extend(check(shown, &text).map(|what| format!("{}: {what}", shown.display())));
    }
    let tracked = tracked(root)?;
    complaints.extend(spelling(workspace, &tracked)?);
    complaints.extend(links::check(root, &tracked));
    for path in &tracked {
        // The file may be deleted.
        let size = fs::metadata(root.join(path)).map_or(0, |metadata| metadata.len());
        if size > MAX_BYTES {
            complaints.push(format!("{path}: has {size} bytes, more than {MAX_BYTES}"));
        }
        let text = fs::read_to_string(root.join(path)).unwrap_or_default();
        for line in handshakes::in_turn(path, &text) {
            let what = "a peer that stalls delays all later ones: spawn a task for each request";
            complaints.push(format!("{path}:{line}: {what}"));
        }
        let text = text.to_lowercase();
        if let Some(word) = VAGUE.iter().find(|word| text.contains(**word)) {
            complaints.push(format!("{path}: says {word:?}: name who or what it is"));
        }
    }
    for member in fs::read_dir(root.join("crates"))? {
        let member = member?;
        let name = member.file_name().to_string_lossy().into_owned();
        let found = circles::find(&member.path().join("src"))?;
        complaints.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    complaints.extend(documents::check(root)?);
    complaints.extend(performance::check(root)?);
    complaints.extend(promises::check(root, &files)?);
    complaints.extend(observed::check(root, &files)?);
    for result in [patches::check(root), errors::check(root)] {
        complaints.extend(result.err().map(|error| format!("{error:#}")));
    }
    ensure!(complaints.is_empty(), "tidy:\n  {}", complaints.join("\n  "));
    println!("tidy: {} files are in order", files.len());
    Ok(())
}

fn check(path: &Path, text: &str) -> impl Iterator<Item = String> {
    let header = !text.starts_with("//! ");
    let has_unsafe = text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .any(|word| code.trim_start().starts_with(word) || code.contains(&format!(" {word}")))
    });
    let is_home = path.starts_with(UNSAFE_HOME) || path.ends_with(UNSAFE_BENCH);
    let stray_unsafe = has_unsafe && !is_home && !path.ends_with("tidy.rs");
    let lines = text.lines().count();
    let leaves = path.starts_with("crates") && leaves_package(path, text);
    [
        header.then(|| "does not begin with a `//!` line that describes the file".to_owned()),
        stray_unsafe.then(|| format!("has unsafe code, which belongs in {UNSAFE_HOME}")),
        leaves.then(|| "includes a file outside of its package".to_owned()),
        (lines > MAX_LINES).then(|| format!("has {lines} lines, more than {MAX_LINES}")),
    ]
    .into_iter()
    .flatten()
}

/// Whether a file of a package includes one that a registry would not have.
fn leaves_package(path: &Path, text: &str) -> bool {
    let depth = path.components().count().saturating_sub(3); // crates, the package, the file
    let outside = "../".repeat(depth + 1);
    ["include_str!", "include_bytes!"].iter().any(|it| text.contains(&format!("{it}(\"{outside}")))
}

/// Returns the misspelt words.
fn spelling(workspace: &Workspace, tracked: &[String]) -> Result<Vec<String>> {
    let is_text = |path: &&String| {
        let extension = Path::new(path).extension().and_then(|it| it.to_str());
        extension.is_some_and(|extension| TEXTS.contains(&extension))
    };
    let mut command = workspace.cargo(["run", "--quiet", "--package", "spelling", "--"]);
    let found = process::output(command.args(tracked.iter().filter(is_text)))?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Lists the files that git tracks, or would after `git add`; empty without git.
fn tracked(root: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = process::output(&mut list).unwrap_or_default();
    Ok(files.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(Path::new(path), text).count()
    }

    #[test]
    fn each_rule_is_enforced() {
        assert_eq!(complaints("crates/x/src/lib.rs", "//! What it is.\nfn f() {}\n"), 0);
        assert_eq!(complaints("crates/x/src/lib.rs", "fn f() {}\n"), 1);
        let with_unsafe = format!("//! Header.\nfn f() {{ {} {{}} }}\n", "unsafe");
        assert_eq!(complaints("crates/x/src/lib.rs", &with_unsafe), 1);
        assert_eq!(complaints("crates/msquic-async/src/ffi/x.rs", &with_unsafe), 0);
        let include = |path: &str| format!("//! What it is.\ninclude_str!(\"{path}\");\n");
        assert_eq!(complaints("crates/x/src/lib.rs", &include("../README.md")), 0);
        assert_eq!(complaints("crates/x/src/lib.rs", &include("../../x.md")), 1);
        assert_eq!(complaints("x.rs", &format!("//! Long.\n{}", "\n".repeat(MAX_LINES))), 1);
    }
}
