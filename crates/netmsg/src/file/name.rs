//! `FilePath`: a name under which the file of a peer may be stored.

use crate::output::is_hidden;
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of a file below one directory: parts that are separated by `/`. Each part is a plain
/// name that is not hidden, and valid on the file systems of Linux, macOS and Windows. It has no
/// control characters, so it can be printed to a terminal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePath(String);

impl FilePath {
    /// Checks the name that a peer announced.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first fault found.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, NameError> {
        if name.len() > MAX_PATH {
            return Err(NameError::TooLong(name.len(), MAX_PATH));
        }
        let name = std::str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
        let parts = name.split('/').count();
        if parts > MAX_PARTS {
            return Err(NameError::TooDeep(parts));
        }
        name.split('/').try_for_each(check)?;
        Ok(Self(name.to_owned()))
    }

    /// Returns the path of the file in `directory`.
    pub(crate) fn within(&self, directory: &Path) -> PathBuf {
        // On Windows, too, `/` separates the parts of a path.
        directory.join(&self.0)
    }

    /// Returns the paths of the directories between `directory` and the file, from the outermost.
    pub(crate) fn parents_within(&self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        let ends = self.0.match_indices('/').map(|(end, _)| directory.join(&self.0[..end]));
        ends.collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a part of a name.
fn check(part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::Empty);
    }
    if part.len() > MAX_BYTES {
        return Err(NameError::TooLong(part.len(), MAX_BYTES));
    }
    if let Some(character) = part.chars().find(|character| is_forbidden(*character)) {
        return Err(NameError::Character(character));
    }
    if part.starts_with('.') {
        return Err(NameError::LeadingDot);
    }
    if part.starts_with(' ') || part.ends_with([' ', '.']) {
        return Err(NameError::Edge);
    }
    if is_device(part) {
        return Err(NameError::Device);
    }
    Ok(())
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("it is empty, or has an empty part")]
    Empty,
    #[error("it has {0} bytes, more than {1}")]
    TooLong(usize, usize),
    #[error("it has {0} parts, more than {MAX_PARTS}")]
    TooDeep(usize),
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it contains {0:?}")]
    Character(char),
    #[error("it, or a part of it, begins with a dot")]
    LeadingDot,
    #[error("it, or a part of it, begins with a space, or ends with a space or a dot")]
    Edge,
    #[error("it, or a part of it, names a device on Windows")]
    Device,
}

/// Whether a character is a separator, reserved on Windows, or hidden.
fn is_forbidden(character: char) -> bool {
    is_hidden(character)
        || matches!(character, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

/// Windows opens a device for these names in every directory, whatever extension follows.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        let number = stem.strip_prefix(device);
        number.is_some_and(|number| "123456789¹²³".chars().any(|it| number.chars().eq([it])))
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str())
        || numbered("COM")
        || numbered("LPT")
}

/// The longest part of a name that common file systems accept, in bytes.
const MAX_BYTES: usize = 255;

/// The longest name, in bytes.
pub(crate) const MAX_PATH: usize = 1024;

/// The most parts of a name.
const MAX_PARTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_accepted() {
        let longest = "n".repeat(MAX_BYTES);
        let plain =
            ["report.pdf", "a", "no extension", "Überblick.txt", "写真.jpg", "a..b", "-rf", "com"];
        for name in plain.into_iter().chain([longest.as_str()]) {
            let parsed = FilePath::parse(name.as_bytes()).unwrap();
            assert_eq!(parsed.to_string(), name);
            let path = parsed.within(Path::new("out"));
            assert_eq!(path.parent(), Some(Path::new("out")), "{name:?} leaves the directory");
            assert_eq!(path.file_name().unwrap(), name);
            assert_eq!(parsed.parents_within(Path::new("out")).count(), 0);
        }
    }

    #[test]
    fn a_name_may_have_directories() {
        let name = FilePath::parse(b"a/b c/d.txt").unwrap();
        let out = Path::new("out");
        assert_eq!(name.within(out), Path::new("out/a/b c/d.txt"));
        let parents = name.parents_within(out).collect::<Vec<_>>();
        assert_eq!(parents, [Path::new("out/a"), Path::new("out/a/b c")]);
    }

    #[test]
    fn invalid_names_are_rejected_with_the_reason() {
        use NameError::{Character, Device, Edge, Empty, LeadingDot, NotUtf8, TooDeep, TooLong};
        let (long, longest) = ("n".repeat(MAX_BYTES + 1), "n/".repeat(MAX_PATH));
        let deep = "n/".repeat(MAX_PARTS);
        for (name, expected) in [
            ("", Empty),
            (long.as_str(), TooLong(MAX_BYTES + 1, MAX_BYTES)),
            (longest.as_str(), TooLong(2 * MAX_PATH, MAX_PATH)),
            (deep.as_str(), TooDeep(MAX_PARTS + 1)),
            (".", LeadingDot),
            ("..", LeadingDot),
            (".bashrc", LeadingDot),
            (".incoming-1234", LeadingDot),
            ("/etc/passwd", Empty),
            ("../up", LeadingDot),
            ("a/../up", LeadingDot),
            ("a//b", Empty),
            ("a/", Empty),
            ("a /b", Edge),
            ("a/aux", Device),
            ("..\\up", Character('\\')),
            ("C:evil", Character(':')),
            ("file:stream", Character(':')),
            ("what?", Character('?')),
            ("a*", Character('*')),
            ("a\"b", Character('"')),
            ("<a", Character('<')),
            ("a>", Character('>')),
            ("a|b", Character('|')),
            ("nul\0inside", Character('\0')),
            ("line\nbreak", Character('\n')),
            ("\u{1b}[2J", Character('\u{1b}')),
            ("delete\u{7f}", Character('\u{7f}')),
            ("c1\u{9b}31m", Character('\u{9b}')),
            ("gpj.\u{202e}exe", Character('\u{202e}')),
            ("a\u{200b}", Character('\u{200b}')),
            ("a\u{2060}b", Character('\u{2060}')),
            ("\u{feff}a", Character('\u{feff}')),
            ("\u{61c}a", Character('\u{61c}')),
            (" a", Edge),
            ("a ", Edge),
            ("a.", Edge),
            ("...a", LeadingDot),
            ("NUL", Device),
            ("con.txt", Device),
            ("Lpt9.tar.gz", Device),
            ("com¹", Device),
        ] {
            assert_eq!(FilePath::parse(name.as_bytes()), Err(expected), "{name:?}");
        }
        assert_eq!(FilePath::parse(b"\xff\xfe"), Err(NotUtf8));
    }
}
