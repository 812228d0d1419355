//! `ci`: the steps that a change must pass, and the command `test`.

use crate::demo::{self, Program};
use crate::process::{self, Workspace};
use crate::{api, attack, deny, fuzz, package, readme, simulate, tidy};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The packages that link libmsquic.
const LINKED: [&str; 6] =
    ["--package", "libmsquic-sys", "--package", "msquic-async", "--package", "msquic-transport"];

/// The package whose tests attack libmsquic. An unpatched library does not pass them.
const ATTACK: [&str; 2] = ["--package", "quic-attack"];

/// The optional features.
const OPTIONAL: [&str; 2] = [
    "--features",
    "msquic-async/driver,msquic-async/testing,msquic-transport/driver,msquic-transport/metrics",
];

/// The tests of `msquic-transport` that are repeated with msquic inside a runtime.
const DRIVEN: [&str; 26] = [
    "--test",
    "conformance",
    "--test",
    "connect",
    "--test",
    "delivery",
    "--test",
    "interop",
    "--test",
    "memory",
    "--test",
    "messages",
    "--test",
    "network",
    "--test",
    "operation",
    "--test",
    "peer_pool",
    "--test",
    "progress",
    "--test",
    "quinn",
    "--test",
    "quinn_delivery",
    "--test",
    "requests",
];

/// The packages that do not link libmsquic.
const PLAIN: [&str; 20] = [
    "--package",
    "bench-report",
    "--package",
    "spelling",
    "--package",
    "net-traits",
    "--package",
    "net-kit",
    "--package",
    "net-traits-test",
    "--package",
    "net-peers",
    "--package",
    "net-relay",
    "--package",
    "tcp-tls-transport",
    "--package",
    "quinn-transport",
    "--package",
    "xtask",
];

/// The examples that need no arguments and end by themselves. Each checks what it shows.
const EXAMPLES: [&str; 11] = [
    "echo",
    "service",
    "limits",
    "fanout",
    "chat",
    "verifier",
    "reload",
    "retry",
    "datagrams",
    "spans",
    "simulate",
];

/// Filters for tests that call no foreign function.
const WITHOUT_MSQUIC: [&str; 5] = ["buffer::", "state::", "waiters::", "frame::", "record::"];

/// Runs all steps, or those from the one with a name on, and stops at the first failure.
pub(crate) fn run(workspace: &Workspace, from: Option<&str>) -> Result<()> {
    let mut steps = Steps { from: from.map(str::to_owned), ..Steps::default() };
    steps.cargo("format", workspace.cargo(["fmt", "--all", "--check"]))?;
    steps.function("tidy", "cargo xtask tidy", || tidy::run(workspace))?;
    check_dependencies(workspace, &mut steps)?;
    lint(workspace, &mut steps)?;
    document(workspace, &mut steps)?;
    steps.function("public interfaces", "cargo xtask api", || api::run(workspace, false))?;
    // Tests wait most of the time, and leave the processors to a build of everything.
    let self_contained = match from {
        None if workspace.is_bundled() => {
            Some(Beside::start(&["readme", "--self-contained"], &workspace.target)?)
        }
        _ => None,
    };
    test_with(workspace, &mut steps)?;
    interpret(workspace, &mut steps)?;
    watch_memory(workspace, &mut steps)?;
    fuzz(workspace, &mut steps)?;
    steps.function("copied binaries", "cargo xtask ci", || copied(workspace))?;
    if workspace.is_bundled() {
        measure_attack(workspace, &mut steps)?;
        measure_messages(workspace, &mut steps)?;
        soak_shortly(workspace, &mut steps)?;
        simulate_shortly(workspace, &mut steps)?;
        steps.function("readme", "cargo xtask readme", || readme::run(workspace))?;
        let by_hand = "cargo xtask readme --self-contained";
        steps.function("self-contained programs", by_hand, || match self_contained {
            Some(beside) => beside.finish(),
            None => readme::self_contained(workspace),
        })?;
        steps.function("packages", "cargo xtask package", || package::run(workspace))?;
    }
    for untrusted in [false, true] {
        let name = if untrusted { "demo --untrusted" } else { "demo" };
        let by_hand = format!("cargo xtask {name}");
        steps.function(name, &by_hand, || demo::run(workspace, &demo::Options::new(untrusted)))?;
    }
    for transport in ["quic", "quinn", "tcp", "fallback"] {
        let by_hand =
            format!("cargo run --release -p netmsg -- chat --demo --transport {transport}");
        steps.function(&format!("chat over {transport}"), &by_hand, || {
            demo::chat(workspace, transport)
        })?;
    }
    for name in EXAMPLES {
        let by_hand = format!("cargo run --release --example {name}");
        steps.function(&format!("example {name}"), &by_hand, || demo::example(workspace, name))?;
    }
    let tour = || demo::run(workspace, &demo::Options::tour());
    steps.function("demo --tour", "cargo xtask demo --tour", tour)?;
    if let Some(unknown) = &steps.from {
        bail!("there is no step \"{unknown}\"");
    }
    steps.report();
    Ok(())
}

