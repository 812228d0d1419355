//! `readme`: builds and runs the program of README.md in a new project.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Creates a project from README.md and compares the output of the program.
///
/// The project uses the target directory of the workspace, and its `Cargo.lock`, so that libmsquic
/// is not built again.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let project = Project::new(workspace)?;
    let mut command = workspace.cargo_linked(["run", "--quiet"]);
    command.current_dir(&project.folder).env("CARGO_TARGET_DIR", &workspace.target);
    project.compare(&process::output(&mut command)?)?;
    println!("readme: the program compiles in a new project and prints the output in README.md");
    Ok(())
}

/// Builds the project in release mode without this workspace's cache, and runs a copy of the
/// program with an empty environment. Repeats that with the crate `openssl`, which links another
/// OpenSSL.
pub(crate) fn self_contained(workspace: &Workspace) -> Result<()> {
    let project = Project::new(workspace)?;
    project.build_and_run_elsewhere(workspace)?;
    println!("self-contained: a copied release program runs with an empty environment");
    project.link_another_openssl()?;
    project.build_and_run_elsewhere(workspace)?;
    println!("self-contained: so does a program that links another OpenSSL");
    Ok(())
}

/// Builds the same project from the packages in a directory registry, offline, and shows its
/// `Cargo.lock` to `check`.
pub(crate) fn build_from_registry(
    workspace: &Workspace,
    registry: &Path,
    check: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let project = Project::new(workspace)?;
    let manifest = project.folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let packed = text.lines().map(|line| {
        let dependency = line.split_once("path = \"");
        dependency.map_or(format!("{line}\n"), |(before, path)| {
            let rest = path.split_once('"').map_or("", |(_, rest)| rest);
            format!("{before}version = \"{}\"{rest}\n", env!("CARGO_PKG_VERSION"))
        })
    });
    fs::write(&manifest, packed.collect::<String>())?;
    fs::create_dir(project.folder.join(".cargo"))?;
    let registry = registry.display().to_string().replace('\\', "/");
    let config = format!(
        "[source.crates-io]\nreplace-with = \"packed\"\n[source.packed]\ndirectory = \"{registry}\"\n"
    );
    fs::write(project.folder.join(".cargo").join("config.toml"), config)?;
    let mut command = workspace.cargo_linked(["run", "--quiet", "--offline"]);
    command.current_dir(&project.folder);
    command.env("CARGO_TARGET_DIR", workspace.target.join("packed").join("target"));
    project.compare(&process::output(&mut command)?)?;
    check(&fs::read_to_string(project.folder.join("Cargo.lock"))?)
}

/// A project with the program of README.md, outside of the workspace, so that cargo does not add it
/// to that.
struct Project {
    elsewhere: tempfile::TempDir,
    folder: PathBuf,
    output: String,
}

impl Project {
    fn new(workspace: &Workspace) -> Result<Self> {
        let text = fs::read_to_string(workspace.root.join("README.md"))?;
        let sample = Sample::read(&text)?;
        let elsewhere = tempfile::tempdir().context("cannot create a directory for the project")?;
        let folder = elsewhere.path().join(NAME);
        let new = ["new", "--quiet", "--vcs", "none"];
        process::run(workspace.cargo(new).arg(&folder).current_dir(elsewhere.path()))?;
        let manifest = folder.join("Cargo.toml");
        let fresh = fs::read_to_string(&manifest)?;
        fs::write(manifest, sample.manifest(&fresh, &workspace.root)?)?;
        fs::write(folder.join("src").join("main.rs"), sample.program)?;
        fs::copy(workspace.root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
        Ok(Self { elsewhere, folder, output: sample.output.to_owned() })
    }

    /// Uses the project's own target directory and C build.
    fn build_and_run_elsewhere(&self, workspace: &Workspace) -> Result<()> {
        let target = workspace.target.join("foreign");
        let mut build = workspace.cargo(["build", "--quiet", "--release"]);
        build.current_dir(&self.folder).env("CARGO_TARGET_DIR", &target);
        process::run(build.env_remove("LIBMSQUIC_SYS_CACHE"))?;
        let copy = self.elsewhere.path().join("copy");
        fs::copy(target.join("release").join(NAME), &copy).context("cannot copy the program")?;
        self.compare(&process::output(Command::new(copy).env_clear())?)
    }

    /// Adds the crate `openssl` with its own library, and a reference that keeps it in the program.
    fn link_another_openssl(&self) -> Result<()> {
        let append = |path: &str, text: &str| -> Result<()> {
            let path = self.folder.join(path);
            let old = fs::read_to_string(&path)?;
            Ok(fs::write(path, old + text)?)
        };
        append("Cargo.toml", "openssl = { version = \"0.10\", features = [\"vendored\"] }\n")?;
        append(
            "src/main.rs",
            "\n#[used]\nstatic HASH: fn(&[u8]) -> [u8; 32] = openssl::sha::sha256;\n#[used]\n\
             static TLS: fn() -> openssl::ssl::SslMethod = openssl::ssl::SslMethod::tls;\n",
        )
    }

    fn compare(&self, output: &str) -> Result<()> {
        ensure!(
            output.trim() == self.output.trim(),
            "the output of the program differs from README.md:\n{output}"
        );
        Ok(())
    }
}

/// The name of the project.
const NAME: &str = "readme-program";

/// The code blocks of README.md below [`HEADING`].
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

    /// Returns the manifest of a new project with the dependencies of README.md and the paths of
    /// this checkout.
    fn manifest(&self, fresh: &str, root: &Path) -> Result<String> {
        let root = root.display().to_string().replace('\\', "/");
        let dependencies = self.dependencies.replace(SHOWN_CHECKOUT, &root);
        ensure!(dependencies != self.dependencies, "no path begins with {SHOWN_CHECKOUT}");
        let package = fresh
            .trim_end()
            .strip_suffix("[dependencies]")
            .context("the manifest of a new project does not end with [dependencies]")?;
        Ok(format!("{package}{dependencies}"))
    }
}

/// Returns the content of the first fenced block in a language.
fn block<'a>(text: &'a str, language: &str) -> Result<&'a str> {
    let (_, rest) = text
        .split_once(&format!("\n```{language}\n"))
        .with_context(|| format!("README.md has no block ```{language} below {HEADING:?}"))?;
    let (content, _) = rest.split_once("```").context("a block of README.md has no end")?;
    Ok(content)
}

/// The section with the program.
const HEADING: &str = "\n## Use it\n";

/// The checkout in the paths of README.md.
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
    fn paths_are_replaced_by_those_of_the_checkout() {
        let sample = Sample::read(README).unwrap();
        let manifest = sample.manifest("[package]\n\n[dependencies]\n", Path::new("/checkout"));
        assert_eq!(
            manifest.unwrap(),
            "[package]\n\n[dependencies]\na = { path = \"/checkout/a\" }\n"
        );
        assert!(sample.manifest("[package]\n", Path::new("/checkout")).is_err());
    }
}
