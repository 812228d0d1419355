//! `doctor`: what this machine has for building, testing and running, and what to do about the rest.

use crate::process::{self, Workspace};
use crate::setup;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

/// The size from which the receive buffers of the QUIC transports, which are as large as the system allows, hold what
/// arrives in 20 ms at 100 MB/s.
const RECEIVE_BUFFER: u64 = 2 * 1024 * 1024;

/// The descriptors that a node with the default 10 000 connections over TCP needs, and some.
const DESCRIPTORS: u64 = 10_240;

/// The size of IP packets that QUIC assumes every path to carry, the option `minimum_mtu`.
const QUIC_MTU: u64 = 1248;

/// The local ports that a program needs which connects 10 000 times from one address to another.
const PORTS: u64 = 10_000;

/// The space on the disk in GiB below which `cargo xtask ci` may not end: lints and tests alone write more than 8.
const DISK: u64 = 10;

/// One thing that was examined.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    subject: &'static str,
    found: String,
    /// What to do; `None` if there is nothing to do.
    advice: Option<String>,
    /// Whether the workspace cannot be built without it.
    is_needed: bool,
}

impl Finding {
    fn new(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, found: found.into(), advice: None, is_needed: false }
    }

    /// Adds the advice if `is_good` is false.
    fn unless(mut self, is_good: bool, advice: impl Into<String>) -> Self {
        self.advice = (!is_good).then(|| advice.into());
        self
    }

    fn needed(self) -> Self {
        Self { is_needed: true, ..self }
    }

    fn line(&self) -> String {
        let Self { subject, found, advice, is_needed } = self;
        match advice {
            None => format!("ok      {subject}: {found}"),
            Some(advice) => {
                let mark = if *is_needed { "missing" } else { "note   " };
                format!("{mark} {subject}: {found}; {advice}")
            }
        }
    }
}

/// Prints one line per finding, and fails if something is missing without which nothing is built.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let mut findings = vec![toolchain(root)?];
    findings.extend(tools());
    findings.extend(library(root)?);
    findings.extend([offload(), ipv6(), ports_of_loopback()]);
    findings.extend(system());
    // The target directory does not exist before the first build.
    let place = if workspace.target.exists() { &workspace.target } else { root };
    findings.extend(disk(
        &process::output(Command::new("df").arg("-Pk").arg(place)).unwrap_or_default(),
    ));
    for finding in &findings {
        println!("{}", finding.line());
    }
    let missing: Vec<_> =
        findings.iter().filter(|it| it.is_needed && it.advice.is_some()).collect();
    let subjects: Vec<_> = missing.iter().map(|finding| finding.subject).collect();
    ensure!(missing.is_empty(), "doctor: the workspace cannot be built: {}", subjects.join(", "));
    Ok(())
}

/// The compiler in use is the one that rust-toolchain.toml names.
fn toolchain(root: &Path) -> Result<Finding> {
    let file = fs::read_to_string(root.join("rust-toolchain.toml"))?;
    let wanted = file.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next());
    let wanted = wanted.context("rust-toolchain.toml has no channel")?;
    let mut rustc = Command::new("rustc");
    let version = process::output(rustc.current_dir(root).arg("--version"))?;
    let is_wanted = version.split_whitespace().nth(1) == Some(wanted);
    let advice = format!(
        "the workspace is tested with {wanted}, which rustup selects unless RUSTUP_TOOLCHAIN or \
         `cargo +NAME` selects another one"
    );
    Ok(Finding::new("toolchain", version.trim()).unless(is_wanted, advice))
}

fn tools() -> Vec<Finding> {
    let tools = setup::tools().map(|(what, build, is_found)| {
        let found = if is_found { "found" } else { "not found" };
        let purpose = match build {
            Some(setup::Build::Vendored) => "every build of msquic needs it",
            Some(setup::Build::Prefix) => "`cargo xtask msquic` and `cargo xtask nightly` need it",
            None => "tests that need it are skipped",
        };
        let advice = format!("{purpose}; run `cargo xtask setup`");
        let finding = Finding::new(what, found).unless(is_found, advice);
        if build == Some(setup::Build::Vendored) { finding.needed() } else { finding }
    });
    tools.collect()
}