/// Runs all tests.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::default();
    test_with(workspace, &mut steps)?;
    steps.report();
    Ok(())
}

/// Checks and tests the crates that do not link msquic.
pub(crate) fn portable(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::default();
    let mut lint = workspace.cargo(["clippy", "--all-targets", "--all-features"]);
    lint.args(PLAIN).args(["--", "--deny", "warnings"]);
    steps.cargo("lint without msquic", lint)?;
    test_plain(workspace, &mut steps)?;
    steps.report();
    Ok(())
}

/// Checks licences and sources of the dependencies, if cargo-deny is installed.
fn check_dependencies(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    if !deny::is_installed(workspace) {
        println!("\n== dependencies: SKIPPED, cargo-deny is not installed");
        return Ok(());
    }
    steps.cargo("dependencies", workspace.cargo(deny::OFFLINE))
}

/// Puts a mixed load on all transports; `arguments` go to the program.
pub(crate) fn soak(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut soak = workspace.cargo_linked(["run", "--release", "--package", "soak"]);
    if !workspace.is_bundled() {
        soak.args(["--no-default-features", "--features", "system"]);
    }
    process::run(soak.arg("--").args(arguments))
}

/// Lints all supported combinations of features. None builds libmsquic, because checks do not link.
fn lint(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let clippy = |args: &[&str]| {
        let mut command = workspace.cargo_linked(["clippy", "--all-targets"]);
        command.args(args).args(["--", "--deny", "warnings"]);
        command
    };
    steps.cargo("lint net-traits", clippy(&["--package", "net-traits"]))?;
    steps.cargo("lint without msquic, by default", clippy(&PLAIN))?;
    steps.cargo("lint without msquic", clippy(&[&PLAIN[..], &["--all-features"]].concat()))?;
    let linked = |more: &[&str]| clippy(&[&LINKED[..], more].concat());
    steps.cargo("lint without a libmsquic", linked(&["--no-default-features"]))?;
    let mut system = linked(&["--features", "msquic-async/system"]);
    system.env("LIBMSQUIC_SYS_NO_BUILD", "1");
    steps.cargo("lint with an installed libmsquic", system)?;
    if workspace.is_bundled() {
        steps.cargo("lint with libmsquic", linked(&[&ATTACK[..], &OPTIONAL].concat()))?;
        let unpublished =
            ["examples", "netmsg", "transport-bench", "attack-bench", "simulate", "soak"]
                .map(|name| ["--package", name]);
        let features = ["--features", "examples/metrics,transport-bench/s2n"];
        let unpublished = [unpublished.as_flattened(), &features];
        steps.cargo("lint examples and benches", clippy(&unpublished.concat()))?;
        let without = ["--package", "examples", "--package", "netmsg", "--no-default-features"];
        steps.cargo("lint examples and netmsg without msquic", clippy(&without))?;
    }
    Ok(())
}

fn document(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let mut doc = workspace.cargo(["doc", "--no-deps", "--no-default-features"]);
    doc.args(["--package", "net-traits", "--features", "net-traits/self-signed"]);
    doc.args(["--package", "net-kit", "--features", "net-kit/metrics"]);
    doc.args(["--package", "net-traits-test"]);
    doc.args(["--package", "net-peers", "--features", "net-peers/dns"]);
    doc.args(["--package", "tcp-tls-transport", "--package", "quinn-transport"]);
    doc.args(LINKED).args(OPTIONAL).env("RUSTDOCFLAGS", "--deny warnings");
    steps.cargo("documentation", doc)
}

