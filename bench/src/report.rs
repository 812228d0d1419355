//! `Report`: medians and ratios.

use crate::machine;
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub(crate) struct Report {
    contenders: Vec<&'static str>,
    order: Vec<String>,
    /// The figures of each round per workload, in the order of the contenders.
    rounds: BTreeMap<String, Vec<Vec<f64>>>,
}

impl Report {
    pub(crate) fn new(contenders: &[&'static str]) -> Self {
        Self { contenders: contenders.to_vec(), order: Vec::new(), rounds: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, workload: String, figures: Vec<f64>) {
        if !self.rounds.contains_key(&workload) {
            self.order.push(workload.clone());
        }
        self.rounds.entry(workload).or_default().push(figures);
    }

    /// Prints the machine and a table, and writes the figures of all rounds to a file if it has a
    /// path.
    pub(crate) fn finish(&self, json: Option<&Path>) -> Result<()> {
        println!("{}\n", machine::describe());
        self.print();
        let Some(path) = json else { return Ok(()) };
        let workload = |name: &String| json!({ "name": name, "rounds": self.rounds[name] });
        let workloads: Vec<_> = self.order.iter().map(workload).collect();
        let figures = json!({
            "machine": machine::describe(),
            "contenders": self.contenders,
            "workloads": workloads,
        });
        fs::write(path, format!("{figures:#}\n")).with_context(|| format!("cannot write {path:?}"))
    }

    /// Prints a table with the median of each contender, and the median, minimum and maximum of the
    /// ratios of the first contender's figure to each other's in the same round.
    fn print(&self) {
        print!("| workload |");
        self.contenders.iter().for_each(|name| print!(" {name} |"));
        let first = self.contenders[0];
        self.contenders[1..].iter().for_each(|name| print!(" {first} / {name} |"));
        println!();
        println!("|{}", "---|".repeat(self.contenders.len() * 2));
        for workload in &self.order {
            let rounds = &self.rounds[workload];
            print!("| {workload} |");
            for index in 0..self.contenders.len() {
                let (median, ..) = spread(rounds.iter().map(|round| round[index]));
                print!(" {median:.0} |");
            }
            for index in 1..self.contenders.len() {
                let (median, low, high) =
                    spread(rounds.iter().map(|round| round[0] / round[index]));
                print!(" {median:.2} ({low:.2}–{high:.2}) |");
            }
            println!();
        }
    }
}

/// Returns median, minimum and maximum.
fn spread(figures: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}
