//! `ci`: the steps that a change must pass, and the command `test`.

use crate::beside::Beside;
use crate::demo::{self, Program};
use crate::process::{self, Workspace};
use crate::{attack, deny, fuzz, miri, races, readme, simulate, tidy};
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// The packages that link libmsquic.
const LINKED: [&str; 6] =
    ["--package", "libmsquic-sys", "--package", "msquic-async", "--package", "msquic-transport"];

/// The package whose tests attack libmsquic. An unpatched library does not pass them.
const ATTACK: [&str; 2] = ["--package", "quic-attack"];

/// The programs for users, with the features of their tests.
const PROGRAMS: [&str; 6] = [
    "--package",
    "netmsg",
    "--package",
    "examples",
    "--features",
    "examples/metrics,examples/driver",
];

/// The programs that measure.
const MEASURING: [&str; 8] = [
    "--package",
    "attack-bench",
    "--package",
    "transport-bench",
    "--package",
    "soak",
    "--package",
    "simulate",
];

/// The features with which tests link an installed libmsquic.
const SYSTEM: [&str; 2] = ["--features", "msquic-async/system,netmsg/system,examples/system"];

/// The optional features.
const OPTIONAL: [&str; 2] = [
    "--features",
    "msquic-async/driver,msquic-async/testing,msquic-transport/driver,msquic-transport/metrics",
];

/// The tests that are repeated with msquic inside a runtime: those of `msquic-transport`, and the observability
/// of the examples.
const DRIVEN: [&str; 28] = [
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
    "observability",
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

/// Runs all steps, or those from the one with a name on, and stops at the first failure.
pub(crate) fn run(workspace: &Workspace, from: Option<&str>) -> Result<()> {
    let mut steps = Steps { from: from.map(str::to_owned), ..Steps::default() };
    steps.cargo("format", workspace.cargo(["fmt", "--all", "--check"]))?;
    steps.function("tidy", "cargo xtask tidy", || tidy::run(workspace))?;
    check_dependencies(workspace, &mut steps)?;
    let mut beside = beside(workspace)?;
    if from.is_none() {
        beside.start(&workspace.target)?;
    }
    lint(workspace, &mut steps)?;
    document(workspace, &mut steps)?;
    test_with(workspace, &mut steps)?;
    watch_memory(workspace, &mut steps)?;
    for name in ["release build of netmsg", "release build of the examples", "public interfaces"] {
        steps.beside(name, &mut beside)?;
    }
    fuzz(workspace, &mut steps)?; // which uses the directory of release builds too
    steps.beside("miri", &mut beside)?;
    steps.beside("races", &mut beside)?;
    steps.function("copied binaries", "cargo xtask ci", || copied(workspace))?;
    if workspace.is_bundled() {
        measure(workspace, &mut steps)?;
        steps.function("readme", "cargo xtask readme", || readme::run(workspace))?;
    }
    for name in ["self-contained programs", "packages"] {
        steps.beside(name, &mut beside)?;
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
        let features = ["--features", "transport-bench/s2n"];
        let all = [&PROGRAMS[..], &ATTACK, &OPTIONAL, &MEASURING, &features];
        steps.cargo("lint with libmsquic", linked(&all.concat()))?;
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
    // The same packages and features in both steps: cargo builds them once.
    let linked = || {
        let mut test = side_by_side(workspace.cargo_linked(["test"]));
        test.args(LINKED).args(OPTIONAL).args(PROGRAMS);
        match workspace.is_bundled() {
            true => test.args(ATTACK),
            false => test.args(SYSTEM),
        };
        test
    };
    steps.cargo("test with msquic", linked())?;
    if cfg!(target_os = "linux") {
        let mut driven = linked();
        driven.args(DRIVEN).env("MSQUIC_TRANSPORT_DRIVEN", "1");
        steps.cargo("test with msquic inside a runtime", driven)?;
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

/// Returns the steps that run beside the others, in the order in which their results are needed: tests wait much of
/// the time, lints, valgrind and miri use one processor at a time.
fn beside(workspace: &Workspace) -> Result<Beside> {
    let mut beside = Beside::default();
    let program = std::env::current_exe()?;
    let xtask = |arguments: &[&str]| {
        let mut xtask = workspace.clean(Command::new(&program), arguments);
        workspace.choose_library(&mut xtask);
        xtask
    };
    let release = |package| {
        let mut build = workspace.cargo_linked(["build", "--release"]);
        build.args(demo::package_args(workspace, package));
        build
    };
    beside.add("release build of netmsg", release("netmsg"));
    let mut examples = release("examples");
    examples.arg("--examples");
    beside.add("release build of the examples", examples);
    beside.add("public interfaces", xtask(&["api"]));
    if miri::is_installed(workspace) {
        beside.add("miri", xtask(&["miri"]));
    } else {
        println!("\n== miri: SKIPPED, it is not installed (cargo xtask setup --nightly)");
    }
    if workspace.is_bundled() {
        if races::is_possible() {
            beside.add("races", xtask(&["races", "--short"]));
        } else {
            println!("\n== races: SKIPPED, see cargo xtask races");
        }
        beside.add("self-contained programs", xtask(&["readme", "--self-contained"]));
        beside.add("packages", xtask(&["package"]));
    }
    Ok(beside)
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

/// Tests the programs that measure, among others the memory of attacked endpoints, then runs them shortly to check
/// that they work. The figures are not checked.
fn measure(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    // Always the same packages: cargo would build them with other features for each of them alone.
    let all = |command: &str| {
        let mut all = workspace.cargo_linked([command]);
        all.args(MEASURING);
        all
    };
    steps.cargo("test what measures", all("test"))?;
    let mut run = |step: &str, package: &str, arguments: &[&str]| {
        let mut by_hand = workspace.cargo(["run", "--package", package, "--"]);
        let by_hand = process::shown(by_hand.args(arguments));
        let program = workspace.target.join("debug").join(package);
        steps.function(step, &by_hand, || {
            process::run(&mut all("build"))?;
            process::run(Command::new(program).args(arguments).current_dir(&workspace.root))
        })
    };
    let attack = "run --seconds 1 --rounds 1 --kind msquic --only".split(' ');
    let attack: Vec<_> = attack.chain(["partial messages"]).collect();
    run("measure one attack", "attack-bench", &attack)?;
    let report = workspace.target.join("bench.json").display().to_string();
    run("bench", "transport-bench", &["--quick", "--json", &report])?;
    run("soak", "soak", &[])?;
    for arguments in simulate::SHORT {
        let (_, over) = arguments.rsplit_once(' ').unwrap_or_default();
        let arguments: Vec<_> = arguments.split(' ').collect();
        run(&format!("simulate over {over}"), "simulate", &arguments)?;
    }
    Ok(())
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

    /// Finishes a step that runs beside the others, if it is among them.
    fn beside(&mut self, name: &str, beside: &mut Beside) -> Result<()> {
        match beside.command(name) {
            Some(by_hand) => self.function(name, &by_hand, || beside.finish(name)),
            None => Ok(()),
        }
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
