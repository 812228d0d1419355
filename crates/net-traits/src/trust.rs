//! `TrustPolicy`: whose certificates are accepted.

use crate::CertHash;
use rustls_pki_types::CertificateDer;
use std::collections::HashSet;
use std::sync::Arc;

/// Whom to accept as a peer.
///
/// Holding the private key of the certificate is proven by TLS; the policy judges the certificate
/// alone. [`TrustPolicy::hashes`] of an empty list trusts nobody, and so does the default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrustPolicy {
    /// Accept every peer that shows a certificate, whoever it is.
    ///
    /// The connection is then encrypted but not authenticated: whoever answers is accepted.
    Any,
    /// Accept the peers with these identities.
    Hashes(Arc<HashSet<CertHash>>),
}

impl TrustPolicy {
    /// Trusts the peers with these identities, and nobody if there are none.
    pub fn hashes(hashes: impl IntoIterator<Item = CertHash>) -> Self {
        Self::Hashes(Arc::new(hashes.into_iter().collect()))
    }

    /// Trusts nobody.
    pub fn nobody() -> Self {
        Self::hashes([])
    }

    /// Judges the certificate that a peer showed, or that it showed none, and tells its identity.
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not to be talked to.
    pub fn verify(&self, certificate: Option<&CertificateDer<'_>>) -> Result<CertHash, TrustError> {
        let identity = CertHash::of(certificate.ok_or(TrustError::NoCertificate)?);
        match self {
            Self::Any => Ok(identity),
            Self::Hashes(hashes) if hashes.contains(&identity) => Ok(identity),
            Self::Hashes(_) => Err(TrustError::UntrustedIdentity(identity)),
        }
    }
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self::nobody()
    }
}

/// Why a peer is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The identity of the peer is not among the trusted ones.
    #[error("identity {0} is not trusted")]
    UntrustedIdentity(CertHash),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_accepts_and_rejects() {
        let certificate = CertificateDer::from(&b"certificate"[..]);
        let identity = CertHash::of(&certificate);
        let other = CertHash::from_bytes([7; 32]);
        let untrusted = Err(TrustError::UntrustedIdentity(identity));

        assert_eq!(TrustPolicy::Any.verify(Some(&certificate)), Ok(identity));
        assert_eq!(TrustPolicy::hashes([other, identity]).verify(Some(&certificate)), Ok(identity));
        assert_eq!(TrustPolicy::hashes([other]).verify(Some(&certificate)), untrusted);
        assert_eq!(TrustPolicy::default().verify(Some(&certificate)), untrusted);
        assert_eq!(TrustPolicy::Any.verify(None), Err(TrustError::NoCertificate));
    }
}
