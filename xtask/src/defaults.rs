//! Checks that the documentation of each option shows the default that the code sets.

use std::fs;
use std::path::{Path, PathBuf};

/// The files that define options with `net_kit::options!` or a macro on top of it.
const FILES: &[&str] = &[
    "crates/msquic-transport/src/config.rs",
    "crates/net-kit/src/options.rs",
    "crates/net-kit/src/quic.rs",
    "crates/net-peers/src/fallback.rs",
    "crates/net-peers/src/pool/config.rs",
    "crates/quinn-transport/src/config.rs",
    "crates/tcp-tls-transport/src/config.rs",
];

/// An option as its file shows it.
struct Entry {
    name: String,
    documented: String,
    value: String,
}

#[test]
fn the_documentation_of_options_shows_their_defaults() {
    let constants = read("crates/net-kit/src/options.rs");
    let mut compared = 0;
    for file in FILES {
        let text = read(file);
        for Entry { name, documented, value } in entries(&text) {
            let Some(documented) = figure(&documented) else { continue };
            let set = evaluate(&value, &[&text, &constants]);
            let message = format!("{file}: the documentation of `{name}` shows another default");
            assert_eq!(set, Some(documented), "{message} than `{value}`");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} defaults were found: see `entries`");
}

#[test]
fn every_file_with_options_is_checked() {
    let root = root();
    let mut found: Vec<String> = Vec::new();
    let mut folders = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs")
                && fs::read_to_string(&path).unwrap().contains("options! {")
            {
                found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert_eq!(found, FILES);
}

#[test]
fn figures_and_expressions_are_compared_by_value() {
    let constants = "pub const LONG: Duration = Duration::from_secs(10 * 60);";
    for (documented, value, is_same) in [
        ("1 MiB", "1024 * 1024", true),
        ("10 000", "10_000", true),
        ("10 min, in which much passes", "$crate::options::LONG", true),
        ("333 ms (RFC 9002, section 6.2.2)", "::std::time::Duration::from_millis(333)", true),
        ("true (msquic)", "true", true),
        ("10 s", "Duration::from_secs(11)", false),
        ("[`LONG`], 10 min", "LONG", true),
    ] {
        let same = evaluate(value, &[constants]) == Some(figure(documented).unwrap());
        assert_eq!(same, is_same, "{documented} and {value}");
    }
    assert_eq!(figure("the system chooses"), None);
}

/// Returns the options of a file whose documentation shows a default.
fn entries(text: &str) -> Vec<Entry> {
    let (mut entries, mut doc) = (Vec::new(), String::new());
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(more) = line.strip_prefix("///") {
            doc.push_str(more);
            continue;
        }
        let documented = doc.rsplit_once("Default: ").map(|(_, default)| default.to_owned());
        doc.clear();
        let Some(documented) = documented else { continue };
        let mut item = line.to_owned();
        while !item.ends_with(';') {
            let Some(next) = lines.next().filter(|_| item.ends_with(['=', ','])) else { break };
            item = format!("{item} {next}");
        }
        let (Some((name, _)), Some((_, value))) = (item.split_once(": "), item.split_once(" = "))
        else {
            continue;
        };
        let value = value.split([',', ';']).next().unwrap_or_default().to_owned();
        entries.push(Entry { name: name.to_owned(), documented, value });
    }
    entries
}

/// Returns the value of a default in the documentation, durations in milliseconds; `None` if it is
/// none that can be computed.
fn figure(text: &str) -> Option<u64> {
    let text = text.rsplit_once("`], ").map_or(text, |(_, figure)| figure);
    let text = text.split([',', '.', '(', ':', ';']).next()?.trim();
    match text {
        "true" => return Some(1),
        "false" => return Some(0),
        _ => {}
    }
    let is_digit = |c: char| c.is_ascii_digit() || c == ' ';
    let (number, unit) = text.split_at(text.find(|c| !is_digit(c)).unwrap_or(text.len()));
    let number: u64 = number.replace(' ', "").parse().ok()?;
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    Some(number * factor)
}

/// Returns the value of an expression, durations in milliseconds; constants are looked up in `texts`.
fn evaluate(expression: &str, texts: &[&str]) -> Option<u64> {
    let expression = expression.trim();
    if let Some((_, argument)) = expression.split_once("Duration::from_") {
        let (unit, argument) = argument.trim_end_matches(')').split_once('(')?;
        let factor = match unit {
            "secs" => 1000,
            "millis" => 1,
            _ => return None,
        };
        return Some(evaluate(argument, texts)? * factor);
    }
    if let Some((left, right)) = expression.split_once(" * ") {
        return Some(evaluate(left, texts)? * evaluate(right, texts)?);
    }
    match expression {
        "true" => return Some(1),
        "false" => return Some(0),
        _ => {}
    }
    expression.replace('_', "").parse().ok().or_else(|| {
        let name = expression.rsplit("::").next()?;
        let lines = || texts.iter().flat_map(|text| text.lines());
        let line = lines().find(|line| line.contains(&format!("const {name}: ")))?;
        let (_, value) = line.trim_end_matches(';').split_once(" = ")?;
        (value != expression).then(|| evaluate(value, texts))?
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
