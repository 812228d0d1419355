//! Checks that every command in the workflows, `.ci/run` and the documents exists, with its options, and
//! that GitHub can read the forms for issues.

use crate::{Options, usage};
use clap::Parser;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use yaml_rust2::{Yaml, YamlLoader};

#[test]
fn the_workflows_call_only_xtask() {
    for path in files(".github/workflows") {
        let (workflow, place) = (yaml(&path), path.display());
        assert_eq!(workflow["permissions"]["contents"].as_str(), Some("read"), "{place}");
        let mut calls = 0;
        for (job, step) in steps(&workflow) {
            if let Some(action) = step["uses"].as_str() {
                assert!(is_pinned_checkout(action), "{place}, {job}: {action}");
                continue;
            }
            let run = step["run"].as_str();
            let run = run.unwrap_or_else(|| panic!("{place}, {job}: a step has no command"));
            for line in run.lines() {
                let arguments = xtask(line);
                assert!(arguments.is_some(), "{place}, {job}: `{line}` is not a call of xtask");
                parse(&arguments.unwrap(), &format!("{place}, job {job}"));
                calls += 1;
            }
        }
        assert!(calls >= 3, "{place}: only {calls} calls were found");
    }
}

/// GitHub ignores a form that does not have these keys.
#[test]
fn the_forms_for_issues_are_complete() {
    let types = ["markdown", "input", "textarea", "dropdown", "checkboxes"];
    let forms =
        files(".github/ISSUE_TEMPLATE").into_iter().filter(|it| !it.ends_with("config.yml"));
    for path in forms {
        let (form, place) = (yaml(&path), path.display());
        assert!(form["name"].as_str().is_some(), "{place} has no name");
        assert!(form["description"].as_str().is_some(), "{place} has no description");
        let mut ids = BTreeSet::new();
        for element in form["body"].as_vec().unwrap() {
            let kind = element["type"].as_str().unwrap_or_default();
            assert!(types.contains(&kind), "{place}: an element has the type {kind:?}");
            let attributes = &element["attributes"];
            let text = if kind == "markdown" { &attributes["value"] } else { &attributes["label"] };
            assert!(text.as_str().is_some(), "{place}: an element of type {kind} has no text");
            let id = element["id"].as_str();
            assert!(kind == "markdown" || id.is_some_and(|id| ids.insert(id)), "{place}: {id:?}");
        }
        assert!(!ids.is_empty(), "{place} has no fields");
    }
}

#[test]
fn the_dependencies_of_cargo_and_workflows_are_updated() {
    let settings = yaml(Path::new(".github/dependabot.yml"));
    assert_eq!(settings["version"].as_i64(), Some(2));
    let updates = settings["updates"].as_vec().unwrap();
    let kinds = updates.iter().filter_map(|update| update["package-ecosystem"].as_str());
    assert_eq!(kinds.collect::<Vec<_>>(), ["cargo", "github-actions"]);
}

