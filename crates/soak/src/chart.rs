//! Draws what was measured, as SVG.

use crate::sample::{SERIES, Sample};
use bench_report::{Line, draw_lines};

/// Returns one chart below the other, each from zero to its largest value.
pub(crate) fn draw(samples: &[Sample]) -> String {
    let end = samples.last().map_or(0.0, |sample| sample.at.as_secs_f64());
    let lines = SERIES.iter().map(|series| {
        let point = |sample: &Sample| (sample.at.as_secs_f64(), (series.value)(sample));
        let points: Vec<_> = samples.iter().map(point).collect();
        let largest = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let title = format!("{}, at most {largest:.1}, in {:.1} min", series.name, end / 60.0);
        Line { title, points }
    });
    draw_lines(&lines.collect::<Vec<_>>())
}
