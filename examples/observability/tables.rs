//! Compares the tables of the document with the code.

use net_kit::telemetry::{EVENTS, METRICS};

const DOCUMENT: &str = include_str!("../../docs/observability.md");

fn names(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_document_shows_each_metric_and_each_event() {
    let metrics = METRICS.iter().map(|it| {
        let labels = names(it.labels);
        format!("| `{}` | {} | {} | {labels} | {} |", it.name, it.kind, it.unit, it.description)
    });
    let events = EVENTS.iter().map(|it| {
        let fields = names(it.fields);
        let (target, level, message) = (it.target, it.level, it.message);
        format!("| `{target}` | {level} | {message} | {fields} | {} |", it.description)
    });
    let expected: Vec<_> = metrics.chain(events).collect();
    let is_row = |line: &&str| line.starts_with("| `net");
    let shown: Vec<_> = DOCUMENT.lines().filter(is_row).collect();
    assert_eq!(shown, expected, "docs/observability.md should say\n{}", expected.join("\n"));
}
