//! Lines: figures that change, one chart below the other, as SVG.

use crate::chart::escape;
use std::fmt::Write;

/// A line, from zero to its largest value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    /// What it shows, with the unit.
    pub title: String,
    /// The points, with ascending x from zero.
    pub points: Vec<(f64, f64)>,
}

/// The size of the chart of one line, and the space around it, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 120.0;
const MARGIN: f64 = 30.0;

/// Returns one chart below the other. A line without points is its title only.
pub fn draw_lines(lines: &[Line]) -> String {
    let (width, height) = (WIDTH + 2.0 * MARGIN, lines.iter().map(Line::height).sum::<f64>());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for line in lines {
        line.draw(top + MARGIN, &mut svg);
        top += line.height();
    }
    svg.push_str("</svg>\n");
    svg
}

impl Line {
    fn height(&self) -> f64 {
        if self.points.is_empty() { 1.5 * MARGIN } else { HEIGHT + 2.0 * MARGIN }
    }

    fn draw(&self, top: f64, svg: &mut String) {
        let (title, above) = (escape(&self.title), top - 8.0);
        // Writing to a string does not fail.
        let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{above:.1}\">{title}</text>");
        let Some(&(end, _)) = self.points.last() else { return };
        let largest = self.points.iter().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
        let place = |(x, y): (f64, f64)| {
            let x = MARGIN + WIDTH * x / end.max(f64::MIN_POSITIVE);
            format!("{x:.1},{:.1}", top + HEIGHT * (1.0 - y / largest))
        };
        let every = self.points.len().div_ceil(WIDTH as usize); // at most one point for each pixel
        let points: Vec<_> = self.points.iter().step_by(every).copied().map(place).collect();
        let _ = writeln!(
            svg,
            "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#ccc\"/>\n\
             <polyline fill=\"none\" stroke=\"#1f77b4\" points=\"{}\"/>",
            points.join(" "),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_at_zero_and_fills_its_chart() {
        let title = "a < b".to_owned();
        let line = Line { title, points: vec![(0.0, 0.0), (1.0, 50.0), (4.0, 100.0)] };
        let svg =
            draw_lines(&[line.clone(), Line { title: "none".to_owned(), points: Vec::new() }]);
        assert!(svg.contains("points=\"30.0,150.0 220.0,90.0 790.0,30.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("none"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 1, "a line without points is a title");
        let points = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        let long = draw_lines(&[Line { points, ..line }]);
        assert!(long.matches(',').count() <= WIDTH as usize, "a point for each pixel");
    }
}
