//! The figures of the benchmark: how they are stored, and shown as tables and charts.
//!
//! 1. [`Report`] is the stored form (JSON): for each workload the figures of all rounds.
//! 2. [`Report::markdown`] shows medians and ratios as tables.
//! 3. [`Report::goals`] shows which goals of the project the figures reach.
//! 4. [`Chart`] draws bars with the spread of the rounds, as SVG; [`draw_lines`] figures that change.
#![forbid(unsafe_code)]

mod chart;
mod goals;
mod lines;
mod table;

pub use chart::Chart;
pub use lines::{Line, draw_lines};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The figures of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What was compared, in the order of the run.
    pub sections: Vec<Section>,
}

/// Where a run took place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub processor: String,
    /// How many cores the program may use.
    pub cores: usize,
    /// The operating system and its release.
    pub kernel: String,
    /// The version of the compiler.
    pub toolchain: String,
    /// The day in UTC, as in 2026-01-31.
    pub date: String,
}

/// Workloads with the same contenders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// The name by which the benchmark selects the section.
    pub name: String,
    /// The heading.
    pub title: String,
    /// What was compared. Ratios are those of the first to each of the rest.
    pub contenders: Vec<String>,
    /// One row for each figure of each workload.
    pub rows: Vec<Row>,
}

/// The figures of a workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The workload and the unit.
    pub name: String,
    /// Whether charts show the row.
    pub is_drawn: bool,
    /// Whether a smaller figure is better, as for times and memory.
    pub less_is_better: bool,
    /// The figures of each round, in the order of the contenders. `None`: the contender does not
    /// have the workload.
    pub rounds: Vec<Vec<Option<f64>>>,
}

/// What several rounds resulted in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle of the figures; the upper one of the two of an even number.
    pub median: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let report = serde_json::from_slice(&text);
        report.with_context(|| format!("{} is no report of the benchmark", path.display()))
    }

    /// Writes a report.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns the section with a name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }
}

impl Row {
    /// Returns the name, marked with an arrow if less is better.
    pub fn heading(&self) -> String {
        format!("{}{}", self.name, if self.less_is_better { " ↓" } else { "" })
    }

    /// Returns what all rounds of a contender resulted in; `None` if it has no figures.
    pub fn spread(&self, contender: usize) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| *round.get(contender)?))
    }

    /// Returns the ratio of the first contender's figure to another's in the same round.
    pub fn ratio(&self, contender: usize) -> Option<Spread> {
        self.ratio_of(0, contender)
    }

    /// Returns the ratio of a contender's figure to another's in the same round.
    pub fn ratio_of(&self, contender: usize, other: usize) -> Option<Spread> {
        let figure = |round: &Vec<Option<f64>>, of: usize| *round.get(of)?;
        let ratio = |round| Some(figure(round, contender)? / figure(round, other)?);
        Spread::of(self.rounds.iter().filter_map(ratio).filter(|ratio| ratio.is_finite()))
    }
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (*figures.first()?, *figures.last()?);
        Some(Self { median: figures[figures.len() / 2], low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn report() -> Report {
        let row = |name: &str, is_drawn, rounds: &[[Option<f64>; 2]]| Row {
            name: name.to_owned(),
            is_drawn,
            less_is_better: !is_drawn,
            rounds: rounds.iter().map(|round| round.to_vec()).collect(),
        };
        let rows = vec![
            row("rate, MB/s", true, &[[Some(30.0), Some(10.0)], [Some(20.0), Some(20.0)]]),
            row("time, us", false, &[[Some(0.5), None]]),
        ];
        let section = Section {
            name: "x".to_owned(),
            title: "Rates".to_owned(),
            contenders: vec!["a".to_owned(), "b <c>".to_owned()],
            rows,
        };
        Report { machine: Machine::default(), sections: vec![section] }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let rate = &report().sections[0].rows[0];
        assert_eq!(rate.ratio(1), Some(Spread { median: 3.0, low: 1.0, high: 3.0 }));
        assert_eq!(rate.spread(0), Some(Spread { median: 30.0, low: 20.0, high: 30.0 }));
    }

    #[test]
    fn a_contender_without_a_workload_has_no_figure() {
        let time = &report().sections[0].rows[1];
        assert_eq!((time.spread(1), time.ratio(1)), (None, None));
        assert_eq!(time.spread(2), None, "no such contender");
    }
}
