//! The table of all attacks, in Markdown.

use crate::experiment::{Figures, Round, Row};
use std::fmt::Write;
use std::time::Duration;

/// Returns the table. Times and rates are medians of the rounds. A ratio is that of the 99th percentiles of one
/// round, and the row has their median and all of them.
pub(crate) fn table(rows: &[Row], duration: Duration) -> String {
    let rounds = rows.first().map_or(0, |row| row.rounds.len());
    let mut text = format!(
        "Attacks of {} s, medians of {rounds} rounds. Round trips of honest peers in ms: median, 99th percentile.\n\n\
         | attack | transport | packets/s, processors | attacked | control | ratio | lost | \
         new connections | memory in MiB: before, peak, after | control's peak |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        duration.as_secs()
    );
    for row in rows {
        writeln!(
            text,
            "| {} | {} | {} |",
            row.attack.name(),
            row.kind.name(),
            cells(&row.rounds).join(" | "),
        )
        .expect("writing to a string");
    }
    text
}

/// Returns the figures of a row. Memory is that of the first round, except for the peaks.
fn cells(rounds: &[Round]) -> [String; 8] {
    let of = |figure: &dyn Fn(&Round) -> f64| sorted(rounds.iter().map(figure));
    let median = |figure: &dyn Fn(&Round) -> f64| middle(&of(figure));
    let sum = |figure: &dyn Fn(&Round) -> f64| of(figure).iter().sum::<f64>();
    let most = |figure: &dyn Fn(&Round) -> f64| of(figure).last().copied().unwrap_or_default();
    let times = |side: fn(&Round) -> &Figures| {
        let [p50, p99] = [
            median(&|round| side(round).honest.p50 / 1000.0),
            median(&|round| side(round).honest.p99 / 1000.0),
        ];
        format!("{p50:.2}, {p99:.2}")
    };
    let ratios = of(&|round| round.attacked.honest.p99 / round.control.honest.p99);
    let all: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.1}")).collect();
    let [before, _, after] = rounds[0].attacked.memory;
    let dials = sum(&|round| round.attacked.honest.dials);
    let failed = sum(&|round| round.attacked.honest.failed_dials);
    [
        format!(
            "{:.0}, {:.1}",
            median(&|round| round.attacked.pace.rates().0),
            median(&|round| round.attacked.pace.rates().1)
        ),
        times(|round| &round.attacked),
        times(|round| &round.control),
        format!("{:.1} ({})", middle(&ratios), all.join(" ")),
        format!("{}", sum(&|round| round.attacked.honest.lost_pings)),
        format!("{dials} of {}", dials + failed),
        format!("{before:.0}, {:.0}, {after:.0}", most(&|round| round.attacked.memory[1])),
        format!("{:.0}", most(&|round| round.control.memory[1])),
    ]
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// Returns the median of sorted figures; of an even number, the upper one.
fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Honest;
    use crate::pace::Pace;

    #[test]
    fn a_row_has_medians_and_all_ratios() {
        let figures = |p99: f64, peak| Figures {
            honest: Honest { p50: 500.0, p99, lost_pings: 1.0, dials: 12.0, failed_dials: 1.0 },
            memory: [10.0, peak, 15.0],
            pace: Pace::default(),
        };
        let round = |p99, control, peak| Round {
            attacked: figures(p99, peak),
            control: figures(control, 20.0),
        };
        let rounds =
            [round(8000.0, 1000.0, 30.0), round(2000.0, 1000.0, 50.0), round(3000.0, 2000.0, 40.0)];
        let [_, attacked, control, ratio, lost, dials, memory, _] = cells(&rounds);
        assert_eq!([&*attacked, &control], ["0.50, 3.00", "0.50, 1.00"]);
        assert_eq!(ratio, "2.0 (1.5 2.0 8.0)");
        assert_eq!([&*lost, &dials, &memory], ["3", "36 of 39", "10, 50, 15"]);
    }
}