/// Tests in the development profile, in which libmsquic is built with its own assertions.
fn test_with(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    test_plain(workspace, steps)?;
    let mut linked = side_by_side(workspace.cargo_linked(["test"]));
    linked.args(LINKED).args(OPTIONAL).args(workspace.features());
    if workspace.is_bundled() {
        linked.args(ATTACK);
    }
    steps.cargo("test with msquic", linked)?;
    if cfg!(target_os = "linux") {
        let mut driven = side_by_side(workspace.cargo_linked(["test"]));
        driven.args(LINKED).args(OPTIONAL).args(workspace.features());
        driven.args(DRIVEN).env("MSQUIC_TRANSPORT_DRIVEN", "1");
        steps.cargo("test with msquic inside a runtime", driven)?;
    }
    let mut netmsg = side_by_side(workspace.cargo_linked(["test"]));
    netmsg.args(demo::package_args(workspace, "netmsg"));
    steps.cargo("test netmsg", netmsg)?;
    let mut examples = side_by_side(workspace.cargo_linked(["test"]));
    examples.args(demo::package_args(workspace, "examples"));
    examples.args(["--features", "examples/metrics"]);
    steps.cargo("test the examples", examples)?;
    if cfg!(target_os = "linux") {
        let mut driven = workspace.cargo_linked(["test"]);
        driven.args(demo::package_args(workspace, "examples"));
        driven.args(["--features", "examples/metrics,examples/driver", "--test", "observability"]);
        driven.env("MSQUIC_TRANSPORT_DRIVEN", "1");
        steps.cargo("test the observability of msquic inside a runtime", driven)?;
    }
    Ok(())
}

/// Lets two tests run side by side for each processor: most of them wait for the network or for timers.
fn side_by_side(mut command: Command) -> Command {
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("RUST_TEST_THREADS", (2 * processors).to_string());
    }
    command
}

fn test_plain(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let mut plain = side_by_side(workspace.cargo(["test", "--all-features"]));
    plain.args(PLAIN);
    steps.cargo("test without msquic", plain)
}

/// Runs the modules without msquic under miri, which detects undefined behaviour and leaks. Skipped
/// if miri is not installed; it exists for nightly compilers only.
fn interpret(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let nightly = |args: &[&str]| {
        let mut command = workspace.nightly(["miri"]);
        command.args(args);
        command
    };
    if process::output(&mut nightly(&["--version"])).is_err() {
        println!("\n== miri: SKIPPED, it is not installed (rustup +nightly component add miri)");
        return Ok(());
    }
    let mut test = nightly(&["test", "--no-default-features", "--lib"]);
    // Property tests read a file, and a few cases are sufficient.
    test.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "8");
    test.args(["--package", "net-kit", "--package", "tcp-tls-transport"])
        .args(LINKED)
        .arg("--")
        .args(WITHOUT_MSQUIC);
    steps.cargo("miri", test)
}

/// Fuzzes each target for a few seconds, if that is possible.
fn fuzz(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    if !fuzz::is_possible() {
        println!("\n== fuzz: SKIPPED, it needs c++ and Linux");
        return Ok(());
    }
    let options = fuzz::Options::short();
    steps.function("fuzz", "cargo xtask fuzz", || fuzz::run(workspace, &options))
}

/// Runs the attacks on memory under valgrind, if it is installed.
fn watch_memory(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    if !attack::has_valgrind() {
        println!("\n== attacks under valgrind: SKIPPED, it is not installed");
        return Ok(());
    }
    let by_hand = "cargo xtask attack --under valgrind --rounds 1000";
    steps.function("attacks under valgrind", by_hand, || {
        attack::run(workspace, &attack::Options::valgrind())
    })
}

/// Compares the memory of attacked endpoints with what is stated, and measures one attack, to check that the
/// measurement works.
fn measure_attack(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let mut run = workspace.cargo_linked(["run", "--package", "attack-bench", "--", "run"]);
    run.args(["--seconds", "1", "--rounds", "1", "--only", "partial messages", "--kind", "msquic"]);
    steps.cargo("measure one attack", run)?;
    let test = workspace.cargo_linked(["test", "--package", "attack-bench"]);
    steps.cargo("memory under attack", test)
}

/// Runs the benchmarks in small, to check that they work. The figures are not checked.
fn measure_messages(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let mut run = workspace.cargo_linked(["run", "--package", "transport-bench", "--", "--quick"]);
    run.arg("--json").arg(workspace.target.join("bench.json"));
    steps.cargo("bench", run)
}

/// Puts a mixed load on all transports for a minute. The figures are not checked.
fn soak_shortly(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.cargo("soak", workspace.cargo_linked(["run", "--package", "soak"]))
}

/// Tests the checker of simulations, and runs short ones over each transport.
fn simulate_shortly(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let test = workspace.cargo_linked(["test", "--package", "simulate"]);
    steps.cargo("test the simulation", test)?;
    steps.function("simulate", "cargo xtask simulate", || {
        simulate::SHORT.iter().try_for_each(|it| simulate::run(workspace, it.split(' '), &[]))
    })
}

