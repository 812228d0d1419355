//! `msquic`: builds an unpatched libmsquic into a prefix, for use by the suites.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

/// The crate and version that this workspace pins.
const PINNED: &str = "msquic@=2.5.1-beta";

/// OpenSSL for a source tree that needs it and does not ship it: the last long-term release.
const OPENSSL: (&str, &str) = ("openssl-src", ">=300.5, <300.6");

/// The source to build, and its options.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// A registry crate with the source, such as seera-msquic@2.6.0-beta3; by default the newest
    /// version
    #[arg(long = "crate", value_name = "NAME[@VERSION]", conflicts_with = "source")]
    package: Option<String>,
    /// A checkout of msquic, with its submodules
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// The TLS library [default: that of the source]
    #[arg(long, value_enum)]
    tls: Option<Tls>,
    /// Build with msquic's own assertions
    #[arg(long)]
    debug: bool,
}

impl Options {
    /// Selects the newest version of a crate.
    pub(crate) fn newest(name: &str) -> Self {
        Self { package: Some(name.to_owned()), ..Self::default() }
    }
}

/// A TLS library that msquic can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tls {
    /// The fork of OpenSSL 3.1 with QUIC functions
    Quictls,
    /// OpenSSL 3.5 or later; libmsquic 2.6 or later
    Openssl,
}

impl Tls {
    fn name(self) -> &'static str {
        match self {
            Self::Quictls => "quictls",
            Self::Openssl => "openssl",
        }
    }
}

/// Builds libmsquic and returns the prefix, named by version, origin, TLS library and profile.
pub(crate) fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let home = workspace.target.join("msquic");
    let (source, origin) = match &options.source {
        Some(path) => {
            let path =
                path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (path, format!("{name}-{:08x}", hasher.finish() as u32))
        }
        None => {
            let (name, version) = split(options.package.as_deref().unwrap_or(PINNED));
            let version =
                version.map_or_else(|| newest(workspace, name), |it| Ok(it.to_owned()))?;
            (locate(workspace, &home, name, &version)?, name.to_owned())
        }
    };
    let version = version(&source)?;
    let tls = options.tls.map_or_else(|| shipped(&source), Ok)?;
    let (profile, build_type) =
        if options.debug { ("debug", "Debug") } else { ("release", "Release") };
    let name = format!("{version}-{origin}-{}-{profile}", tls.name());
    let (prefix, scratch) = (home.join(&name), home.join(format!("build-{name}")));
    let source = with_tls(workspace, &home, source, tls, &name)?;
    forget_other_source(&scratch, &source)?;
    println!(
        "building libmsquic {version} with {} ({profile}) from {}",
        tls.name(),
        source.display()
    );

    let define = |name: &str, value: &str| format!("-D{name}={value}");
    process::run(
        Command::new("cmake")
            .arg("-S")
            .arg(&source)
            .arg("-B")
            .arg(&scratch)
            .arg(define("CMAKE_BUILD_TYPE", build_type))
            .arg(define("CMAKE_INSTALL_PREFIX", &prefix.display().to_string()))
            .arg(define("CMAKE_INSTALL_LIBDIR", "lib"))
            .arg(define("QUIC_OUTPUT_DIR", &prefix.join("lib").display().to_string()))
            .arg(define("QUIC_TLS_LIB", tls.name()))
            .arg(define("QUIC_ENABLE_LOGGING", "off")),
    )?;
    let jobs = available_parallelism().map_or(2, usize::from).to_string();
    process::run(Command::new("cmake").arg("--build").arg(&scratch).args([
        "--target",
        "install",
        "--parallel",
        &jobs,
    ]))?;
    println!("libmsquic {version} is in {}", prefix.display());
    println!("use it with: cargo xtask test --msquic {}", prefix.display());
    Ok(prefix)
}

