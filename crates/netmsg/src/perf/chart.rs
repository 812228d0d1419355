//! `netmsg perf --chart`: the figures as SVG.

use super::throughput::Throughput;
use crate::ping::Summary;
use bench_report::{Line, draw_lines};
use std::time::Duration;

/// Draws the times of round trips by percentile, both throughputs over time, and the loss.
pub(super) fn draw(
    peer: String,
    latency: &Summary<'_>,
    [upload, download]: [&Throughput; 2],
    loss: &str,
) -> String {
    let times = latency.times();
    let every = 100.0 / times.len().saturating_sub(1).max(1) as f64;
    let percentile =
        |(index, time): (usize, &Duration)| (index as f64 * every, time.as_secs_f64() * 1e3);
    let throughput = |name: &str, of: &Throughput| Line {
        title: format!("{name}, MB/s over time: {}", of.text()),
        points: of.points(),
    };
    draw_lines(&[
        Line { title: peer, points: Vec::new() },
        Line {
            title: format!("round trips from the 0th to the 100th percentile: {}", latency.text()),
            points: times.iter().enumerate().map(percentile).collect(),
        },
        throughput("upload", upload),
        throughput("download", download),
        Line { title: format!("lost {loss}"), points: Vec::new() },
    ])
}
