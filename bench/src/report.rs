//! `Report`: medians and ratios.

use std::collections::BTreeMap;

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

    /// Prints a table with the median of each contender, and the median, minimum and maximum of the
    /// ratios of the first contender's figure to each other's in the same round.
    pub(crate) fn print(&self) {
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
