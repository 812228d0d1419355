//! Fits a line to measurements. Pure.

/// The number of parts whose means are fitted. Measurements of neighbouring seconds depend on each other, and their
/// means over long parts hardly do, so that the error of the slope is not underestimated.
const PARTS: usize = 10;

/// The slope of a line, and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    pub(crate) slope: f64,
    pub(crate) error: f64,
}

/// Fits a line by least squares. Returns `None` for fewer than 20 points.
pub(crate) fn fit(points: impl Iterator<Item = (f64, f64)>) -> Option<Slope> {
    let points: Vec<_> = points.collect();
    let size = points.len() / PARTS;
    if size < 2 {
        return None;
    }
    let means: Vec<_> = points.chunks_exact(size).map(mean).collect();
    let (x_mean, y_mean) = mean(&means);
    let spread: f64 = means.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let slope = means.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let residual = |(x, y): &(f64, f64)| (y - y_mean - slope * (x - x_mean)).powi(2);
    let variance = means.iter().map(residual).sum::<f64>() / (means.len() - 2) as f64;
    Some(Slope { slope, error: (variance / spread).sqrt() })
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    (x / count, y / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let line = fit((0..100).map(|x| (f64::from(x), 3.0 + 0.5 * f64::from(x)))).unwrap();
        assert!((line.slope - 0.5).abs() < 1e-9 && line.error < 1e-9, "{line:?}");
        assert_eq!(fit((0..19).map(|x| (f64::from(x), 0.0))), None);
    }

    #[test]
    fn noise_has_a_slope_within_its_error_and_growth_has_not() {
        // Values without a trend.
        let noise = |x: i32| f64::from((x * 7919) % 31 - 15);
        let flat = fit((0..300).map(|x| (f64::from(x), noise(x)))).unwrap();
        assert!(flat.slope.abs() < 3.0 * flat.error, "{flat:?}");
        let grows = fit((0..300).map(|x| (f64::from(x), noise(x) + 0.1 * f64::from(x)))).unwrap();
        assert!(grows.slope > 3.0 * grows.error, "{grows:?}");
    }
}
