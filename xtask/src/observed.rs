//! Observed: each event and metric that `docs/observability.md` lists is in a test of a transport or of a pool.
//!
//! The tests of net-kit call the functions that emit them, and do not show that these are called.

use anyhow::Result;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/observability.md";

/// Finds events and metrics that no test names. `sources` are the paths of Rust files.
pub(crate) fn check(root: &Path, sources: &[impl AsRef<Path>]) -> Result<Vec<String>> {
    let mut tests = String::new();
    for path in sources.iter().map(AsRef::as_ref).filter(|path| is_test(path)) {
        tests.push_str(&fs::read_to_string(path)?);
    }
    let document = fs::read_to_string(root.join(DOCUMENT))?;
    Ok(unnamed(&document, &tests).map(|what| format!("{DOCUMENT}: {what}")).collect())
}

fn is_test(path: &Path) -> bool {
    let mut folders = path.components().map(|it| it.as_os_str());
    folders.any(|folder| folder == "tests" || folder == "observability")
}

fn unnamed(document: &str, tests: &str) -> impl Iterator<Item = String> {
    let names = document.lines().filter_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        match cells[..] {
            ["", name, _, event, ..] if name.starts_with("`net::") => Some((event, true)),
            ["", name, ..] if name.starts_with("`net_") => Some((name.trim_matches('`'), false)),
            _ => None,
        }
    });
    let is_named = |name: &str, is_whole: bool| {
        // The name of a histogram may have a suffix.
        tests.contains(&if is_whole { format!("\"{name}\"") } else { format!("\"{name}") })
    };
    let unnamed = names.filter(move |(name, is_whole)| !is_named(name, *is_whole));
    unnamed.map(|(name, _)| format!("no test of a transport or pool expects {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "\
| name | kind |
| `net_rtt_seconds` | histogram |
| `net_connections_open` | gauge |
| `net::pool` | DEBUG | peer lost | `peer` | The last connection has ended |
";

    #[test]
    fn rows_that_no_test_names_are_found() {
        let tests = "sum(\"net_rtt_seconds_count\"), only(\"peer lost\"), // net_connections_open";
        let found: Vec<_> = unnamed(ROWS, tests).collect();
        assert_eq!(found, ["no test of a transport or pool expects \"net_connections_open\""]);
        assert_eq!(unnamed(ROWS, "").count(), 3);
    }

    #[test]
    fn the_tests_of_transports_and_pools_count() {
        assert!(is_test(Path::new("crates/net-peers/tests/pool.rs")));
        assert!(is_test(Path::new("examples/observability/peers.rs")));
        assert!(!is_test(Path::new("crates/net-kit/src/telemetry/tests.rs")));
    }
}