/// Runs the demo with a copied binary and an empty environment.
fn copied(workspace: &Workspace) -> Result<()> {
    let elsewhere = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut build = workspace.cargo_linked(["rustc", "--release"]);
    build.args(demo::package_args(workspace, "netmsg")).arg("--").args(workspace.rpath());
    process::run(&mut build)?;
    let (built, copy) = (workspace.target.join("release/netmsg"), elsewhere.path().join("netmsg"));
    fs::copy(&built, &copy).with_context(|| format!("cannot copy {}", built.display()))?;
    demo::transfer(&Program::Copied(&copy), &demo::Options::new(false), elsewhere.path())
}

/// A command of this program that runs beside the steps, with the lowest priority.
struct Beside {
    child: Child,
    log: PathBuf,
}

impl Beside {
    fn start(arguments: &[&str], target: &Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = if cfg!(unix) { Command::new("nice") } else { Command::new(&program) };
        if cfg!(unix) {
            command.args(["-n", "19"]).arg(&program);
        }
        let log = target.join("beside.log");
        let output = fs::File::create(&log)?;
        command.args(arguments).stdout(output.try_clone()?).stderr(output);
        println!("\n== beside the next steps: cargo xtask {}", arguments.join(" "));
        let child = command.spawn().context("cannot run a step beside others")?;
        Ok(Self { child, log })
    }

    /// Waits for the end and shows the output.
    fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        print!("{}", String::from_utf8_lossy(&fs::read(&self.log)?));
        ensure!(status.success(), "it failed, see above");
        Ok(())
    }
}

impl Drop for Beside {
    /// After another step has failed, a build is not left behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            println!("xtask: waits for the step beside the others; see {}", self.log.display());
            let _ = self.child.wait();
        }
    }
}

/// The completed steps, with their times.
#[derive(Default)]
struct Steps {
    passed: Vec<(String, Duration)>,
    /// The name of the first step to run, until that is reached.
    from: Option<String>,
}

impl Steps {
    fn cargo(&mut self, name: &str, mut command: Command) -> Result<()> {
        let by_hand = process::shown(&command);
        self.function(name, &by_hand, || process::run(&mut command))
    }

    fn function(
        &mut self,
        name: &str,
        by_hand: &str,
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.from.as_deref().is_some_and(|from| from != name) {
            return Ok(());
        }
        self.from = None;
        println!("\n== {name}: {by_hand}");
        let started = Instant::now();
        step().with_context(|| format!("step \"{name}\" failed; by hand: {by_hand}"))?;
        self.passed.push((name.to_owned(), started.elapsed()));
        Ok(())
    }

    fn report(&self) {
        println!("\n== {} steps passed", self.passed.len());
        for (name, time) in &self.passed {
            println!("{:>7.1} s  {name}", time.as_secs_f64());
        }
        let total: Duration = self.passed.iter().map(|(_, time)| *time).sum();
        println!("{:>7.1} s  in total", total.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Checks that packages are built without msquic, and without what builds or links it.
    fn assert_plain(selection: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut tree = Command::new(env!("CARGO"));
        tree.current_dir(root).args(["tree", "--locked", "--target", "all"]);
        tree.args(["--edges", "normal,build,dev", "--prefix", "none"]).args(selection);
        let tree = process::output(&mut tree).unwrap();
        let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        for package in selection.windows(2).filter(|pair| pair[0] == "--package") {
            assert!(names.contains(&package[1]), "{} is not in the tree:\n{tree}", package[1]);
        }
        let is_linked = |name: &&&str| {
            let is_ours = ["xtask", "examples"].contains(name);
            !is_ours && ["msquic", "cmake", "openssl"].iter().any(|it| name.contains(it))
        };
        let linked: Vec<_> = names.iter().filter(is_linked).collect();
        assert!(linked.is_empty(), "{selection:?} builds {linked:?}");
    }

    #[test]
    fn plain_packages_build_no_msquic() {
        assert_plain(&[&PLAIN[..], &["--all-features"]].concat());
    }

    /// Short enough to read as a whole, and to start from.
    #[test]
    fn examples_are_short() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
        for name in EXAMPLES.iter().chain(&["observe", "tour"]) {
            let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
            let lines = text.lines().count();
            assert!(lines < 120, "{name} has {lines} lines");
        }
    }

    /// Programs over TCP, over quinn, or both.
    #[test]
    fn a_program_without_the_msquic_feature_builds_no_msquic() {
        for package in ["examples", "netmsg"] {
            assert_plain(&["--package", package, "--no-default-features"]);
        }
    }
}