/// The C library that a build links, and variables that change it.
fn library(root: &Path) -> Result<Vec<Finding>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let version = manifest.split("msquic = { version = \"=").nth(1);
    let version =
        version.and_then(|rest| rest.split('"').next()).context("no version of msquic")?;
    let patches = fs::read_dir(root.join("crates/libmsquic-sys/patches"))?.count();
    let without = std::env::var("LIBMSQUIC_SYS_WITHOUT").unwrap_or_default();
    let advice =
        format!("LIBMSQUIC_SYS_WITHOUT omits {without}; unset it except in tests of patches");
    let found = format!("msquic {version} with {patches} patches, from source");
    let mut findings =
        vec![Finding::new("library of a default build", found).unless(without.is_empty(), advice)];
    if let Some(prefix) = std::env::var_os("MSQUIC_DIR") {
        let library = Path::new(&prefix).join("lib");
        let exists = ["libmsquic.so", "libmsquic.dylib"].iter().any(|it| library.join(it).exists());
        let advice = "it has no lib/libmsquic; make a prefix with `cargo xtask msquic`";
        let found =
            format!("{}, for builds with the feature `system`", Path::new(&prefix).display());
        findings.push(Finding::new("MSQUIC_DIR", found).unless(exists, advice));
    }
    if std::env::var_os("LIBMSQUIC_SYS_NO_BUILD").is_some_and(|value| !value.is_empty()) {
        let finding = Finding::new("LIBMSQUIC_SYS_NO_BUILD", "set");
        findings.push(finding.unless(false, "programs do not link; unset it except for an editor"));
    }
    Ok(findings)
}

/// Whether the system sends and receives several datagrams in one call.
fn offload() -> Finding {
    let subject = "UDP segmentation and receive offload";
    let state = UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| quinn_udp::UdpSocketState::new((&socket).into()));
    match state {
        Ok(state) => {
            let (sent, received) = (state.max_gso_segments(), state.gro_segments());
            let found = format!("{sent} datagrams per send, {received} per receive");
            let advice = "it works, with more system calls; Linux has both from 5.0 on";
            Finding::new(subject, found).unless(sent > 1 && received > 1, advice)
        }
        Err(error) => Finding::new(subject, error.to_string())
            .unless(false, "allow UDP sockets on 127.0.0.1; all tests of QUIC need them"),
    }
}

fn ipv6() -> Finding {
    let result = UdpSocket::bind("[::1]:0");
    let found = result.as_ref().map_or_else(ToString::to_string, |_| "[::1] works".to_owned());
    Finding::new("IPv6", found).unless(
        result.is_ok(),
        "enable it (net.ipv6.conf.lo.disable_ipv6=0); tests with [::1] fail",
    )
}

/// Whether both protocols get free ports on loopback, as all tests do.
fn ports_of_loopback() -> Finding {
    let result = UdpSocket::bind("127.0.0.1:0").and_then(|_| TcpListener::bind("127.0.0.1:0"));
    let found = result.as_ref().map_or_else(ToString::to_string, |_| "UDP and TCP".to_owned());
    Finding::new("free ports on 127.0.0.1", found)
        .unless(result.is_ok(), "end programs that hold ports, or widen ip_local_port_range")
}

/// The limits of Linux.
fn system() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let findings = [
        receive_buffer(&read("/proc/sys/net/core/rmem_max")),
        mtu(&read("/sys/class/net/lo/mtu")),
        port_range(&read("/proc/sys/net/ipv4/ip_local_port_range")),
        descriptors(&read("/proc/self/limits")),
    ];
    findings.into_iter().flatten().collect()
}

