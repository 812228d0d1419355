//! Draws what was measured, as SVG.

use crate::sample::{SERIES, Sample};
use std::fmt::Write;

/// The size of the chart of one series, and the space around it, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 120.0;
const MARGIN: f64 = 30.0;

/// Returns one chart below the other, each from zero to its largest value.
pub(crate) fn draw(samples: &[Sample]) -> String {
    let (width, height) = (WIDTH + 2.0 * MARGIN, SERIES.len() as f64 * (HEIGHT + 2.0 * MARGIN));
    let every = samples.len().div_ceil(WIDTH as usize).max(1); // at most one point for each pixel
    let end = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, series) in SERIES.iter().enumerate() {
        let top = index as f64 * (HEIGHT + 2.0 * MARGIN) + MARGIN;
        let values = || samples.iter().map(series.value);
        let largest = values().fold(f64::MIN_POSITIVE, f64::max);
        let x = |sample: &Sample| MARGIN + WIDTH * sample.at.as_secs_f64() / end;
        let y = |value: f64| top + HEIGHT * (1.0 - value / largest);
        let points: Vec<_> = samples
            .iter()
            .step_by(every)
            .map(|sample| format!("{:.1},{:.1}", x(sample), y((series.value)(sample))))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{:.1}\">{}, at most {largest:.1}, in {:.1} min</text>\n\
             <rect x=\"{MARGIN}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#ccc\"/>\n\
             <polyline fill=\"none\" stroke=\"#1f77b4\" points=\"{}\"/>",
            top - 8.0,
            series.name,
            end / 60.0,
            points.join(" "),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
