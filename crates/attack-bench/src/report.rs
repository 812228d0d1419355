//! The table of all attacks, in Markdown.

use crate::experiment::{Figures, Row};
use std::fmt::Write;
use std::time::Duration;

/// Returns the table. The ratio is that of the 99th percentiles.
pub(crate) fn table(rows: &[Row], duration: Duration) -> String {
    let mut text = format!(
        "Attacks of {} s. Round trips of honest peers in ms: median, 99th percentile.\n\n\
         | attack | transport | packets/s, processors | attacked | control | ratio | lost | \
         new connections | memory in MiB: before, peak, after | control's peak |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        duration.as_secs()
    );
    for row in rows {
        let times = |figures: &Figures| {
            let [p50, p99] = [figures.honest.p50, figures.honest.p99].map(|it| it / 1000.0);
            format!("{p50:.2}, {p99:.2}")
        };
        let [before, peak, after] = row.attacked.memory;
        let honest = row.attacked.honest;
        let (packets, processors) = row.attacked.pace.rates();
        writeln!(
            text,
            "| {} | {} | {packets:.0}, {processors:.1} | {} | {} | {:.1} | {} | {} of {} | {before:.0}, {peak:.0}, \
             {after:.0} | {:.0} |",
            row.attack.name(),
            row.kind.name(),
            times(&row.attacked),
            times(&row.control),
            honest.p99 / row.control.honest.p99,
            honest.lost_pings,
            honest.dials,
            honest.dials + honest.failed_dials,
            row.control.memory[1],
        )
        .expect("writing to a string");
    }
    text
}
