//! `Restricted`: the policy of a pool for a dial that accepts only some of the peers which the pool trusts.

use net_traits::{CertHash, CertificateDer, EndorsingKey, PeerIdentity, PeerVerifier, TrustPolicy};

/// Trusts the peers that the pool's policy trusts, unless `check` says why not.
pub(super) struct Restricted<F> {
    pub(super) policy: TrustPolicy,
    pub(super) check: F,
}

impl<F> PeerVerifier for Restricted<F>
where
    F: Fn(CertHash) -> Result<(), String> + Send + Sync + 'static,
{
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        (self.check)(peer.hash)?;
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
