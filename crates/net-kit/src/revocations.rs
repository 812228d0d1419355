//! `Revocations`: the recent revocations of a transport.

use net_traits::TrustPolicy;
use std::collections::VecDeque;

/// How many policies are kept.
const REMEMBERED: usize = 16;

/// The recent revocations of a transport, to be applied to handshakes in progress.
///
/// A handshake that began before a revocation verifies the peer by the old policy. Read the
/// [`count`](Self::count) before a handshake begins. After it, verify the peer again by the
/// policies [`since`](Self::since) that count.
///
/// ```
/// use net_kit::revocations::Revocations;
/// use net_traits::TrustPolicy;
///
/// let mut revocations = Revocations::default();
/// let before = revocations.count();
/// revocations.record(TrustPolicy::reject_all()); // during the handshake
/// assert_eq!(revocations.since(before).len(), 1); // verify the peer by this policy, too
/// ```
#[derive(Debug, Default)]
pub struct Revocations {
    count: u64,
    last: VecDeque<TrustPolicy>,
}

impl Revocations {
    /// Records the revocation of peers that `policy` does not trust. Returns the oldest policy if
    /// it was removed to bound the number, so that the caller can drop it after unlocking.
    pub fn record(&mut self, policy: TrustPolicy) -> Option<TrustPolicy> {
        self.count += 1;
        self.last.push_back(policy);
        if self.last.len() > REMEMBERED { self.last.pop_front() } else { None }
    }

    /// Returns the number of revocations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the policies that were recorded after the first `before`.
    ///
    /// Only the last 16 policies are kept. If there were more, the result also contains
    /// [`TrustPolicy::reject_all`].
    pub fn since(&self, before: u64) -> Vec<TrustPolicy> {
        let missed = usize::try_from(self.count.saturating_sub(before)).unwrap_or(usize::MAX);
        let known = self.last.iter().rev().take(missed).cloned();
        let forgotten = (missed > REMEMBERED).then(TrustPolicy::reject_all);
        known.chain(forgotten).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_policies_reject_every_peer() {
        let mut revocations = Revocations::default();
        for missed in 0..40 {
            assert_eq!(revocations.count(), missed);
            let policies = revocations.since(0);
            let strict = policies.iter().filter(|it| matches!(it, TrustPolicy::Hashes(_))).count();
            let expected = if missed <= 16 { (missed, 0) } else { (17, 1) };
            assert_eq!((policies.len() as u64, strict), expected);
            drop(revocations.record(TrustPolicy::Any));
        }
    }
}
