//! The goals of the project for its speed and memory, and which of them a report reaches.

use crate::table::Figure;
use crate::{Report, Section, Spread};
use std::fmt::Write;

/// What a contender is to reach.
struct Goal {
    row: &'static str,
    contender: &'static str,
    /// The contender to which the figure is related; the figure itself has the bound if it is empty.
    other: &'static str,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// Returns a table of all goals, with what was measured.
    ///
    /// A ratio is that of the figures of a round.
    pub fn goals(&self) -> String {
        let mut text = String::from(
            "| workload | contender | to | goal | median (all rounds) | reached |\n|---|---|---|---|---|---|\n",
        );
        for (section, goal) in goals() {
            let Goal { row, contender, other, bound } = *goal;
            let (sign, limit) = match bound {
                Bound::AtLeast(limit) => ("≥", limit),
                Bound::AtMost(limit) => ("≤", limit),
            };
            let (figure, is_reached) = match goal.measured(self.section(section)) {
                None => ("not measured".to_owned(), "–"),
                Some(spread) => {
                    let [median, low, high] = [spread.median, spread.low, spread.high].map(Figure);
                    let is_reached = match bound {
                        Bound::AtLeast(limit) => spread.median >= limit,
                        Bound::AtMost(limit) => spread.median <= limit,
                    };
                    (format!("{median} ({low}–{high})"), if is_reached { "yes" } else { "no" })
                }
            };
            let other = if other.is_empty() { "–" } else { other };
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {row} | {contender} | {other} | {sign} {limit} | {figure} | {is_reached} |"
            );
        }
        text
    }

    /// Returns the goals for which the report has no figure.
    pub fn goals_without_figure(&self) -> Vec<String> {
        let unmeasured =
            goals().filter(|(section, goal)| goal.measured(self.section(section)).is_none());
        unmeasured
            .map(|(section, goal)| format!("{section}: {}, {}", goal.row, goal.contender))
            .collect()
    }
}

impl Goal {
    fn measured(&self, section: Option<&Section>) -> Option<Spread> {
        let section = section?;
        let row = section.rows.iter().find(|row| row.name == self.row)?;
        let contender = section.place(self.contender)?;
        match self.other {
            "" => row.spread(contender),
            other => row.ratio_of(contender, section.place(other)?),
        }
    }
}

const fn at_least(
    row: &'static str,
    contender: &'static str,
    other: &'static str,
    bound: f64,
) -> Goal {
    Goal { row, contender, other, bound: Bound::AtLeast(bound) }
}

const fn at_most(
    row: &'static str,
    contender: &'static str,
    other: &'static str,
    bound: f64,
) -> Goal {
    Goal { row, contender, other, bound: Bound::AtMost(bound) }
}

const SMALL: &str = "128 B one-way, 1000/s";
const PAGE: &str = "4 KiB one-way, MB/s";
const BLOCK: &str = "64 KiB one-way, MB/s";
const LARGE: &str = "1 MiB one-way, MB/s";
const COST: &str = "64 KiB one-way, CPU s per GB";
const ROUND_TRIP: &str = "128 B ping-pong p50, us";
const SLOWEST: &str = "128 B ping-pong p99.9, us";
const SERIAL: &str = "handshakes, one at a time, 1/s";
const PARALLEL: &str = "handshakes, 16 at once, 1/s";
const PATH: &str = "40 ms, 100 Mbit/s, Mbit/s";
const LOSSY: &str = "40 ms, 100 Mbit/s, 1 % loss, Mbit/s";
const BAD: &str = "40 ms, 100 Mbit/s, 5 % loss, Mbit/s";

const OURS: &str = "ours";
const BATCHED: &str = "ours, batched and inline";
const INLINE: &str = "ours, driven, batched and inline";
const DRIVEN: &str = "ours, driven";
const ONE_THREAD: &str = "ours, driven, one thread";
const BBR: &str = "ours, BBR";
const QUINN: &str = "quinn";
const S2N: &str = "s2n-quic";
const TCP: &str = "TCP+TLS";
const RAW: &str = "raw msquic, unpatched";
const RAW_CLIENTS: &str = "raw msquic, unpatched, client certificates";
const QUINN_CLIENTS: &str = "quinn, client certificates";

