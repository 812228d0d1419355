//! `Scenario`: what is done to the nodes and to the network, and when, from a seed.

use fastrand::Rng;
use net_traits::CertHash;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Something that happens. The nodes concerned are chosen when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Some node publishes a rumor.
    Publish,
    /// A process ends, and starts again later.
    Restart,
    /// A host fails without a trace, and another one starts later in its place.
    Crash,
    /// The node with this number starts.
    Start(u32),
    /// The network is divided.
    Partition,
    Heal,
    /// The link between two neighbours gets slow.
    Slow,
    /// The link between two hosts gets normal again.
    Fast(IpAddr, IpAddr),
    /// The connections between two neighbours are reset.
    Reset,
    /// A node gets another key.
    Rotate,
    /// The key of a node is stolen, and used by the thief.
    Steal,
    /// The theft is noticed: the node gets another key, and the nodes are told not to trust this one.
    Revoke(CertHash),
    /// What has happened so far is checked.
    Check,
}

/// How often something happens in one period, for each node and besides.
struct Rate {
    step: Step,
    per_node: f64,
    besides: f64,
    /// Whether it needs a network whose links can fail.
    needs_links: bool,
}

const RATES: [Rate; 7] = [
    Rate { step: Step::Restart, per_node: 0.0015, besides: 0.1, needs_links: false },
    Rate { step: Step::Rotate, per_node: 0.0003, besides: 0.05, needs_links: false },
    Rate { step: Step::Steal, per_node: 0.0, besides: 0.1, needs_links: false },
    Rate { step: Step::Crash, per_node: 0.0003, besides: 0.05, needs_links: true },
    Rate { step: Step::Partition, per_node: 0.0, besides: 0.05, needs_links: true },
    Rate { step: Step::Slow, per_node: 0.001, besides: 0.1, needs_links: true },
    Rate { step: Step::Reset, per_node: 0.0005, besides: 0.1, needs_links: true },
];

/// The steps to come, in order.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    steps: BTreeMap<(Duration, u64), Step>,
    count: u64,
}

impl Agenda {
    /// Draws the steps of so many periods. A rumor is published in each.
    pub(crate) fn draw(
        rng: &mut Rng,
        nodes: u32,
        period: Duration,
        periods: u32,
        links: bool,
    ) -> Self {
        let mut agenda = Self::default();
        for number in 1..periods {
            agenda.add(period * number, Step::Publish);
            agenda.add(period * number, Step::Check);
        }
        for Rate { step, per_node, besides, needs_links } in &RATES {
            let mean = (per_node * f64::from(nodes) + besides) * f64::from(periods);
            let count = (mean + rng.f64()) as u32; // rounded at random
            for _ in 0..count {
                let at = period.mul_f64(1.0 + rng.f64() * f64::from(periods.saturating_sub(1)));
                if links || !needs_links {
                    agenda.add(at, step.clone());
                }
            }
        }
        agenda
    }

    pub(crate) fn add(&mut self, at: Duration, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    pub(crate) fn next(&mut self) -> Option<(Duration, Step)> {
        let ((at, _), step) = self.steps.pop_first()?;
        Some((at, step))
    }

    /// Returns how many keys the steps need.
    pub(crate) fn keys(&self) -> usize {
        self.steps.values().filter(|step| matches!(step, Step::Rotate | Step::Steal)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_steps() {
        let draw = |seed, links| {
            let second = Duration::from_secs(1);
            Agenda::draw(&mut Rng::with_seed(seed), 100, second, 60, links).steps
        };
        assert_eq!(draw(1, true), draw(1, true));
        assert_ne!(draw(1, true), draw(2, true));
        let is_of_link =
            |step: &Step| matches!(step, Step::Crash | Step::Partition | Step::Slow | Step::Reset);
        assert!(draw(1, true).values().any(is_of_link));
        assert!(!draw(1, false).values().any(is_of_link));
    }
}
