//! Promises: what `docs/delivery.md` promises is tested, by the tests that it names.
//!
//! A name has two parts, `group::test`: a group of the conformance suite, or the file of a test.

use anyhow::Result;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/delivery.md";

/// Headings under which nothing is promised.
const WITHOUT_PROMISES: [&str; 2] = ["Measured", "Open"];

/// Finds names of tests that do not exist, and promises without a name. `sources` are the paths of Rust
/// files.
pub(crate) fn check(root: &Path, sources: &[impl AsRef<Path>]) -> Result<Vec<String>> {
    let mut tests = HashSet::new();
    for path in sources.iter().map(AsRef::as_ref) {
        let group = group(path);
        let text = fs::read_to_string(path)?;
        tests.extend(functions(&text).map(|name| format!("{group}::{name}")));
    }
    let text = fs::read_to_string(root.join(DOCUMENT))?;
    Ok(complaints(&text, &tests).map(|what| format!("{DOCUMENT}: {what}")).collect())
}

/// Returns the group of the tests of a file: its name, or that of its folder.
fn group(path: &Path) -> String {
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_stem).unwrap_or_default().to_string_lossy().into_owned()
    };
    match name(Some(path)) {
        module if module == "mod" || module == "tests" => name(path.parent()),
        name => name,
    }
}

/// Returns the names of the functions in Rust code.
fn functions(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let (before, rest) = line.split_once("fn ")?;
        let is_function = matches!(before.trim(), "" | "async" | "pub" | "pub async");
        is_function.then(|| rest.split(['(', '<']).next().unwrap_or_default())
    })
}

fn complaints(document: &str, tests: &HashSet<String>) -> impl Iterator<Item = String> {
    let sections = document.split("\n## ").skip(1);
    let promising = sections
        .filter(|section| !WITHOUT_PROMISES.contains(&section.lines().next().unwrap_or_default()));
    let without_name = promising.flat_map(promises).filter(|it| names(it).next().is_none());
    let without_name = without_name.map(|promise| {
        let begin = promise.lines().next().unwrap_or_default();
        format!("no test is named behind {begin:?}")
    });
    let missing = names(document).filter(|name| !tests.contains(*name));
    without_name.chain(missing.map(|name| format!("there is no test `{name}`")))
}

/// Splits a section into its bullets and paragraphs. What is indented belongs to the bullet before.
fn promises(section: &str) -> Vec<String> {
    let mut promises = Vec::<String>::new();
    let mut begins = true;
    for line in section.lines().skip(1) {
        if line.is_empty() {
            begins = true;
        } else if line.starts_with("- ") || begins && !line.starts_with(' ') {
            promises.push(line.to_owned());
            begins = false;
        } else if let Some(promise) = promises.last_mut() {
            promise.push('\n');
            promise.push_str(line);
        }
    }
    promises
}

/// Returns the names of tests in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|it| matches!(it, 'a'..='z' | '0'..='9' | '_'))
    };
    text.split('`').skip(1).step_by(2).filter(move |name| {
        name.split_once("::").is_some_and(|(group, test)| is_word(group) && is_word(test))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_promise_names_a_test_that_exists() {
        let tests = ["close::one_arrives".to_owned(), "outbox::many_arrive".to_owned()];
        let found = |document: &str| complaints(document, &tests.clone().into()).count();
        assert_eq!(found("# D\n\nText.\n\n## Sending\n\n- One (`close::one_arrives`).\n"), 0);
        let two = "# D\n\n## Sending\n\n- One: `close::one_arrives`.\n- Many\n  arrive.\n";
        assert_eq!(found(two), 1);
        let with_table = "# D\n\n## Closing\n\n- One:\n\n  | `outbox::many_arrive` |\n\nText.\n";
        assert_eq!(found(with_table), 1, "the last paragraph");
        assert_eq!(found("# D\n\n## Open\n\n- All.\n\n## Measured\n\nMuch.\n"), 0);
        assert_eq!(found("# D\n\n`close::missing`, `Type::method`, `a::b::c` and `close`\n"), 1);
    }

    #[test]
    fn the_group_of_a_test_is_its_file_or_folder() {
        for (path, expected) in [
            ("crates/x/tests/flush.rs", "flush"),
            ("crates/x/src/outbox/tests.rs", "outbox"),
            ("crates/x/tests/broken/mod.rs", "broken"),
        ] {
            assert_eq!(group(Path::new(path)), expected);
        }
        let code = "#[test]\nfn one() {}\npub async fn two<H>() {}\n// no fn three()\n";
        assert_eq!(functions(code).collect::<Vec<_>>(), ["one", "two"]);
    }
}
