//! `setup`: installs the tools that builds and tests need. Other commands only check that they exist.

use crate::{msrv, process, races};
use anyhow::{Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// The oldest cmake that msquic supports.
const CMAKE: (u32, u32) = (3, 20);

/// The libmsquic to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// The patched libmsquic, by cargo.
    Vendored,
    /// Another libmsquic, by cmake.
    Prefix,
}

/// What a tool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Every build of libmsquic.
    Build,
    /// cmake, for [`Build::Prefix`].
    Prefix,
    /// A test, which is skipped without it.
    Test,
}

/// A tool or library that a build or a test needs.
struct Need {
    what: &'static str,
    purpose: Purpose,
    found: fn() -> bool,
    /// Packages of apt, dnf, pacman and brew; empty if the system includes it.
    packages: [&'static [&'static str]; 4],
}

const NEEDS: &[Need] = &[
    Need {
        what: "cmake 3.20 or newer",
        purpose: Purpose::Prefix,
        found: has_cmake,
        packages: [&["cmake"], &["cmake"], &["cmake"], &["cmake"]],
    },
    Need {
        what: "a C compiler",
        purpose: Purpose::Build,
        found: || runs("cc", &["--version"]),
        packages: [&["gcc", "libc6-dev"], &["gcc"], &["gcc"], &[]],
    },
    Need {
        what: "a C++ compiler",
        purpose: Purpose::Prefix,
        found: || runs("c++", &["--version"]),
        packages: [&["g++"], &["gcc-c++"], &["gcc"], &[]],
    },
    Need {
        what: "make",
        purpose: Purpose::Build,
        found: || runs("make", &["--version"]),
        packages: [&["make"], &["make"], &["make"], &[]],
    },
    Need {
        what: "perl with its standard modules",
        purpose: Purpose::Build,
        found: || runs("perl", &["-MFindBin", "-MIPC::Cmd", "-MTime::Piece", "-e", "1"]),
        packages: [&["perl"], &["perl"], &["perl"], &["perl"]],
    },
    Need {
        what: "binutils",
        purpose: Purpose::Build,
        found: || !cfg!(target_os = "linux") || runs("objcopy", &["--version"]),
        packages: [&["binutils"], &["binutils"], &["binutils"], &[]],
    },
    Need {
        what: "libnuma with headers and static library",
        purpose: Purpose::Prefix,
        found: has_numa,
        packages: [&["libnuma-dev"], &["numactl-devel"], &["numactl"], &[]],
    },
    Need {
        what: "iproute2",
        purpose: Purpose::Test,
        found: || has_admin_tool("ip"),
        packages: [&["iproute2"], &["iproute"], &["iproute2"], &[]],
    },
    Need {
        what: "nftables",
        purpose: Purpose::Test,
        found: || has_admin_tool("nft"),
        packages: [&["nftables"], &["nftables"], &["nftables"], &[]],
    },
];

impl Need {
    fn is_needed_for(&self, build: Build) -> bool {
        match self.purpose {
            Purpose::Build => true,
            Purpose::Prefix => build == Build::Prefix,
            Purpose::Test => false,
        }
    }
}

/// A package manager, in the order of [`Need::packages`].
struct Manager {
    program: &'static str,
    /// Updates the list of packages, if the manager does not do so itself.
    refresh: Option<&'static [&'static str]>,
    install: &'static [&'static str],
    needs_root: bool,
}

const MANAGERS: [Manager; 4] = [
    Manager {
        program: "apt-get",
        refresh: Some(&["update"]),
        install: &["install", "--yes", "--no-install-recommends"],
        needs_root: true,
    },
    Manager {
        program: "dnf",
        refresh: None,
        install: &["install", "--assumeyes"],
        needs_root: true,
    },
    Manager {
        program: "pacman",
        refresh: None,
        install: &["--sync", "--refresh", "--needed", "--noconfirm"],
        needs_root: true,
    },
    Manager { program: "brew", refresh: None, install: &["install"], needs_root: false },
];

/// Fails with one line if a build tool is missing. Installs nothing.
pub(crate) fn check(build: Build) -> Result<()> {
    let mut missing = missing();
    missing.retain(|need| need.is_needed_for(build));
    ensure!(missing.is_empty(), "{}", complaint(&missing));
    Ok(())
}

/// Returns each tool, the smallest build that needs it (`None`: only tests), and whether it was found.
pub(crate) fn tools() -> impl Iterator<Item = (&'static str, Option<Build>, bool)> {
    NEEDS.iter().map(|need| {
        let build = [Build::Vendored, Build::Prefix].into_iter().find(|it| need.is_needed_for(*it));
        (need.what, build, (need.found)())
    })
}

/// Further compilers to install.
#[derive(Debug, clap::Args)]
pub(crate) struct Compilers {
    /// Also install the oldest Rust that the workspace supports
    #[arg(long)]
    msrv: bool,
    /// Also install the beta of Rust
    #[arg(long)]
    beta: bool,
    /// Also install the nightly Rust whose miri `ci` uses
    #[arg(long)]
    nightly: bool,
}

