//! Tables in Markdown.

use crate::{Report, Row, Section};
use std::fmt::{self, Display, Formatter, Write};

impl Report {
    /// Returns the machine and the tables of all sections.
    ///
    /// `chart` returns the address of the chart of a section, if it has one.
    pub fn markdown(&self, chart: impl Fn(&Section) -> Option<String>) -> String {
        let machine = &self.machine;
        // Writing to a string does not fail.
        let mut text = format!("Measured on {}: {machine}.\n", machine.date);
        for section in &self.sections {
            let _ = write!(text, "\n### {}\n\n", section.title);
            if let Some(path) = chart(section) {
                let _ = write!(text, "![{}]({path})\n\n", section.title);
            }
            let all: Vec<_> = (0..section.contenders.len()).collect();
            text.push_str(&section.table("median", &section.rows, &all, |row, contender| {
                row.spread(contender).map(|spread| Figure(spread.median).to_string())
            }));
            let first = section.contenders.first().map_or("", String::as_str);
            text.push('\n');
            let rest = all.get(1..).unwrap_or_default();
            text.push_str(&section.table(&format!("{first} /"), &section.rows, rest, ratio));
        }
        text
    }
}

impl Section {
    /// Returns a table with the medians of some contenders, and the ratios to the second of them, of
    /// the rows with these names. What the report does not have is left out.
    pub fn summary(&self, rows: &[&str], contenders: &[&str]) -> String {
        let rows: Vec<_> = rows
            .iter()
            .filter_map(|name| self.rows.iter().find(|row| row.name == *name))
            .cloned()
            .collect();
        let places: Vec<_> = contenders.iter().filter_map(|name| self.place(name)).collect();
        self.table("median", &rows, &places, |row, contender| {
            let median = Figure(row.spread(contender)?.median).to_string();
            let ratio = (contender > 0).then(|| row.ratio(contender)).flatten();
            Some(
                ratio.map_or(median.clone(), |ratio| {
                    format!("{median} (ratio {:.2})", ratio.median)
                }),
            )
        })
    }

    /// Returns the index of a contender.
    pub(crate) fn place(&self, contender: &str) -> Option<usize> {
        self.contenders.iter().position(|name| name == contender)
    }

    fn table(
        &self,
        corner: &str,
        rows: &[Row],
        contenders: &[usize],
        cell: impl Fn(&Row, usize) -> Option<String>,
    ) -> String {
        let mut text = format!("| {corner} |");
        for contender in contenders {
            let _ = write!(text, " {} |", self.contenders[*contender]);
        }
        let _ = writeln!(text, "\n|{}", "---|".repeat(contenders.len() + 1));
        for row in rows {
            let _ = write!(text, "| {} |", row.heading());
            for contender in contenders {
                let _ = write!(text, " {} |", cell(row, *contender).as_deref().unwrap_or("–"));
            }
            text.push('\n');
        }
        text
    }
}

fn ratio(row: &Row, contender: usize) -> Option<String> {
    let ratio = row.ratio(contender)?;
    Some(format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high))
}

impl Display for crate::Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, {}, {}", self.processor, self.cores, self.kernel, self.toolchain)
    }
}

/// A figure with three significant digits.
pub(crate) struct Figure(pub(crate) f64);

impl Display for Figure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = match self.0.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{:.digits$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::report;

    #[test]
    fn tables_have_medians_and_ratios() {
        let text = report().markdown(|section| Some(format!("{}.svg", section.name)));
        for line in [
            "![Rates](x.svg)",
            "| median | a | b <c> |",
            "| rate, MB/s | 30.0 | 20.0 |",
            "| a / | b <c> |",
            "| rate, MB/s | 3.00 (1.00–3.00) |",
            "| time, us ↓ | 0.50 | – |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_summary_has_what_it_names() {
        let text = report().sections[0].summary(&["rate, MB/s", "unknown"], &["a", "z", "b <c>"]);
        assert_eq!(
            text,
            "| median | a | b <c> |\n|---|---|---|\n| rate, MB/s | 30.0 | 20.0 (ratio 3.00) |\n"
        );
    }
}
