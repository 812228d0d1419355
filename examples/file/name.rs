//! `FileName`: a name under which the file of a peer may be stored.

use std::fmt;
use std::path::{Path, PathBuf};

/// The name of a file within one directory: no path, not hidden, and valid on the file systems of
/// Linux, macOS and Windows. It has no control characters, so it can be printed to a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName(String);

impl FileName {
    /// Checks the name that a peer announced.
    ///
    /// # Errors
    ///
    /// [`NameError`] for the first fault found.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_BYTES {
            return Err(NameError::TooLong(name.len()));
        }
        let name = std::str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
        if let Some(character) = name.chars().find(|character| is_forbidden(*character)) {
            return Err(NameError::Character(character));
        }
        if name.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        if name.starts_with(' ') || name.ends_with([' ', '.']) {
            return Err(NameError::Edge);
        }
        if is_device(name) {
            return Err(NameError::Device);
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the path of the file in `directory`.
    pub(crate) fn within(&self, directory: &Path) -> PathBuf {
        directory.join(&self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a name is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("it is empty")]
    Empty,
    #[error("it has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it contains {0:?}")]
    Character(char),
    #[error("it begins with a dot")]
    LeadingDot,
    #[error("it begins with a space, or ends with a space or a dot")]
    Edge,
    #[error("it names a device on Windows")]
    Device,
}

/// Whether a character is a separator, reserved on Windows, a control character, or changes the
/// text direction.
fn is_forbidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// The longest name that common file systems accept, in bytes.
const MAX_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_accepted() {
        let longest = "n".repeat(MAX_BYTES);
        let plain =
            ["report.pdf", "a", "no extension", "Überblick.txt", "写真.jpg", "a..b", "-rf", "com"];
        for name in plain.into_iter().chain([longest.as_str()]) {
            let parsed = FileName::parse(name.as_bytes()).unwrap();
            assert_eq!(parsed.to_string(), name);
            let path = parsed.within(Path::new("out"));
            assert_eq!(path.parent(), Some(Path::new("out")), "{name:?} leaves the directory");
            assert_eq!(path.file_name().unwrap(), name);
        }
    }

    #[test]
    fn invalid_names_are_rejected_with_the_reason() {
        use NameError::{Character, Device, Edge, Empty, LeadingDot, NotUtf8, TooLong};
        let long = "n".repeat(MAX_BYTES + 1);
        for (name, expected) in [
            ("", Empty),
            (long.as_str(), TooLong(MAX_BYTES + 1)),
            (".", LeadingDot),
            ("..", LeadingDot),
            (".bashrc", LeadingDot),
            (".incoming-1234", LeadingDot),
            ("/etc/passwd", Character('/')),
            ("../up", Character('/')),
            ("a/b", Character('/')),
            ("a/", Character('/')),
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
            (" a", Edge),
            ("a ", Edge),
            ("a.", Edge),
            ("...a", LeadingDot),
            ("NUL", Device),
            ("con.txt", Device),
            ("Lpt9.tar.gz", Device),
            ("com¹", Device),
        ] {
            assert_eq!(FileName::parse(name.as_bytes()), Err(expected), "{name:?}");
        }
        assert_eq!(FileName::parse(b"\xff\xfe"), Err(NotUtf8));
    }
}
