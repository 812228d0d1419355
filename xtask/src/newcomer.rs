//! `readme`: the program of README.md does what README.md says, in a project of its own.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Makes a project as a newcomer would, with what README.md shows, and compares what the program prints.
///
/// The project uses the target directory of the workspace, and its `Cargo.lock`, so that libmsquic is not built again.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join("README.md"))?;
    let sample = Sample::read(&text)?;
    // Outside of the workspace, or cargo would take the project for a part of it.
    let elsewhere = tempfile::tempdir().context("cannot make a directory for the project")?;
    let project = elsewhere.path().join("newcomer");
    let new = ["new", "--quiet", "--vcs", "none"];
    process::run(workspace.cargo(new).arg(&project).current_dir(elsewhere.path()))?;

    let manifest = project.join("Cargo.toml");
    let fresh = fs::read_to_string(&manifest)?;
    fs::write(manifest, sample.manifest(&fresh, &workspace.root)?)?;
    fs::write(project.join("src").join("main.rs"), sample.program)?;
    fs::copy(workspace.root.join("Cargo.lock"), project.join("Cargo.lock"))?;

    let mut command = workspace.cargo_linked(["run", "--quiet"]);
    command.current_dir(&project).env("CARGO_TARGET_DIR", &workspace.target);
    let output = process::output(&mut command)?;
    ensure!(
        output.trim() == sample.output.trim(),
        "README.md shows another output than the program has:\n{output}"
    );
    println!("readme: the program compiles in a fresh project and prints what README.md shows");
    Ok(())
}

/// What README.md shows below [`HEADING`].
#[derive(Debug, PartialEq, Eq)]
struct Sample<'a> {
    dependencies: &'a str,
    program: &'a str,
    output: &'a str,
}

impl<'a> Sample<'a> {
    fn read(readme: &'a str) -> Result<Self> {
        let (_, section) = readme
            .split_once(HEADING)
            .with_context(|| format!("README.md has no section {HEADING:?}"))?;
        Ok(Self {
            dependencies: block(section, "toml")?,
            program: block(section, "rust")?,
            output: block(section, "text")?,
        })
    }

    /// The manifest of a fresh project with the dependencies that are shown, and the paths of this checkout.
    fn manifest(&self, fresh: &str, root: &Path) -> Result<String> {
        let root = root.display().to_string().replace('\\', "/");
        let dependencies = self.dependencies.replace(SHOWN_CHECKOUT, &root);
        ensure!(dependencies != self.dependencies, "no path begins with {SHOWN_CHECKOUT}");
        let package = fresh
            .trim_end()
            .strip_suffix("[dependencies]")
            .context("the manifest of a fresh project does not end with [dependencies]")?;
        Ok(format!("{package}{dependencies}"))
    }
}

/// The content of the first fenced block in a language.
fn block<'a>(text: &'a str, language: &str) -> Result<&'a str> {
    let (_, rest) = text
        .split_once(&format!("\n```{language}\n"))
        .with_context(|| format!("README.md has no block ```{language} below {HEADING:?}"))?;
    let (content, _) = rest.split_once("```").context("a block of README.md has no end")?;
    Ok(content)
}

/// Where the program stands.
const HEADING: &str = "\n## Use it\n";

/// The checkout in the paths that are shown.
const SHOWN_CHECKOUT: &str = "../msquic";

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "# Title\n```text\nno\n```\n## Use it\n\n```toml\n[dependencies]\na = { path = \
        \"../msquic/a\" }\n```\n```rust\nfn main() {}\n```\nprints\n```text\nhello\n```\n";

    #[test]
    fn the_blocks_below_the_heading_are_found() {
        let sample = Sample::read(README).unwrap();
        assert_eq!(sample.program, "fn main() {}\n");
        assert_eq!(sample.output, "hello\n");
        assert!(Sample::read(&README.replace("```rust", "```rust,ignore")).is_err());
        assert!(Sample::read(&README.replace("## Use it", "## Else")).is_err());
    }

    #[test]
    fn paths_become_those_of_the_checkout() {
        let sample = Sample::read(README).unwrap();
        let manifest = sample.manifest("[package]\n\n[dependencies]\n", Path::new("/work"));
        assert_eq!(manifest.unwrap(), "[package]\n\n[dependencies]\na = { path = \"/work/a\" }\n");
        assert!(sample.manifest("[package]\n", Path::new("/work")).is_err());
    }
}