/// Removes the build of another source tree, which cmake would reject.
fn forget_other_source(scratch: &Path, source: &Path) -> Result<()> {
    let Ok(cache) = fs::read_to_string(scratch.join("CMakeCache.txt")) else { return Ok(()) };
    let home = format!("CMAKE_HOME_DIRECTORY:INTERNAL={}", source.display());
    if !cache.lines().any(|line| line == home) {
        fs::remove_dir_all(scratch)?;
    }
    Ok(())
}

/// `NAME@VERSION`, or `NAME` alone.
fn split(package: &str) -> (&str, Option<&str>) {
    match package.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (package, None),
    }
}

/// Returns the newest version of a crate, including pre-releases, as an exact requirement.
fn newest(workspace: &Workspace, name: &str) -> Result<String> {
    let text = process::output(&mut workspace.cargo(["info", name]))?;
    let version = text.lines().find_map(|line| line.strip_prefix("version: "));
    let version = version.and_then(|version| version.split_whitespace().next());
    Ok(format!("={}", version.with_context(|| format!("cargo found no version of {name}"))?))
}

/// Fetches a crate by a temporary manifest that depends on it, and returns its directory.
fn locate(workspace: &Workspace, home: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let is_exact = version.starts_with(|first: char| first.is_ascii_digit());
    let version = if is_exact { format!("={version}") } else { version.to_owned() };
    let directory = home.join("locate").join(name);
    fs::create_dir_all(&directory)?;
    let manifest = directory.join("Cargo.toml");
    fs::write(
        &manifest,
        format!(
            "[package]\nname = \"locate\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n\
             [dependencies]\n{name} = {{ version = \"{version}\", default-features = false }}\n[workspace]\n"
        ),
    )?;
    fs::write(directory.join("lib.rs"), "")?;
    let mut fetch = workspace.cargo(["update", "--manifest-path"]);
    process::run(fetch.arg(&manifest))?;
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(&manifest).exec()?;
    let found = metadata.packages.iter().find(|package| package.name.as_str() == name);
    let manifest = &found.with_context(|| format!("cargo did not find {name}"))?.manifest_path;
    Ok(manifest.parent().context("the crate has no directory")?.into())
}

/// Reads the version from the headers of a source tree.
fn version(source: &Path) -> Result<String> {
    let path = source.join("src/inc/msquic.ver");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} is not a source tree of msquic", source.display()))?;
    let number = |name: &str| {
        let define = format!("#define {name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&define));
        line.map(str::trim).with_context(|| format!("{} does not define {name}", path.display()))
    };
    Ok([number("VER_MAJOR")?, number("VER_MINOR")?, number("VER_PATCH")?].join("."))
}

fn submodule(source: &Path, tls: Tls) -> PathBuf {
    source.join("submodules").join(tls.name())
}

/// Returns the TLS library that comes with a source tree.
fn shipped(source: &Path) -> Result<Tls> {
    let has = |tls: &Tls| submodule(source, *tls).join("Configure").exists();
    let found = [Tls::Quictls, Tls::Openssl].into_iter().find(has);
    found.with_context(|| {
        format!(
            "{} lacks its TLS library (git submodule update --init --recursive, or --tls openssl)",
            source.display()
        )
    })
}

/// Returns the source tree, or a copy of it with OpenSSL added.
fn with_tls(
    workspace: &Workspace,
    home: &Path,
    source: PathBuf,
    tls: Tls,
    name: &str,
) -> Result<PathBuf> {
    if submodule(&source, tls).join("Configure").exists() {
        return Ok(source);
    }
    ensure!(tls == Tls::Openssl, "{} does not ship quictls", source.display());
    let openssl = locate(workspace, home, OPENSSL.0, OPENSSL.1)?.join("openssl");
    let copy = home.join(format!("source-{name}"));
    if !submodule(&copy, tls).join("Configure").exists() {
        let _ = fs::remove_dir_all(&copy);
        process::copy_folder(&source, &copy)?;
        process::copy_folder(&openssl, &submodule(&copy, tls))?;
    }
    Ok(copy)
}
