//! `Sample`: what the process holds at a moment (Linux).

use crate::load::Counters;
use anyhow::{Context, Result};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Resident memory, in MiB.
    pub(crate) resident: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Schedules that have ended.
    pub(crate) schedules: u64,
    /// Round trips of the long connections.
    pub(crate) round_trips: u64,
    /// The 99th percentile of the round trips since the last sample.
    pub(crate) p99: Duration,
}

/// A measured value over time.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) value: fn(&Sample) -> f64,
    /// Whether growth is a leak.
    pub(crate) may_not_grow: bool,
}

pub(crate) const SERIES: [Series; 4] = [
    Series { name: "resident memory, MiB", value: |it| it.resident, may_not_grow: true },
    Series { name: "descriptors", value: |it| it.descriptors as f64, may_not_grow: true },
    Series { name: "threads", value: |it| it.threads as f64, may_not_grow: true },
    Series { name: "p99, ms", value: |it| it.p99.as_secs_f64() * 1e3, may_not_grow: false },
];

impl Sample {
    pub(crate) fn take(at: Duration, counters: &Counters) -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read the status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        Ok(Self {
            at,
            resident: kib.context("the status has no VmRSS")? / 1024.0,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            schedules: counters.schedules.load(Ordering::Relaxed),
            round_trips: counters.round_trips.load(Ordering::Relaxed),
            p99: counters.take_p99(),
        })
    }
}
