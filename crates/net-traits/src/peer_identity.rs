//! `PeerIdentity`: the identity of a peer and its endorsing keys.

use crate::{CertHash, EndorsingKey};
use std::time::SystemTime;

/// The identity of a peer and its endorsing keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The hash of the peer's certificate.
    pub hash: CertHash,
    /// The keys whose endorsement is valid and [counts](crate::TrustPolicy::counts) for the policy,
    /// each once, in ascending order. It is empty for a policy that names no keys, such as
    /// [`TrustPolicy::Any`](crate::TrustPolicy::Any). Keys of the older format are included only if
    /// the policy reads that format.
    pub endorsers: Vec<EndorsingKey>,
    /// When the trust ends: when the certificate expires, or earlier with the last endorsement that
    /// counts if trust depends on one. `None` if neither expires.
    pub trusted_until: Option<SystemTime>,
    /// Whether connections remain open after that, see
    /// [`TrustPolicy::at_handshake`](crate::TrustPolicy::at_handshake).
    pub stays_connected: bool,
}
