//! `Output`: events for people or, with `--json`, one JSON object a line; and progress.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Where a command prints. Clones share the progress bars.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    bars: MultiProgress,
}

impl Output {
    /// `quiet` hides [notes](Self::note) and progress.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, bars: MultiProgress::new() }
    }

    /// Prints a result: `text`, or an object with the key `event` and `fields`, which is an object.
    pub(crate) fn event(&self, event: &str, text: impl Display, fields: Value) {
        let line = match self.json {
            true => object(event, fields).to_string(),
            false => escaped(&text.to_string()),
        };
        self.bars.suspend(|| {
            // A reader that has gone does not end the program.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        });
    }

    /// Prints an event that `--quiet` hides.
    pub(crate) fn note(&self, event: &str, text: impl Display, fields: Value) {
        if !self.quiet {
            self.event(event, text, fields);
        }
    }

    /// Prints an error to the standard error, and as an event with `--json`.
    pub(crate) fn error(&self, text: &str, mut fields: Value) {
        if self.json {
            if let Value::Object(fields) = &mut fields {
                fields.insert("message".to_owned(), text.into());
            }
            self.event("error", "", fields);
        }
        let text = escaped(text);
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "netmsg: {text}");
        });
    }

    /// Returns the display of a transfer of `size` bytes.
    pub(crate) fn progress(&self, event: &'static str, name: &str, size: u64) -> Progress {
        let bar = (!self.quiet && !self.json && std::io::stderr().is_terminal()).then(|| {
            let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(template);
            let bar = self.bars.add(ProgressBar::new(size));
            bar.with_style(style.unwrap_or(ProgressStyle::default_bar()))
        });
        let (output, name) = (self.clone(), name.to_owned());
        let (tenths, started) = (Cell::new(0), Instant::now());
        Progress { output, event, name, bar, size, tenths, started }
    }
}

/// A progress bar on a terminal, otherwise an event for each tenth.
pub(crate) struct Progress {
    output: Output,
    event: &'static str,
    name: String,
    bar: Option<ProgressBar>,
    size: u64,
    tenths: Cell<u64>,
    started: Instant,
}

impl Progress {
    pub(crate) fn set(&self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let tenths = (u128::from(done) * 10 / u128::from(self.size.max(1))) as u64;
        if tenths > self.tenths.replace(tenths) {
            let seconds = self.started.elapsed().as_secs_f64();
            let (event, name, size) = (self.event, &self.name, self.size);
            let text = format!("{event} {done} of {size} bytes of {name}, {seconds:.1} s");
            let fields = serde_json::json!({ "name": name, "bytes": done, "size": size });
            self.output.note(event, text, fields);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Formats an error with its causes in one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors include the text of their cause.
        if parts.last().is_none_or(|last| !last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// Whether a character could change the terminal, or makes a text look like another one: control
/// characters, and those that have no width or change the text direction.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{feff}')
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}')
}

/// Replaces [hidden](is_hidden) characters by their numbers.
fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => line.push(character),
            _ if is_hidden(character) => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
    line
}

fn object(event: &str, fields: Value) -> Value {
    let mut object = Map::from_iter([("event".to_owned(), event.into())]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn causes_are_printed_once() {
        let error = anyhow!("disk full").context("cannot write: disk full").context("stored");
        assert_eq!(one_line(&error), "stored: cannot write: disk full");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\u{1b}[2J\u{9b}b\u{200b}"), "a\\u{1b}[2J\\u{9b}b\\u{200b}");
    }

    #[test]
    fn an_object_has_its_event() {
        let object = object("stored", serde_json::json!({ "size": 5 }));
        assert_eq!(object, serde_json::json!({ "event": "stored", "size": 5 }));
    }
}
