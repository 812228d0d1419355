//! `PeerIdentity`: who a peer is, and who vouches for it.

use crate::{CertHash, EndorsingKey};

/// The identity of a peer and its endorsing keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The hash of the peer's certificate.
    pub hash: CertHash,
    /// The keys with a valid endorsement, each once, in ascending order, of those that
    /// [count](crate::TrustPolicy::counts) for the policy. Keys of the older format are included only if the policy reads that format.
    pub endorsers: Vec<EndorsingKey>,
}
