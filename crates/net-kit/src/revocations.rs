//! `Revocations`: the recent revocations of a transport.

use net_traits::TrustPolicy;
use std::collections::VecDeque;

/// How many policies are kept.
const REMEMBERED: usize = 16;

/// The recent revocations of a transport, to be applied to connections in their handshake.
///
/// The peer of such a connection is verified by the policy from before the revocation.
///
/// Read the [`count`](Self::count) before a handshake begins. Once later revocations find the
/// connection, verify its peer by the policies [`since`](Self::since) then.
///
/// ```
/// use net_kit::revocations::Revocations;
/// use net_traits::TrustPolicy;
///
/// let mut revocations = Revocations::default();
/// let seen = revocations.count(); // the handshake begins
/// revocations.record(TrustPolicy::reject_all());
/// assert_eq!(revocations.since(seen).len(), 1); // and its peer is verified again
/// ```
#[derive(Debug, Default)]
pub struct Revocations {
    count: u64,
    last: VecDeque<TrustPolicy>,
}

impl Revocations {
    /// Records that connections whose peers `policy` does not trust are revoked. Returns the policy
    /// that is forgotten for it.
    pub fn record(&mut self, policy: TrustPolicy) -> Option<TrustPolicy> {
        self.count += 1;
        self.last.push_back(policy);
        if self.last.len() > REMEMBERED { self.last.pop_front() } else { None }
    }

    /// Returns the number of revocations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the policies recorded after the first `seen`.
    ///
    /// Only the last 16 are kept. If older ones are needed, the result includes
    /// [`TrustPolicy::reject_all`].
    pub fn since(&self, seen: u64) -> Vec<TrustPolicy> {
        let missed = usize::try_from(self.count.saturating_sub(seen)).unwrap_or(usize::MAX);
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
