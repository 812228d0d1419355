//! `bench`: runs the benchmark, and writes its figures into the documents.
//!
//! The figures are stored in docs/performance.json. docs/performance.md and docs/manual/comparison.md
//! have a part between two marks, which is made of them, and so are the charts. `tidy` checks that
//! these are what the stored figures result in.

use crate::process::{self, Workspace};
use anyhow::{Context, Result, ensure};
use bench_report::{Chart, Report, Section};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the benchmark with `arguments`. With `write`, its figures replace those in the documents. With
/// `unpatched`, or to write, it has the contenders of bench/unpatched.
pub(crate) fn run(
    workspace: &Workspace,
    write: bool,
    unpatched: bool,
    arguments: &[String],
) -> Result<()> {
    let mut bench = workspace.cargo_linked(["run", "--release", "--package", "transport-bench"]);
    bench.args(["--features", if workspace.is_bundled() { "s2n" } else { "s2n,system" }]);
    bench.arg("--").args(arguments);
    if write || unpatched {
        bench.arg("--unpatched").arg(build_unpatched(workspace)?);
    }
    if !write {
        return process::run(&mut bench);
    }
    ensure!(workspace.is_bundled(), "the documents have figures of the bundled libmsquic");
    process::run(bench.arg("--json").arg(workspace.root.join(FIGURES)))?;
    render(&workspace.root)
}

/// Builds the contenders that link msquic as its crate builds it, and returns the program.
fn build_unpatched(workspace: &Workspace) -> Result<PathBuf> {
    process::output(Command::new("cmake").arg("--version"))
        .context("install cmake, with which the crate msquic builds its library")?;
    let mut build = workspace.cargo(["build", "--release", "--target-dir"]);
    build.arg(&workspace.target).args(["--manifest-path", "bench/unpatched/Cargo.toml"]);
    process::run(&mut build)?;
    Ok(workspace.target.join("release/unpatched-bench"))
}

/// Writes what the stored figures result in.
pub(crate) fn render(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("docs/charts"))?;
    for (path, text) in files(root)? {
        let path = root.join(path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Returns which files differ from what the stored figures result in.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let differs = |(path, text): &(String, String)| {
        fs::read_to_string(root.join(path)).map_or(true, |stored| stored != *text)
    };
    let files = files(root)?.into_iter().filter(differs);
    Ok(files.map(|(path, _)| format!("{path} has not the figures of {FIGURES}")).collect())
}

/// Returns the files that the stored figures result in, with their paths. None without figures.
fn files(root: &Path) -> Result<BTreeMap<String, String>> {
    let path = root.join(FIGURES);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let report = Report::read(&path)?;
    let mut files = BTreeMap::new();
    for section in &report.sections {
        let chart = Chart { section, rows: &[], contenders: &[] };
        files.insert(format!("docs/{}", chart_of(section)), chart.draw());
    }
    let all = report.markdown(|section| Some(chart_of(section)));
    let all = format!("{all}\n### The goals\n\n{}", report.goals());
    for (path, part) in [(PERFORMANCE, all), (COMPARISON, summary(&report)?)] {
        let document = fs::read_to_string(root.join(path))?;
        files.insert(path.to_owned(), replace(&document, &part).context(path)?);
    }
    let section = messages(&report)?;
    let chart = Chart { section, rows: &ROWS, contenders: &CONTENDERS };
    files.insert(format!("docs/{SUMMARY_CHART}"), chart.draw());
    Ok(files)
}

/// Returns the figures of the comparison.
fn summary(report: &Report) -> Result<String> {
    let table = messages(report)?.summary(&ROWS, &CONTENDERS);
    Ok(format!("![Messages over loopback](../{SUMMARY_CHART})\n\n{table}"))
}

fn messages(report: &Report) -> Result<&Section> {
    report.section("messages").context("the figures have no section \"messages\"")
}

/// Returns the document with another part between the marks.
fn replace(document: &str, part: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("there is no begin of the figures")?;
    let (_, after) = rest.split_once(END).context("there is no end of the figures")?;
    Ok(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

/// Returns the path of a section's chart from docs/performance.md.
fn chart_of(section: &Section) -> String {
    format!("charts/{}.svg", section.name)
}

/// The figures of all rounds.
const FIGURES: &str = "docs/performance.json";

/// The document with all figures.
const PERFORMANCE: &str = "docs/performance.md";

/// The document with some of them.
const COMPARISON: &str = "docs/manual/comparison.md";

/// The chart of the comparison, which README.md shows too.
const SUMMARY_CHART: &str = "charts/summary.svg";

/// The lines before and after the figures.
const BEGIN: &str = "<!-- figures of `cargo xtask bench --write` -->";
const END: &str = "<!-- end of the figures -->";

/// What the comparison shows of the section "messages".
const ROWS: [&str; 4] = [
    "128 B one-way, 1000/s",
    "64 KiB one-way, MB/s",
    "1 MiB one-way, MB/s",
    "128 B ping-pong p50, us",
];
const CONTENDERS: [&str; 7] =
    ["ours", "ours, driven", "quinn", "s2n-quic", "TCP+TLS", "raw msquic", "msquic-async 0.4.1"];

#[cfg(test)]
mod tests {
    use super::*;
    use bench_report::Row;

    #[test]
    fn each_goal_has_a_figure() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let report = Report::read(&root.join(FIGURES)).unwrap();
        assert_eq!(
            report.goals_without_figure(),
            [""; 0],
            "a name differs, or it was not measured"
        );
    }

    #[test]
    fn files_that_are_not_made_of_the_stored_figures_are_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        fs::create_dir_all(root.path().join("docs/manual")).unwrap();
        assert!(check(root.path()).unwrap().is_empty(), "there are no figures yet");
        let rounds = vec![vec![Some(3.0)]];
        let row = Row { name: ROWS[0].to_owned(), is_drawn: true, rounds, ..Row::default() };
        let section = Section {
            name: "messages".to_owned(),
            title: "One connection".to_owned(),
            contenders: vec!["ours".to_owned()],
            rows: vec![row],
        };
        let report = Report { sections: vec![section], ..Report::default() };
        report.write(&root.path().join(FIGURES)).unwrap();
        for document in [PERFORMANCE, COMPARISON] {
            write(document, &format!("before {BEGIN} old {END} after"));
        }
        assert_eq!(check(root.path()).unwrap().len(), 4, "two documents, two charts");
        render(root.path()).unwrap();
        assert_eq!(check(root.path()).unwrap(), [""; 0]);
        let comparison = fs::read_to_string(root.path().join(COMPARISON)).unwrap();
        assert!(comparison.starts_with("before "), "{comparison}");
        assert!(comparison.ends_with(" after"), "{comparison}");
        assert!(comparison.contains("| 128 B one-way, 1000/s | 3.00 |"), "{comparison}");
        write(COMPARISON, &comparison.replace("3.00", "4.00"));
        assert_eq!(check(root.path()).unwrap().len(), 1, "{COMPARISON}");
    }
}