fn receive_buffer(rmem_max: &str) -> Option<Finding> {
    let bytes: u64 = rmem_max.trim().parse().ok()?;
    let advice = format!(
        "bursts are lost while the process waits for a processor; run \
         `sudo sysctl -w net.core.rmem_max={RECEIVE_BUFFER}`"
    );
    let finding = Finding::new("receive buffers (net.core.rmem_max)", format!("{bytes} bytes"));
    Some(finding.unless(bytes >= RECEIVE_BUFFER, advice))
}

fn mtu(text: &str) -> Option<Finding> {
    let bytes: u64 = text.trim().parse().ok()?;
    let advice = format!("QUIC needs {QUIC_MTU}; run `sudo ip link set lo mtu 65536`");
    let finding = Finding::new("MTU of loopback", format!("{bytes} bytes"));
    Some(finding.unless(bytes >= QUIC_MTU, advice))
}

fn port_range(text: &str) -> Option<Finding> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (first, last) = (words.next()??, words.next()??);
    let count = (last + 1).checked_sub(first)?;
    let advice = "connections over TCP to one address need a port each; run \
                  `sudo sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`";
    let finding = Finding::new("local ports", format!("{first} to {last}"));
    Some(finding.unless(count >= PORTS, advice))
}

/// Reads the soft limit of `/proc/PID/limits`.
fn descriptors(limits: &str) -> Option<Finding> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    // "unlimited" is not a number.
    let count = soft.parse().unwrap_or(u64::MAX);
    let advice = format!(
        "10 000 connections over TCP, the default limit, need one each (over QUIC a few); run \
         `ulimit -n {DESCRIPTORS}`"
    );
    Some(Finding::new("open files (ulimit -n)", soft).unless(count >= DESCRIPTORS, advice))
}

/// Reads the available space in the second line of `df -Pk`.
fn disk(output: &str) -> Option<Finding> {
    let kibibytes: u64 = output.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    let free = kibibytes / (1024 * 1024);
    let advice = format!(
        "`cargo xtask ci` needs {DISK} GiB or more; free some, or set CARGO_TARGET_DIR to a \
         directory of another disk"
    );
    Some(Finding::new("space for builds", format!("{free} GiB")).unless(free >= DISK, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_good(finding: Option<Finding>) -> bool {
        finding.unwrap().advice.is_none()
    }

    #[test]
    fn limits_are_judged() {
        assert!(is_good(receive_buffer("4194304\n")));
        assert!(!is_good(receive_buffer("212992\n")));
        assert!(is_good(mtu("65536\n")));
        assert!(!is_good(mtu("1200\n")));
        assert!(is_good(port_range("32768\t60999\n")));
        assert!(!is_good(port_range("60000\t60999\n")));
        let limits =
            |soft| format!("Limit  Soft  Hard  Units\nMax open files  {soft}  4096  files\n");
        assert!(is_good(descriptors(&limits("unlimited"))));
        assert!(!is_good(descriptors(&limits("1024"))));
    }

    #[test]
    fn a_disk_that_is_almost_full_is_noted() {
        let output = |free: u64| {
            format!(
                "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 99 9 {} 9% /\n",
                free << 20
            )
        };
        assert!(is_good(disk(&output(DISK))));
        assert!(!is_good(disk(&output(DISK - 1))));
        assert_eq!(disk(""), None);
    }

    #[test]
    fn a_system_without_these_files_has_no_such_findings() {
        assert_eq!(receive_buffer(""), None);
        assert_eq!(mtu(""), None);
        assert_eq!(port_range("1"), None);
        assert_eq!(port_range("9 1"), None);
        assert_eq!(descriptors(""), None);
    }

    #[test]
    fn a_line_says_ok_or_what_to_do() {
        let finding = || Finding::new("a tool", "not found");
        assert_eq!(finding().line(), "ok      a tool: not found");
        assert_eq!(
            finding().unless(false, "install it").line(),
            "note    a tool: not found; install it"
        );
        let needed = finding().unless(false, "install it").needed();
        assert_eq!(needed.line(), "missing a tool: not found; install it");
    }
}
