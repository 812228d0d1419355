//! Patches: the format of a patch file, and how its edits change a source file.
//!
//! A patch quotes as little of the source as possible. Each edit names lines of the *unpatched*
//! file by number. The hash of that file and a token of the first line verify the position. Patches
//! therefore do not depend on each other, and each can be omitted.
//!
//! An empty line precedes each `file`.
//!
//! ```text
//! fault: U2                                  its name in docs/libmsquic.md
//! title: ...                                 and further keys, one line each
//!
//! file: src/core/a.c <SHA-256 of the file>
//! @ after 12 "token"                         inserts the lines that follow after line 12
//! @ replace 14-15 "token"                    replaces lines 14 and 15
//! @ delete 20-22 "token"
//! ```

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Major, minor, patch.
pub(crate) type Version = (u32, u32, u32);

/// A fault and the edits that fix it.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    keys: BTreeMap<String, String>,
    pub(crate) files: Vec<FileEdits>,
}

/// The edits of one source file.
#[derive(Debug)]
pub(crate) struct FileEdits {
    pub(crate) path: String,
    pub(crate) sha256: String,
    pub(crate) edits: Vec<Edit>,
}

/// Replaces lines `first..end` (counted from 0) by `lines`.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) first: usize,
    pub(crate) end: usize,
    /// The line that contains the token, counted from 0.
    anchor: usize,
    token: String,
    lines: Vec<String>,
}

/// How a patch applies to a source tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The files are those that it was made for.
    Applies,
    /// The version contains its own fix.
    Fixed,
}

/// The required keys of a patch.
pub(crate) const KEYS: [&str; 7] =
    ["fault", "title", "issue", "affects", "fixed", "without", "test"];

impl Patch {
    /// Parses a patch.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut patch = Self::default();
        for (number, line) in text.lines().enumerate() {
            patch.parse_line(line).map_err(|why| format!("line {}: {why}", number + 1))?;
        }
        if let Some(key) = KEYS.iter().find(|key| patch.key(key).is_empty()) {
            return Err(format!("the key `{key}` is missing"));
        }
        if patch.files.iter().all(|file| file.edits.is_empty()) {
            return Err("the patch changes nothing".to_owned());
        }
        Ok(patch)
    }

    fn parse_line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("file: ") {
            let (path, sha256) = rest.split_once(' ').ok_or("expected `file: PATH SHA256`")?;
            let (path, sha256) = (path.to_owned(), sha256.to_owned());
            let before = self.files.last_mut().and_then(|file| file.edits.last_mut());
            if let Some(edit) =
                before.filter(|edit| edit.lines.last().is_some_and(String::is_empty))
            {
                edit.lines.pop(); // the empty line between two files
            }
            self.files.push(FileEdits { path, sha256, edits: Vec::new() });
            return Ok(());
        }
        let Some(file) = self.files.last_mut() else {
            if let Some((key, value)) = line.split_once(": ") {
                self.keys.insert(key.to_owned(), value.trim().to_owned());
            } else if !line.is_empty() {
                return Err("expected `key: value`".to_owned());
            }
            return Ok(());
        };
        if let Some(directive) = line.strip_prefix("@ ") {
            file.edits.push(Edit::parse(directive)?);
        } else if let Some(edit) = file.edits.last_mut() {
            edit.lines.push(line.to_owned());
        } else if !line.is_empty() {
            return Err("a line outside of an edit".to_owned());
        }
        Ok(())
    }

    /// Returns the value of a key; empty if missing.
    pub(crate) fn key(&self, name: &str) -> &str {
        self.keys.get(name).map_or("", String::as_str)
    }

    /// Decides how this patch applies to a tree of that version, whose files `read` returns.
    pub(crate) fn judge(
        &self,
        version: Version,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Verdict, String> {
        let other = self.files.iter().find(|file| {
            read(&file.path).is_none_or(|text| sha256(text.as_bytes()) != file.sha256)
        });
        match other {
            None => Ok(Verdict::Applies),
            Some(_) if is_fixed(self.key("fixed"), version) => Ok(Verdict::Fixed),
            Some(file) => Err(format!(
                "patch {} does not apply to this {} (version {}.{}.{}), and that version is not known to \
                 have the fix; build a known source, or leave the patch out with LIBMSQUIC_SYS_WITHOUT={}",
                self.key("fault"),
                file.path,
                version.0,
                version.1,
                version.2,
                self.key("fault"),
            )),
        }
    }
}

impl Edit {
    fn parse(directive: &str) -> Result<Self, String> {
        let usage =
            "expected `@ after N \"token\"`, `@ replace N-M \"token\"` or `@ delete N-M \"token\"`";
        let mut words = directive.splitn(3, ' ');
        let (Some(verb), Some(range), Some(token)) = (words.next(), words.next(), words.next())
        else {
            return Err(usage.to_owned());
        };
        let token =
            token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).ok_or(usage)?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().ok().filter(|&line| line > 0).ok_or(usage);
        let (first, last) = (number(first)?, number(last)?);
        let (start, end) = match verb {
            "after" if first == last => (first, first),
            "replace" | "delete" if first <= last => (first - 1, last),
            _ => return Err(usage.to_owned()),
        };
        let (anchor, token) = (first - 1, token.to_owned());
        Ok(Self { first: start, end, anchor, token, lines: Vec::new() })
    }
}

/// Applies the edits of several patches to one file.
pub(crate) fn apply(text: &str, edits: &[Edit]) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.first, edit.end));
    let mut result = String::with_capacity(text.len() + text.len() / 8);
    let mut next = 0;
    for edit in edits {
        let anchor = lines.get(edit.anchor).filter(|line| line.contains(&edit.token));
        if anchor.is_none() || edit.end > lines.len() {
            return Err(format!("line {} has no {:?}", edit.anchor + 1, edit.token));
        }
        if edit.first < next {
            return Err(format!("two edits change line {}", edit.first + 1));
        }
        push(&mut result, &lines[next..edit.first]);
        push(&mut result, &edit.lines);
        next = edit.end;
    }
    push(&mut result, &lines[next..]);
    Ok(result)
}

fn push(text: &mut String, lines: &[impl AsRef<str>]) {
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
}

/// Whether a release that is listed as having the fix precedes `version` on the same branch, or
/// every listed branch is older.
fn is_fixed(listed: &str, version: Version) -> bool {
    let releases: Vec<Version> =
        listed.split(',').filter_map(|text| parse_version(text.trim())).collect();
    let branch = (version.0, version.1);
    releases.iter().any(|&release| (release.0, release.1) == branch && release <= version)
        || (!releases.is_empty() && releases.iter().all(|release| (release.0, release.1) < branch))
}

fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// Returns the SHA-256 of a file in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
