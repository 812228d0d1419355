//! `Expecting` and `OtherThanSelf`: which peers a dial of a pool accepts.

use net_traits::{CertHash, CertificateDer, EndorsingKey, PeerIdentity, PeerVerifier, TrustPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trusts one peer, if the pool's policy trusts it too.
pub(super) struct Expecting {
    pub(super) peer: CertHash,
    pub(super) policy: TrustPolicy,
}

impl PeerVerifier for Expecting {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash != self.peer {
            return Err(format!("identity {} was expected", self.peer));
        }
        // The signature was verified before.
        self.policy.still_trusts(peer, Some(certificate)).map_err(|error| error.to_string())
    }

    fn complete(&self, peer: PeerIdentity, certificate: &CertificateDer<'_>) -> PeerIdentity {
        self.policy.verify(Some(certificate)).unwrap_or(peer)
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        self.policy.counts(key)
    }
}

/// Trusts the peers that the pool's policy trusts, but not this node.
pub(super) struct OtherThanSelf {
    pub(super) own: CertHash,
    /// Set if this node itself answers.
    pub(super) is_own: Arc<AtomicBool>,
    pub(super) policy: TrustPolicy,
}

impl PeerVerifier for OtherThanSelf {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash == self.own {
            self.is_own.store(true, Ordering::SeqCst);
            return Err("this node dialled itself".to_owned());
        }
        // The signature was verified before.
        self.policy.still_trusts(peer, Some(certificate)).map_err(|error| error.to_string())
    }

    fn complete(&self, peer: PeerIdentity, certificate: &CertificateDer<'_>) -> PeerIdentity {
        self.policy.verify(Some(certificate)).unwrap_or(peer)
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        self.policy.counts(key)
    }
}
