//! `Workload`: what a contender is asked to do, and the figures that result.

use serde::{Deserialize, Serialize};

/// A workload, as it is passed to the process of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Messages at full speed; `count` is the sum of all connections.
    OneWay { connections: usize, size: usize, count: usize },
    /// Each message goes to all connections, from one task.
    FanOut { connections: usize, size: usize, count: usize },
    /// Messages at full speed beside a connection whose peer does not read.
    SlowReader { size: usize, count: usize },
    /// Round trips of a message.
    PingPong { size: usize, count: usize },
    /// Connections that carry one message and are closed.
    Handshakes { at_once: usize, count: usize },
    /// Connections that are idle, in a process of their own.
    Idle { connections: usize },
    /// Messages for some time through a relay with the faults of a network.
    Transfer { network: usize, seed: u64, milliseconds: u64 },
}

impl Workload {
    /// Returns the units of the figures.
    pub(crate) fn figures(self) -> &'static [Unit] {
        match self {
            Self::OneWay { size, .. } if size >= LARGE => {
                const { &[rate_in(", MB/s"), cost_in(", CPU s per GB")] }
            }
            Self::OneWay { .. } | Self::FanOut { .. } => {
                const { &[rate_in(", 1000/s"), cost_in(", CPU ns per message")] }
            }
            Self::SlowReader { .. } => {
                const { &[rate_in(", other connection, MB/s"), cost_in(", sent before it waits, KiB")] }
            }
            Self::PingPong { .. } => {
                const {
                    &[
                        drawn(" p50, us"),
                        cost_in(" p99, us"),
                        cost_in(" p99.9, us"),
                        cost_in(", CPU us each"),
                    ]
                }
            }
            Self::Handshakes { .. } => const { &[rate_in(", 1/s"), cost_in(", CPU us each")] },
            Self::Idle { .. } => {
                const { &[drawn(", KiB each"), cost_in(", KiB each after their end")] }
            }
            Self::Transfer { .. } => const { &[rate_in(", Mbit/s")] },
        }
    }

    /// Returns the workload with a tenth of the work.
    pub(crate) fn quick(self) -> Self {
        match self {
            Self::OneWay { connections, size, count } => {
                Self::OneWay { connections: connections.min(16), size, count: count / 10 }
            }
            Self::FanOut { connections, size, count } => {
                Self::FanOut { connections, size, count: count / 10 }
            }
            Self::SlowReader { size, count } => Self::SlowReader { size, count: count / 10 },
            Self::PingPong { size, count } => Self::PingPong { size, count: count / 10 },
            Self::Handshakes { at_once, count } => Self::Handshakes { at_once, count: count / 10 },
            Self::Idle { connections } => Self::Idle { connections: (connections / 10).min(100) },
            Self::Transfer { network, seed, milliseconds } => {
                Self::Transfer { network, seed, milliseconds: milliseconds / 10 }
            }
        }
    }

    /// Returns the workload of a round. All contenders of a round get the same seed.
    pub(crate) fn of_round(self, round: usize) -> Self {
        match self {
            Self::Transfer { network, milliseconds, .. } => {
                Self::Transfer { network, seed: round as u64, milliseconds }
            }
            same => same,
        }
    }

    /// Returns whether memory that other workloads left would falsify the figures.
    pub(crate) fn needs_own_process(self) -> bool {
        matches!(self, Self::Idle { .. })
    }
}

/// What a figure counts, and how it is shown.
pub(crate) struct Unit {
    /// What follows the name of the workload.
    pub(crate) suffix: &'static str,
    pub(crate) is_drawn: bool,
    pub(crate) less_is_better: bool,
}

/// A rate, which charts show.
const fn rate_in(suffix: &'static str) -> Unit {
    Unit { suffix, is_drawn: true, less_is_better: false }
}

/// A cost, which only tables have.
const fn cost_in(suffix: &'static str) -> Unit {
    Unit { suffix, is_drawn: false, less_is_better: true }
}

/// A cost that charts show.
const fn drawn(suffix: &'static str) -> Unit {
    Unit { is_drawn: true, ..cost_in(suffix) }
}

/// From this size, rates are in megabytes instead of messages.
const LARGE: usize = 1024;

/// Converts messages per second to the unit of [`Workload::figures`].
pub(crate) fn rate(size: usize, per_second: f64) -> f64 {
    if size < LARGE { per_second / 1e3 } else { per_second * size as f64 / 1e6 }
}

/// Converts processor seconds per message to the unit of [`Workload::figures`].
pub(crate) fn cost(size: usize, seconds: f64) -> f64 {
    if size < LARGE { seconds * 1e9 } else { seconds / size as f64 * 1e9 }
}