/// Installs missing tools, or prints how, and the compilers.
pub(crate) fn run(compilers: &Compilers) -> Result<()> {
    if let Err(error) = install_tools() {
        let is_optional = missing().iter().all(|need| need.purpose == Purpose::Test);
        ensure!(is_optional, error);
        println!("setup: {error:#}\nsetup: the tests that need it are skipped");
    }
    let source = ["component", "add", "rust-src"];
    if !races::has_source() && process::run(Command::new("rustup").args(source)).is_err() {
        println!("setup: rust-src is missing: the step `races` of `ci` is skipped");
    }
    for (is_wanted, beta) in [(compilers.msrv, false), (compilers.beta, true)] {
        if is_wanted {
            msrv::install(beta)?;
        }
    }
    if compilers.nightly {
        let install = ["toolchain", "install", process::NIGHTLY, "--profile", "minimal"];
        let components = ["--component", "miri,rust-src"];
        process::run(Command::new("rustup").args(install).args(components))?;
    }
    println!("setup: all build tools are installed");
    Ok(())
}

fn install_tools() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
    let known = MANAGERS.iter().position(|manager| runs(manager.program, &["--version"]));
    let Some(index) = known else {
        bail!("install these with your system's package manager, then try again: {list}");
    };
    let manager = &MANAGERS[index];
    let mut packages: Vec<_> =
        missing.iter().flat_map(|need| need.packages[index]).copied().collect();
    packages.dedup();
    if packages.is_empty() {
        bail!("missing: {list}; install the command line tools (xcode-select --install)");
    }

    let Some(prefix) = as_root(manager) else {
        bail!("missing: {list}\nrun this, then try again:\n  {}", by_hand(manager, &packages));
    };
    println!("setup: missing: {list}");
    for step in [manager.refresh, Some(manager.install)].into_iter().flatten() {
        let mut words = prefix.to_vec();
        words.push(manager.program);
        words.extend(step);
        if step == manager.install {
            words.extend(&packages);
        }
        println!("setup: {}", words.join(" "));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        process::run(&mut command)?;
    }
    let missing = self::missing();
    if let Some(need) = missing.first() {
        bail!("{} is still not found after the installation", need.what);
    }
    Ok(())
}

/// Returns one line with the missing tools and the command that installs them.
fn complaint(missing: &[&Need]) -> String {
    let list = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
    format!("missing: {list}; run `cargo xtask setup`")
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.found)()).collect()
}

/// Returns the prefix for running the package manager as root; `None` if that is not possible.
fn as_root(manager: &Manager) -> Option<&'static [&'static str]> {
    let is_root = || {
        let id = process::output(Command::new("id").arg("-u"));
        id.is_ok_and(|id| id.trim() == "0")
    };
    if !manager.needs_root || is_root() {
        return Some(&[]);
    }
    runs("sudo", &["-n", "true"]).then_some(&["sudo", "-n"])
}

fn by_hand(manager: &Manager, packages: &[&str]) -> String {
    let sudo = if manager.needs_root { "sudo " } else { "" };
    let refresh = manager.refresh.map_or(String::new(), |words| {
        format!("{sudo}{} {} && ", manager.program, words.join(" "))
    });
    let install = manager.install.join(" ");
    format!("{refresh}{sudo}{} {install} {}", manager.program, packages.join(" "))
}

/// Whether a program exists and succeeds.
fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether Linux has a program that only the path of an administrator may find. Elsewhere no test needs it.
fn has_admin_tool(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    !cfg!(target_os = "linux") || folders.map(|folder| folder.join(program)).any(|it| it.exists())
}

fn has_cmake() -> bool {
    let version = process::output(Command::new("cmake").arg("--version")).unwrap_or_default();
    cmake_version(&version).is_some_and(|version| version >= CMAKE)
}

/// Parses the version in `cmake version 3.25.1 ...`.
fn cmake_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// libnuma exists only on Linux, and is needed only there.
fn has_numa() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let library = format!("/usr/lib/{}-linux-gnu/libnuma.a", std::env::consts::ARCH);
    let libraries = [library.as_str(), "/usr/lib64/libnuma.so", "/usr/lib/libnuma.so"];
    let has_library = libraries.iter().any(|library| Path::new(library).exists());
    Path::new("/usr/include/numa.h").exists() && has_library
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmake_versions_are_read() {
        assert_eq!(cmake_version("cmake version 3.25.1\n\nCMake suite"), Some((3, 25)));
        assert_eq!(cmake_version("cmake version 4.0.0-rc1"), Some((4, 0)));
        assert_eq!(cmake_version(""), None);
    }

    #[test]
    fn missing_tools_are_one_line_with_the_command_that_installs_them() {
        let all: Vec<_> = NEEDS.iter().collect();
        let line = complaint(&all[..2]);
        assert_eq!(line, "missing: cmake 3.20 or newer, a C compiler; run `cargo xtask setup`");
        assert!(!complaint(&all).contains('\n'));
    }

    #[test]
    fn a_build_works_without_the_tools_of_tests() {
        let needed = |build| NEEDS.iter().filter(move |need| need.is_needed_for(build));
        assert_eq!(needed(Build::Vendored).count(), 4);
        assert_eq!(needed(Build::Prefix).count(), 7);
        assert!(needed(Build::Prefix).all(|need| need.what != "nftables"));
    }

    #[test]
    fn the_manual_command_is_complete() {
        let command = by_hand(&MANAGERS[0], &["cmake", "perl"]);
        let expected = "sudo apt-get update && \
                        sudo apt-get install --yes --no-install-recommends cmake perl";
        assert_eq!(command, expected);
        assert_eq!(by_hand(&MANAGERS[3], &["cmake"]), "brew install cmake");
    }
}