const MESSAGES: &[Goal] = &[
    at_least(SMALL, OURS, QUINN, 3.0),
    at_least(SMALL, OURS, S2N, 3.0),
    at_least(SMALL, OURS, TCP, 3.0),
    at_least(SMALL, BATCHED, "quinn, gathered", 1.5),
    at_least(SMALL, BATCHED, "TCP+TLS, gathered", 0.7),
    at_least(PAGE, OURS, QUINN, 1.5),
    at_least(PAGE, OURS, TCP, 1.3),
    at_least(BLOCK, OURS, QUINN, 2.0),
    at_least(BLOCK, OURS, S2N, 1.75),
    at_least(BLOCK, OURS, TCP, 0.75),
    at_least(BLOCK, OURS, RAW, 1.1),
    at_least(LARGE, OURS, QUINN, 2.0),
    at_least(LARGE, OURS, S2N, 1.75),
    at_least(LARGE, OURS, TCP, 0.75),
    at_least(LARGE, OURS, RAW, 1.1),
    at_most(COST, OURS, QUINN, 0.45),
    at_most(COST, OURS, TCP, 1.2),
    at_most(ROUND_TRIP, OURS, RAW, 3.0),
    at_most(ROUND_TRIP, DRIVEN, QUINN, 1.1),
    at_most(SLOWEST, DRIVEN, QUINN, 1.0),
    at_most(ROUND_TRIP, ONE_THREAD, QUINN, 1.1),
    at_most(SLOWEST, ONE_THREAD, QUINN, 1.0),
    at_most(ROUND_TRIP, INLINE, QUINN, 0.9),
    at_most(SLOWEST, INLINE, QUINN, 1.0),
];

const JUMBO: &[Goal] =
    &[at_least(BLOCK, "ours, jumbo", TCP, 0.8), at_least(LARGE, "ours, jumbo", TCP, 0.8)];

const HANDSHAKES: &[Goal] = &[
    at_least(SERIAL, OURS, QUINN_CLIENTS, 0.7),
    at_least(SERIAL, OURS, RAW_CLIENTS, 0.95),
    at_least(PARALLEL, OURS, QUINN_CLIENTS, 0.7),
    at_least(PARALLEL, OURS, RAW_CLIENTS, 0.95),
];

const MEMORY: &[Goal] = &[at_most("1000 idle connections, KiB each", OURS, QUINN, 1.0)];

const NETWORK: &[Goal] = &[
    at_least(PATH, OURS, "", 85.0),
    at_least(PATH, OURS, QUINN, 1.0),
    at_least(PATH, OURS, S2N, 1.0),
    at_least(PATH, BBR, "", 85.0),
    at_least(LOSSY, BBR, "", 80.0),
    at_least(LOSSY, BBR, QUINN, 1.5),
    at_least(LOSSY, BBR, S2N, 1.5),
    at_least(BAD, BBR, "", 60.0),
    at_least(BAD, BBR, QUINN, 1.5),
    at_least(BAD, BBR, S2N, 1.5),
];

/// Returns all goals, with the names of their sections.
fn goals() -> impl Iterator<Item = (&'static str, &'static Goal)> {
    let sections = [
        ("messages", MESSAGES),
        ("jumbo", JUMBO),
        ("handshakes", HANDSHAKES),
        ("memory", MEMORY),
        ("network", NETWORK),
    ];
    let of_section =
        |(name, goals): (_, &'static [Goal])| goals.iter().map(move |goal| (name, goal));
    sections.into_iter().flat_map(of_section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Row, Section};

    #[test]
    fn goals_are_compared_with_the_figures() {
        let row = |name: &str, rounds: &[[f64; 2]]| Row {
            name: name.to_owned(),
            rounds: rounds.iter().map(|round| round.map(Some).to_vec()).collect(),
            ..Row::default()
        };
        let section = |name: &str, contenders: [&str; 2], rows| Section {
            name: name.to_owned(),
            contenders: contenders.map(str::to_owned).to_vec(),
            rows,
            ..Section::default()
        };
        let rows =
            vec![row(SMALL, &[[9.0, 3.0], [12.0, 3.0]]), row(COST, &[[2.0, 4.0], [2.0, 3.0]])];
        let network = vec![row(PATH, &[[84.0, 90.0]])];
        let sections = vec![
            section("messages", [OURS, QUINN], rows),
            section("network", [BBR, QUINN], network),
        ];
        let report = Report { sections, ..Report::default() };
        let table = report.goals();
        for line in [
            "| 128 B one-way, 1000/s | ours | quinn | ≥ 3 | 4.00 (3.00–4.00) | yes |",
            "| 64 KiB one-way, CPU s per GB | ours | quinn | ≤ 0.45 | 0.67 (0.50–0.67) | no |",
            "| 40 ms, 100 Mbit/s, Mbit/s | ours, BBR | – | ≥ 85 | 84.0 (84.0–84.0) | no |",
            "| 128 B one-way, 1000/s | ours | s2n-quic | ≥ 3 | not measured | – |",
        ] {
            assert!(table.lines().any(|it| it == line), "{line} is not in\n{table}");
        }
        let missing = report.goals_without_figure();
        assert_eq!(missing.len(), goals().count() - 3, "{missing:?}");
    }
}
