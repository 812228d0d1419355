//! `Plan`: the size and the times of a run, and `Outcome`: what it has seen.

use crate::journal::Counts;
use crate::mutant::Mutant;
use std::collections::BTreeMap;
use std::time::Duration;

/// The size and the times of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes there are.
    pub peers: u32,
    /// How long faults happen.
    pub duration: Duration,
    /// All decisions are derived from it.
    pub seed: u64,
    /// How often a rumor is published, and how often a node checks its neighbours.
    pub period: Duration,
    /// After this time a message has been received or reported.
    pub settled: Duration,
    /// After this time every node that was up all the time knows a rumor.
    pub covered: Duration,
    /// How long the nodes go on without faults, at least.
    pub rest: Duration,
    /// A fault of the nodes, for tests of the checker.
    pub mutant: Option<Mutant>,
    /// Called about every 10 s of real time with the time that has passed in the simulation.
    pub progress: fn(Duration),
}

impl Plan {
    /// A run in virtual time.
    pub fn virtual_time(peers: u32, minutes: f64, seed: u64) -> Self {
        Self {
            peers,
            duration: Duration::from_secs_f64(minutes * 60.0),
            seed,
            period: Duration::from_secs(10),
            settled: Duration::from_secs(120),
            covered: Duration::from_secs(120),
            // The messages that were sent during faults are settled then.
            rest: Duration::from_secs(130),
            mutant: None,
            progress: |_| {},
        }
    }

    /// A run in real time.
    pub fn real_time(peers: u32, minutes: f64, seed: u64) -> Self {
        let (period, limit) = (Duration::from_millis(500), Duration::from_secs(60));
        let plan = Self::virtual_time(peers, minutes, seed);
        Self { period, settled: limit, covered: limit, rest: period, ..plan }
    }
}

/// What a run without a violation has seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The messages.
    pub counts: Counts,
    /// What was done, by name.
    pub steps: BTreeMap<&'static str, u64>,
    /// A digest of all records of messages and their times.
    pub digest: u64,
    /// The longest time that a rumor took to reach every node that was up all the time; in periods,
    /// rounded up.
    pub slowest_rumor: Duration,
    /// How many connections a node had after the faults, on average.
    pub connections: f64,
}
