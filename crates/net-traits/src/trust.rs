//! `TrustPolicy`: whose certificates are accepted.

use crate::certificate::ValidCertificate;
use crate::endorsement::{self, EndorsingKey};
use crate::{CertHash, TrustError};
use rustls_pki_types::CertificateDer;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Whom to accept as a peer.
///
/// Holding the private key of the certificate is proven by TLS; the policy judges the certificate
/// alone. Every policy rejects certificates that cannot be read, are not valid at the time, or signed
/// themselves wrongly. [`TrustPolicy::hashes`] of an empty list trusts nobody, and so does the default.
///
/// ```
/// use net_traits::{Endorsers, NetCredential, TrustPolicy};
///
/// # #[cfg(feature = "self-signed")] {
/// let peer = NetCredential::self_signed(TrustPolicy::nobody())?;
/// let policy = TrustPolicy::hashes([peer.identity()]);
/// assert_eq!(policy.verify(peer.certificate_chain().first()).unwrap().hash, peer.identity());
///
/// let nobody = TrustPolicy::endorsed_by(Endorsers::new([]));
/// assert!(nobody.verify(peer.certificate_chain().first()).is_err());
/// # }
/// # Ok::<(), net_traits::CredentialError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrustPolicy {
    /// Accept every peer that shows a certificate, whoever it is.
    ///
    /// The connection is then encrypted but not authenticated: whoever answers is accepted.
    Any,
    /// Accept the peers with these identities.
    Hashes(Arc<HashSet<CertHash>>),
    /// Accept the peers for whom one of these keys vouches.
    Endorsed(Arc<Endorsers>),
    /// Accept the peers that one of the two accepts.
    HashesOrEndorsed(Arc<HashSet<CertHash>>, Arc<Endorsers>),
    /// Accept whom the application accepts.
    Custom(Arc<dyn PeerVerifier>),
}

/// The keys whose endorsements count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endorsers {
    keys: HashSet<EndorsingKey>,
    with_legacy: bool,
}

impl Endorsers {
    /// These keys. None means that nobody is endorsed.
    pub fn new(keys: impl IntoIterator<Item = EndorsingKey>) -> Self {
        Self { keys: keys.into_iter().collect(), with_legacy: false }
    }

    /// Also accepts endorsements in the [older format](crate::LEGACY_ENDORSEMENT_OID), which have no
    /// limits of validity and whose signatures could have been made for something else.
    #[must_use]
    pub fn with_legacy_format(mut self) -> Self {
        self.with_legacy = true;
        self
    }
}

/// The application's own judgement.
pub trait PeerVerifier: Send + Sync + 'static {
    /// Judges a peer whose certificate is valid in itself. Runs on a thread of the transport, or on that of whoever
    /// revokes, so it must be quick and must not block.
    ///
    /// # Errors
    ///
    /// Why the peer is not accepted, in words for the log.
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String>;

    /// Whether endorsements of the [older format](Endorsers::with_legacy_format) are read too. Default: no.
    fn reads_legacy_endorsements(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The hash of its certificate.
    pub hash: CertHash,
    /// The keys that vouch for it, each once, in ascending order. Whether they are trusted is another
    /// matter. Those of the older format are here only if the policy reads it.
    pub endorsers: Vec<EndorsingKey>,
}

impl TrustPolicy {
    /// Trusts the peers with these identities, and nobody if there are none.
    pub fn hashes(hashes: impl IntoIterator<Item = CertHash>) -> Self {
        Self::Hashes(Arc::new(hashes.into_iter().collect()))
    }

    /// Trusts the peers for whom one of these keys vouches, and nobody if there are none.
    pub fn endorsed_by(endorsers: Endorsers) -> Self {
        Self::Endorsed(Arc::new(endorsers))
    }

    /// Trusts the peers with these identities, and those for whom one of these keys vouches.
    pub fn hashes_or_endorsed_by(
        hashes: impl IntoIterator<Item = CertHash>,
        endorsers: Endorsers,
    ) -> Self {
        Self::HashesOrEndorsed(Arc::new(hashes.into_iter().collect()), Arc::new(endorsers))
    }

    /// Trusts whom `verifier` accepts.
    pub fn custom(verifier: impl PeerVerifier) -> Self {
        Self::Custom(Arc::new(verifier))
    }

    /// Trusts nobody.
    pub fn nobody() -> Self {
        Self::hashes([])
    }

    /// Judges the certificate that a peer showed, or that it showed none, and tells who it is.
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not to be talked to.
    pub fn verify(
        &self,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<PeerIdentity, TrustError> {
        self.verify_at(certificate, SystemTime::now())
    }

    /// [`verify`](Self::verify) as of another time.
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not to be talked to.
    pub fn verify_at(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        now: SystemTime,
    ) -> Result<PeerIdentity, TrustError> {
        let certificate = certificate.ok_or(TrustError::NoCertificate)?;
        let valid = ValidCertificate::check(certificate, now)?;
        let endorsers = endorsement::endorsers(&valid, now, self.reads_legacy_endorsements())?;
        let peer = PeerIdentity { hash: valid.identity, endorsers };
        match self {
            Self::Any => {}
            Self::Hashes(hashes) => {
                if !hashes.contains(&peer.hash) {
                    return Err(TrustError::UntrustedIdentity(peer.hash));
                }
            }
            Self::Endorsed(trusted) => {
                if !trusted.accepts(&peer) {
                    return Err(TrustError::NotEndorsed(peer));
                }
            }
            Self::HashesOrEndorsed(hashes, trusted) => {
                if !hashes.contains(&peer.hash) && !trusted.accepts(&peer) {
                    return Err(TrustError::NotEndorsed(peer));
                }
            }
            Self::Custom(verifier) => verifier
                .verify(&peer, certificate)
                .map_err(|why| TrustError::Refused { identity: peer.hash, why })?,
        }
        Ok(peer)
    }

    /// Whether endorsements of the [older format](Endorsers::with_legacy_format) count.
    pub fn reads_legacy_endorsements(&self) -> bool {
        match self {
            Self::Any | Self::Hashes(_) => false,
            Self::Endorsed(trusted) | Self::HashesOrEndorsed(_, trusted) => trusted.with_legacy,
            Self::Custom(verifier) => verifier.reads_legacy_endorsements(),
        }
    }
}

impl Endorsers {
    fn accepts(&self, peer: &PeerIdentity) -> bool {
        peer.endorsers.iter().any(|key| self.keys.contains(key))
    }
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self::nobody()
    }
}
