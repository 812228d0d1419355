//! Charts: a bar for each contender, with the spread of its rounds, as SVG.

use crate::table::Figure;
use crate::{Row, Section};
use std::fmt::Write;

/// What a chart shows of a section.
#[derive(Debug, Clone, Copy)]
pub struct Chart<'a> {
    /// The figures.
    pub section: &'a Section,
    /// The names of the rows; all that are drawn if it is empty.
    pub rows: &'a [&'a str],
    /// The names of the contenders; all if it is empty.
    pub contenders: &'a [&'a str],
}

/// Sizes in pixels.
const NAMES: f64 = 190.0;
const BARS: f64 = 480.0;
const FIGURES: f64 = 70.0;
const BAR: f64 = 14.0;
const HEADING: f64 = 28.0;

/// The colours of the first contender, of its variants, and of the rest.
const COLOURS: [&str; 3] = ["#d95f02", "#eba567", "#7a8ba6"];

impl Chart<'_> {
    /// Returns the chart. Bars of a row begin at zero and share a scale; the largest round fills the
    /// width. A line shows the smallest and the largest round.
    pub fn draw(&self) -> String {
        let rows: Vec<_> = self.section.rows.iter().filter(|row| self.has_row(row)).collect();
        let names = self.section.contenders.iter().enumerate();
        let names: Vec<_> = names.filter(|(_, name)| self.has_contender(name)).collect();
        let (mut bars, mut y) = (String::new(), 0.0);
        // Writing to a string does not fail.
        for row in rows {
            y += HEADING;
            let _ = writeln!(
                bars,
                "<text x=\"4\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
                y - 8.0,
                escape(&row.heading())
            );
            let spreads =
                names.iter().filter_map(|(index, name)| Some((index, name, row.spread(*index)?)));
            let spreads: Vec<_> = spreads.collect();
            let largest =
                spreads.iter().map(|(.., spread)| spread.high).fold(f64::MIN_POSITIVE, f64::max);
            for (index, name, spread) in spreads {
                let width = |figure: f64| BARS * figure.max(0.0) / largest;
                let middle = y + BAR / 2.0 - 1.0;
                let _ = writeln!(
                    bars,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                     <rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
                     <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"black\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    NAMES - 6.0,
                    y + BAR - 4.0,
                    escape(name),
                    width(spread.median),
                    BAR - 3.0,
                    self.colour(*index),
                    NAMES + width(spread.low),
                    NAMES + width(spread.high),
                    NAMES + BARS + 6.0,
                    y + BAR - 4.0,
                    Figure(spread.median),
                );
                y += BAR;
            }
        }
        let (width, height) = (NAMES + BARS + FIGURES, y + BAR / 2.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n"
        )
    }

    fn colour(&self, contender: usize) -> &'static str {
        let names = &self.section.contenders;
        match contender {
            0 => COLOURS[0],
            variant if names[variant].starts_with(&names[0]) => COLOURS[1],
            _ => COLOURS[2],
        }
    }

    fn has_row(&self, row: &Row) -> bool {
        if self.rows.is_empty() { row.is_drawn } else { self.rows.contains(&&*row.name) }
    }

    fn has_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.contains(&name)
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::report;

    #[test]
    fn a_chart_has_a_bar_for_each_figure() {
        let section = &report().sections[0];
        let all = Chart { section, rows: &[], contenders: &[] }.draw();
        assert_eq!(all.matches("<path").count(), 2, "the second row is not drawn\n{all}");
        assert!(all.contains("b &lt;c>"), "{all}");
        assert!(all.contains("width=\"480.0\""), "the largest median is the largest round\n{all}");
        let named = Chart { section, rows: &["time, us"], contenders: &["a"] }.draw();
        assert_eq!(named.matches("<path").count(), 1, "{named}");
    }
}
