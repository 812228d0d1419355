//! Compares documents with sources: the examples of the wire protocol, the code of the guide, and the
//! tests of the contract. Checks that the book has every chapter.
//!
//! The documents are not in the packages, whose own tests read only files that the registry has.
//! So these comparisons are made here.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the differences.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let document = |name: &str| {
        let path = root.join("docs").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut complaints = examples(root, &document("wire-protocol.md")?)?;
    let tutorial = fs::read_to_string(root.join("crates/net-traits-test/tests/tutorial.rs"))?;
    complaints.extend(guide(&document("implementing-a-transport.md")?, &tutorial));
    let sources = files(&root.join("crates/msquic-async/src/ffi/contract"), "rs")?;
    let sources = sources.iter().map(fs::read_to_string).collect::<Result<String, _>>()?;
    complaints.extend(contract(&document("msquic-contract.md")?, &sources));
    let compiled = fs::read_to_string(root.join("examples/manual.rs"))?;
    for folder in ["docs", "docs/manual"] {
        for path in files(&root.join(folder), "md")? {
            let name = path.strip_prefix(root.join("docs"))?.display().to_string();
            let chapter = fs::read_to_string(&path)?;
            complaints.extend(book(&name, &chapter, &document("SUMMARY.md")?, &compiled));
        }
    }
    Ok(complaints)
}

/// Every document is a chapter of the book, and the code of the manual compiles.
fn book(name: &str, chapter: &str, summary: &str, compiled: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if name != "SUMMARY.md" && !summary.contains(&format!("]({name})")) {
        complaints.push(format!("docs/SUMMARY.md does not list {name}"));
    }
    let manual = name.strip_prefix("manual/").and_then(|name| name.strip_suffix(".md"));
    let has_code = blocks(chapter, "rust").next().is_some();
    if manual.is_some_and(|it| has_code && !compiled.contains(&format!("\"{it}\""))) {
        complaints.push(format!("examples/manual.rs does not compile the code of docs/{name}"));
    }
    complaints
}

/// The examples of the wire protocol are those that the packages test.
fn examples(root: &Path, protocol: &str) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in fs::read_dir(root.join("crates"))? {
        let folder = package?.path().join("testdata");
        for file in if folder.is_dir() { files(&folder, "txt")? } else { Vec::new() } {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let block = blocks(protocol, &name).next();
            if block != Some(&*fs::read_to_string(&file)?) {
                let file = file.strip_prefix(root).unwrap_or(&file).display();
                complaints.push(format!("{file}: docs/wire-protocol.md has no ```{name} like it"));
            }
        }
    }
    Ok(complaints)
}

/// Every Rust block of the guide is part of the tutorial, which compiles and passes; `// ...` stands
/// for code that the guide omits.
fn guide(guide: &str, tutorial: &str) -> Vec<String> {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let tutorial = flat(tutorial);
    let pieces = blocks(guide, "rust").flat_map(|block| block.split("// ..."));
    let missing = pieces.filter(|piece| !tutorial.contains(&flat(piece)));
    missing.map(|piece| format!("the guide shows code that the tutorial lacks:\n{piece}")).collect()
}

/// Each clause of the contract names its tests or its source, and each test belongs to a clause.
fn contract(contract: &str, sources: &str) -> Vec<String> {
    let tests: BTreeSet<_> = sources
        .lines()
        .filter_map(|line| line.strip_prefix("fn ")?.split('(').next())
        .filter(|name| clause_of(name).is_some())
        .collect();
    let (mut complaints, mut numbers, mut named) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for clause in contract.split("\n- **C").skip(1) {
        let number = clause.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        if !numbers.insert(number) {
            complaints.push(format!("the contract has C{number} twice"));
        }
        let marks: Vec<_> =
            clause.split("*(").skip(1).filter_map(|mark| mark.split(")*").next()).collect();
        let mut is_founded = marks.iter().any(|mark| mark.starts_with("by source"));
        for mark in marks.iter().filter_map(|mark| mark.strip_prefix("tested: ")) {
            for test in mark.split(',').map(|name| name.trim().trim_matches('`')) {
                if !tests.contains(test) || clause_of(test) != Some(number) {
                    complaints.push(format!("C{number} names {test}, which is no test of it"));
                }
                named.insert(test);
                is_founded = true;
            }
        }
        if !is_founded {
            complaints.push(format!("C{number} says neither how it is tested nor its source"));
        }
    }
    let unnamed = tests.difference(&named);
    complaints.extend(unnamed.map(|test| format!("the contract does not name the test {test}")));
    complaints
}

/// The number in the name of a test, such as 7 in `c7_what_holds`.
fn clause_of(test: &str) -> Option<&str> {
    let number = test.strip_prefix('c')?.split('_').next()?;
    number.parse::<u32>().is_ok().then_some(number)
}

/// The contents of the fenced blocks in a language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let blocks: Vec<_> = text.split(&format!("```{language}\n")).skip(1).collect();
    blocks.into_iter().filter_map(|block| block.split("```").next())
}

/// The files of a folder with an extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == extension));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_may_omit_code_but_not_invent_it() {
        let tutorial = "fn a() {\n    one();\n    two();\n}\n";
        assert!(guide("```rust\nfn a() {\n// ...\n two();\n}\n```", tutorial).is_empty());
        assert_eq!(guide("```rust\nfn b() {}\n```", tutorial).len(), 1);
    }

    #[test]
    fn chapters_are_in_the_book_and_their_code_compiles() {
        let (summary, compiled) = ("- [A](manual/a.md)\n- [B](b.md)", "a = \"a\"");
        assert!(book("manual/a.md", "```rust\nf();\n```", summary, compiled).is_empty());
        assert!(book("b.md", "```rust\nf();\n```", summary, compiled).is_empty());
        assert_eq!(book("manual/a.md", "```rust\nf();\n```", "", "").len(), 2);
        assert_eq!(book("manual/a.md", "no code", summary, "").len(), 0);
    }

    #[test]
    fn clauses_and_tests_name_each_other() {
        let clauses = "\n- **C1** holds *(tested: `c1_it`)*\n- **C2** too *(by source: x.c)*";
        assert!(contract(clauses, "fn c1_it() {\nfn other() {\n").is_empty());
        assert_eq!(contract(clauses, "fn c1_it() {\nfn c2_more() {\n").len(), 1, "unnamed");
        assert_eq!(contract(clauses, "").len(), 1, "no such test");
        assert_eq!(contract("\n- **C1** holds", "").len(), 1, "no reason");
        assert_eq!(contract(&clauses.replace("C2", "C1"), "fn c1_it() {\n").len(), 1, "twice");
    }
}