#[test]
fn ci_tests_each_platform_with_its_commands() {
    let workflow = yaml(Path::new(".github/workflows/ci.yml"));
    let runners = |job: &str| -> Vec<String> {
        let matrix = &workflow["jobs"][job]["strategy"]["matrix"]["runner"];
        matrix.as_vec().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let commands = |job: &str| -> Vec<String> {
        let steps = steps(&workflow).into_iter().filter(|(name, _)| name == job);
        steps.filter_map(|(_, step)| step["run"].as_str().map(str::to_owned)).collect()
    };
    let linux = runners("linux");
    assert!(linux.iter().any(|it| it.ends_with("-arm")), "{linux:?}");
    assert!(linux.iter().any(|it| !it.ends_with("-arm")), "{linux:?}");
    assert_eq!(commands("linux"), ["cargo xtask setup --nightly", "cargo xtask ci"]);
    let portable = runners("portable");
    assert!(["macos", "windows"].iter().all(|os| portable.iter().any(|it| it.starts_with(os))));
    assert_eq!(commands("portable"), ["cargo xtask portable"]);
    assert_eq!(commands("msrv"), ["cargo xtask setup --msrv", "cargo xtask msrv"]);
}

#[test]
fn the_ci_script_runs_the_commands_of_the_readme() {
    let script = read(".ci/run");
    let of_script: Vec<_> = script.lines().map(|line| line.trim_start_matches("exec ")).collect();
    let of_script: Vec<_> = of_script.into_iter().filter_map(xtask).collect();
    let readme = read("README.md");
    let (_, section) = readme.split_once("\n## Try it\n").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut of_readme: Vec<_> = block.lines().filter_map(xtask).collect();
    of_readme.retain(|command| *command != ["demo"]); // which `ci` runs too
    assert_eq!(of_script, [["setup"], ["ci"]]);
    assert_eq!(of_readme, of_script);
}

#[test]
fn commands_in_documents_exist() {
    let mut documents: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", ".ci/run"].map(PathBuf::from).into();
    documents.extend(["docs", ".github"].into_iter().flat_map(files));
    documents.retain(|path| !path.starts_with("docs/api"));
    let mut calls = 0;
    for document in &documents {
        let text = read(document);
        let lines = text.lines().map(|line| line.trim_start_matches("exec "));
        let quoted = text.split('`').skip(1).step_by(2);
        for arguments in lines.chain(quoted).filter_map(xtask) {
            parse(&arguments, &document.display().to_string());
            calls += 1;
        }
    }
    assert!(calls >= 8, "only {calls} calls were found");
}

#[test]
fn the_help_shows_the_full_command() {
    let mut command = usage::command();
    command.build();
    let usage = |command: &mut clap::Command| command.render_usage().to_string();
    assert!(usage(&mut command).starts_with("Usage: cargo xtask "), "{}", usage(&mut command));
    for subcommand in command.get_subcommands_mut() {
        let expected = format!("Usage: cargo xtask {}", subcommand.get_name());
        assert!(usage(subcommand).starts_with(&expected), "{}", usage(subcommand));
    }
}

/// Returns the steps of all jobs, with the name of the job.
fn steps(workflow: &Yaml) -> Vec<(String, Yaml)> {
    let jobs = workflow["jobs"].as_hash().expect("the workflow has jobs");
    let steps = jobs.iter().flat_map(|(name, job)| {
        let name = name.as_str().unwrap_or_default().to_owned();
        let steps = job["steps"].as_vec().expect("a job has steps").clone();
        steps.into_iter().map(move |step| (name.clone(), step))
    });
    steps.collect()
}

fn yaml(path: &Path) -> Yaml {
    let documents = YamlLoader::load_from_str(&read(path));
    let documents = documents.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    documents.into_iter().next().unwrap()
}

/// Returns the files in a folder and its folders, in order, with paths below the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = format!("{folder}/{}", entry.unwrap().file_name().display());
        if root().join(&path).is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path.into());
        }
    }
    files.sort();
    files
}

/// Whether this is GitHub's checkout action, pinned to a commit, since a tag can be moved.
fn is_pinned_checkout(action: &str) -> bool {
    let commit = action.strip_prefix("actions/checkout@");
    commit.is_some_and(|it| it.len() == 40 && it.bytes().all(|it| it.is_ascii_hexdigit()))
}

/// Returns the arguments of a call of xtask; `None` for other lines.
fn xtask(line: &str) -> Option<Vec<&str>> {
    let call = line.split(" #").next()?.trim();
    let arguments: Vec<_> = call.strip_prefix("cargo xtask ")?.split_whitespace().collect();
    (!arguments.is_empty()).then_some(arguments)
}

fn parse(arguments: &[&str], place: &str) {
    let words = ["cargo xtask"].iter().chain(arguments);
    if let Err(error) = Options::try_parse_from(words) {
        assert!(!error.use_stderr(), "{place}: cargo xtask {}: {error}", arguments.join(" "));
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
