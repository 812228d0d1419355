//! `Revocations`: what a transport has to remember of them.

use crate::TrustPolicy;
use std::collections::VecDeque;

/// So many policies are remembered.
const REMEMBERED: usize = 16;

/// The revocations of a transport, so that they reach connections whose handshake goes on: their peer is judged by the
/// policy that was there before.
///
/// Note the [`count`](Self::count) before a handshake begins, and judge the peer by the policies
/// [`since`](Self::since) when its connection is known to those that revocations look at.
///
/// ```
/// use net_traits::{Revocations, TrustPolicy};
///
/// let mut revocations = Revocations::default();
/// let before = revocations.count();
/// revocations.record(TrustPolicy::nobody());
/// assert_eq!(revocations.since(before).len(), 1);
/// assert!(revocations.since(revocations.count()).is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Revocations {
    count: u64,
    last: VecDeque<TrustPolicy>,
}

impl Revocations {
    /// Connections whose peer `policy` does not trust are about to be closed.
    pub fn record(&mut self, policy: TrustPolicy) {
        self.count += 1;
        self.last.push_back(policy);
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The policies of those since there were `seen`. If there were more than 16, the earlier ones are not known any
    /// more, and a policy that trusts nobody is among them.
    pub fn since(&self, seen: u64) -> Vec<TrustPolicy> {
        let missed = usize::try_from(self.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let known = self.last.iter().rev().take(missed).cloned();
        let forgotten = (missed > REMEMBERED).then(TrustPolicy::nobody);
        known.chain(forgotten).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_trusts_nobody() {
        let mut revocations = Revocations::default();
        for missed in 0..40 {
            assert_eq!(revocations.count(), missed);
            let policies = revocations.since(0);
            let strict = policies.iter().filter(|it| matches!(it, TrustPolicy::Hashes(_))).count();
            let expected = if missed <= 16 { (missed, 0) } else { (17, 1) };
            assert_eq!((policies.len() as u64, strict), expected);
            revocations.record(TrustPolicy::Any);
        }
    }
}
