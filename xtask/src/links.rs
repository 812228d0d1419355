//! Checks the links between documents: that their files and headings exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the broken links of the documents among `tracked`, which are paths below `root`.
pub(crate) fn check(root: &Path, tracked: &[String]) -> Vec<String> {
    let documents: BTreeMap<PathBuf, String> = tracked
        .iter()
        .filter(|path| path.ends_with(".md"))
        // A file that was deleted is still tracked until the next commit.
        .filter_map(|path| Some((path.into(), fs::read_to_string(root.join(path)).ok()?)))
        .collect();
    let links = documents.iter().flat_map(|(path, text)| {
        let links = links(text);
        links.into_iter().map(move |link| (path, link))
    });
    let broken = links.filter_map(|(path, link)| {
        let what = broken(root, &documents, path, link)?;
        Some(format!("{}: the link {link} leads to {what}", path.display()))
    });
    broken.collect()
}

/// Returns what is wrong with a link of the document at `path`.
fn broken(
    root: &Path,
    documents: &BTreeMap<PathBuf, String>,
    path: &Path,
    link: &str,
) -> Option<&'static str> {
    // Others are web addresses, or items of Rust, which rustdoc checks.
    if link.contains(':') {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        path.to_owned()
    } else {
        normalized(&path.parent().unwrap_or(Path::new("")).join(file))
    };
    if !root.join(&target).exists() {
        return Some("no file");
    }
    let text = documents.get(&target).filter(|_| !anchor.is_empty())?;
    (!headings(text).iter().any(|heading| heading == anchor)).then_some("no heading")
}

/// Returns the targets of the links in the form `[text](target)`, except in code.
fn links(text: &str) -> Vec<&str> {
    let lines = prose(text).flat_map(|line| line.split('`').step_by(2).collect::<Vec<_>>());
    let parts = lines.flat_map(|text| text.split("](").skip(1));
    // The text of a link may be code, so that the line is split inside of the brackets.
    let targets = parts.filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains(' ')).collect()
}

/// Returns the anchors of the headings, as GitHub derives them.
fn headings(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let earlier = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
    }
    anchors
}

/// Returns the lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Removes `.` and `..` from a path without looking at the file system.
fn normalized(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_headings_must_exist() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        write("docs/a.md", "# Of `a`, and more\n## Twice\n## Twice\n```sh\n# no heading\n```\n");
        let complaints = |text: &str| {
            write("b.md", text);
            check(root.path(), &["docs/a.md".to_owned(), "b.md".to_owned()]).len()
        };
        let good = "# B\n[a](docs/a.md) [`a`](docs/../docs/a.md#of-a-and-more) [b](#b) [w](https://x) \
                    [t](docs/a.md#twice-1) `[code](none)` [item](crate::Item)\n```\n[code](none)\n```\n";
        assert_eq!(complaints(good), 0);
        assert_eq!(complaints("[a](a.md)"), 1);
        assert_eq!(complaints("[`a`](docs/none.md), [b](#none)"), 2);
        assert_eq!(complaints("[a](docs/a.md#no-heading)"), 1);
    }
}
