//! `Throughput`: bytes over a time, and over its parts.

use super::message::Counted;
use crate::ping::micros;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What arrived in which time.
pub(super) struct Throughput {
    pub(super) counted: Counted,
    pub(super) time: Duration,
    /// What was sent or received when.
    pub(super) meter: Meter,
}

impl Throughput {
    /// Returns seconds and MB/s.
    pub(super) fn points(&self) -> Vec<(f64, f64)> {
        self.meter.points()
    }

    fn per_second(&self) -> f64 {
        self.counted.bytes as f64 / self.time.as_secs_f64().max(1e-9)
    }

    pub(super) fn text(&self) -> String {
        let Counted { messages, bytes } = self.counted;
        let (seconds, rate) = (self.time.as_secs_f64(), self.per_second() / 1e6);
        format!("{rate:.1} MB/s ({messages} messages, {bytes} bytes, {seconds:.2} s)")
    }

    pub(super) fn fields(&self) -> Value {
        let Counted { messages, bytes } = self.counted;
        json!({
            "messages": messages, "bytes": bytes, "micros": micros(self.time),
            "bytes_per_second": self.per_second() as u64,
        })
    }
}

/// Counts the bytes of each interval of a measurement.
pub(super) struct Meter {
    started: Instant,
    intervals: Vec<u64>,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), intervals: Vec::new() }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.add_at(self.started.elapsed(), bytes);
    }

    fn add_at(&mut self, elapsed: Duration, bytes: usize) {
        let index = (elapsed.as_millis() / INTERVAL.as_millis()) as usize;
        if index >= MAX_INTERVALS {
            return; // a peer that ends no measurement does not occupy more memory
        }
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, 0);
        }
        self.intervals[index] += bytes as u64;
    }

    /// Returns seconds and MB/s. The last interval is not complete, and is left out.
    fn points(&self) -> Vec<(f64, f64)> {
        let seconds = INTERVAL.as_secs_f64();
        let complete = self.intervals.split_last().map_or(&[][..], |(_, complete)| complete);
        let point =
            |(index, bytes): (usize, &u64)| (index as f64 * seconds, *bytes as f64 / seconds / 1e6);
        complete.iter().enumerate().map(point).collect()
    }
}

/// The time of a point of a throughput.
const INTERVAL: Duration = Duration::from_millis(100);

/// How many intervals are drawn: those of two minutes, twice the longest measurement.
const MAX_INTERVALS: usize = 1200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_has_a_point_for_each_complete_interval() {
        let mut meter = Meter::start();
        for (millis, bytes) in [(0, 100_000), (99, 200_000), (250, 500_000), (310, 1)] {
            meter.add_at(Duration::from_millis(millis), bytes);
        }
        let rates: Vec<_> = meter.points().into_iter().map(|(_, rate)| rate.round()).collect();
        assert_eq!(rates, [3.0, 0.0, 5.0]);
        meter.add_at(Duration::from_secs(1_000_000), 1);
        assert_eq!(meter.intervals.len(), 4, "the memory of a meter is bounded");
    }
}
