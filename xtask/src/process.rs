//! Runs cargo and other programs with the selected libmsquic.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The nightly Rust with miri. A newer miri rejects how parking_lot calls the kernel.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";

/// The workspace, and the libmsquic that its packages link.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    prefix: Option<PathBuf>,
    incremental: bool,
}

impl Workspace {
    pub(crate) fn new(prefix: Option<&Path>) -> Result<Self> {
        let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
        let prefix = prefix
            .map(|prefix| {
                let library = prefix.join("lib");
                ensure!(
                    library.join("libmsquic.so").exists()
                        || library.join("libmsquic.dylib").exists(),
                    "{} contains no libmsquic; create a prefix with `cargo xtask msquic`",
                    library.display()
                );
                prefix.canonicalize().context("cannot resolve the prefix")
            })
            .transpose()?;
        Ok(Self {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            prefix,
            incremental: true,
        })
    }

    /// Builds without the caches of incremental compilation, which are as large as what is built.
    pub(crate) fn without_incremental(mut self) -> Self {
        self.incremental = false;
        self
    }

    /// Whether libmsquic is built from the source in the crate.
    pub(crate) fn is_bundled(&self) -> bool {
        self.prefix.is_none()
    }

    /// Returns a cargo command that does not select a libmsquic.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.clean(Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into())), args)
    }

    /// Returns such a command with [`NIGHTLY`].
    pub(crate) fn nightly<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", NIGHTLY, "cargo"]);
        self.clean(rustup, args)
    }

    /// Prepares another program in the same way.
    pub(crate) fn clean<S: AsRef<OsStr>>(
        &self,
        mut command: Command,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        command.current_dir(&self.root).args(args);
        if !self.incremental {
            command.env("CARGO_INCREMENTAL", "0");
        }
        // Remove cargo's variables about this package: some build scripts (ring's) run again when
        // they change.
        let own =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(own) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Returns a cargo command for packages that link libmsquic.
    pub(crate) fn cargo_linked<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.cargo(args);
        self.choose_library(&mut command);
        command
    }

    /// Selects the libmsquic of a build, here or in another workspace.
    pub(crate) fn choose_library(&self, command: &mut Command) {
        command.env("LIBMSQUIC_SYS_CACHE", self.root.join("target/libmsquic"));
        if let Some(prefix) = &self.prefix {
            command.env("MSQUIC_DIR", prefix);
        }
    }

    /// Returns the features with which packages are built.
    pub(crate) fn features(&self) -> &'static [&'static str] {
        if self.is_bundled() { &[] } else { &["--features", "msquic-async/system"] }
    }

    /// Returns linker flags with the path of the library, for a program that will be copied.
    pub(crate) fn rpath(&self) -> Vec<String> {
        let rpath = |prefix: &PathBuf| {
            ["-C".to_owned(), format!("link-arg=-Wl,-rpath,{}", prefix.join("lib").display())]
        };
        self.prefix.iter().flat_map(rpath).collect()
    }
}

/// Copies a folder recursively.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// Runs a command with its output shown, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "failed: {}", shown(command));
    Ok(())
}

/// Runs a command and returns its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("failed: {}\n{}", shown(command), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the target of this machine.
pub(crate) fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc --version --verbose` names no host")
}

/// Formats a command as it is typed in a shell.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}='{}'", name.to_string_lossy(), value?.to_string_lossy()))
    });
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let program = if program == "xtask" { "cargo xtask".to_owned() } else { program };
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    variables.chain([program]).chain(words).collect::<Vec<_>>().join(" ")
}
