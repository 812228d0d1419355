//! `TrustPolicy`: which certificates are accepted.

use crate::certificate_check::DatedCertificate;
use crate::endorsement;
use crate::{CertHash, EndorsingKey, PeerIdentity, TrustError};
use rustls_pki_types::CertificateDer;
use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

/// Decides which peers to accept.
///
/// TLS proves that the peer holds the private key; the policy verifies the certificate only. Every
/// policy rejects certificates that are malformed, not valid at the time, or whose self-signature
/// does not verify. The default and [`TrustPolicy::hashes`] of an empty list reject every peer.
///
/// ```
/// use net_traits::{Endorsers, NetCredential, TrustPolicy};
///
/// # #[cfg(feature = "self-signed")] {
/// let peer = NetCredential::self_signed(TrustPolicy::reject_all())?;
/// let policy = TrustPolicy::hashes([peer.identity()]);
/// assert_eq!(policy.verify(peer.certificate_chain().first()).unwrap().hash, peer.identity());
///
/// let none = TrustPolicy::endorsed_by(Endorsers::new([]));
/// assert!(none.verify(peer.certificate_chain().first()).is_err());
/// # }
/// # Ok::<(), net_traits::CredentialError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TrustPolicy {
    /// Accept every peer with a valid certificate.
    ///
    /// The connection is then encrypted but not authenticated. The policy names no keys, so that no
    /// endorsement is verified and [`PeerIdentity::endorsers`] is empty. To accept every peer and
    /// learn which of some keys endorse it, use a [`PeerVerifier`] with [`PeerVerifier::counts`].
    Any,
    /// Accept the peers with these identities. No endorsement is verified, as with `Any`.
    Hashes(Arc<HashSet<CertHash>>),
    /// Accept the peers that one of these keys endorses.
    Endorsed(Arc<Endorsers>),
    /// Accept the peers that `Hashes` or `Endorsed` accepts.
    HashesOrEndorsed(Arc<HashSet<CertHash>>, Arc<Endorsers>),
    /// Accept the peers that the application's verifier accepts.
    Custom(Arc<dyn PeerVerifier>),
    /// Accept the peers that this policy accepts, and keep their connections open when trust ends.
    AtHandshake(Arc<TrustPolicy>),
}

/// The trusted endorsing keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endorsers {
    keys: HashSet<EndorsingKey>,
    with_legacy: bool,
}

impl Endorsers {
    /// Creates the set of trusted keys. If it is empty, no peer is accepted.
    pub fn new(keys: impl IntoIterator<Item = EndorsingKey>) -> Self {
        Self { keys: keys.into_iter().collect(), with_legacy: false }
    }

    /// Also accepts endorsements in the [older format](crate::LEGACY_ENDORSEMENT_OID), which have
    /// no validity period and no domain separation: a signature made for another purpose may be
    /// accepted.
    #[must_use]
    pub fn with_legacy_format(mut self) -> Self {
        self.with_legacy = true;
        self
    }
}

/// Verifies peers by the application's own rules.
pub trait PeerVerifier: Send + Sync + 'static {
    /// Verifies a peer whose certificate is valid.
    ///
    /// It runs on a thread of the transport, or in the task that revokes. It must not block. A
    /// panic rejects the peer, see [`TrustError::VerifierPanicked`].
    ///
    /// # Errors
    ///
    /// The reason why the peer is not accepted, for [`TrustError::Refused`].
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String>;

    /// Returns whether endorsements in the [older format](Endorsers::with_legacy_format) are read.
    /// Default: no.
    fn reads_legacy_endorsements(&self) -> bool {
        false
    }

    /// Adjusts the identity of an accepted peer: when the trust in it ends, and whether its
    /// connections remain open then. The hash cannot be changed.
    ///
    /// Default: unchanged. Trust ends when the certificate expires, or earlier with the last
    /// endorsement that [counts](Self::counts) if there is one.
    fn complete(&self, peer: PeerIdentity, certificate: &CertificateDer<'_>) -> PeerIdentity {
        let _ = certificate;
        peer
    }

    /// Returns whether endorsements by `key` count. Others are not verified: a verification takes
    /// some 70 µs, and the peer chooses how many endorsements it presents, up to
    /// [`MAX_ENDORSEMENTS`](crate::MAX_ENDORSEMENTS). Default: all count.
    fn counts(&self, key: &EndorsingKey) -> bool {
        let _ = key;
        true
    }
}

impl fmt::Debug for dyn PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

impl TrustPolicy {
    /// Trusts the peers with these identities. An empty list rejects every peer.
    pub fn hashes(hashes: impl IntoIterator<Item = CertHash>) -> Self {
        Self::Hashes(Arc::new(hashes.into_iter().collect()))
    }

    /// Trusts the peers that one of these keys endorses. An empty set rejects every peer.
    pub fn endorsed_by(endorsers: Endorsers) -> Self {
        Self::Endorsed(Arc::new(endorsers))
    }

    /// Trusts the peers with these identities and the peers that one of these keys endorses.
    pub fn hashes_or_endorsed_by(
        hashes: impl IntoIterator<Item = CertHash>,
        endorsers: Endorsers,
    ) -> Self {
        Self::HashesOrEndorsed(Arc::new(hashes.into_iter().collect()), Arc::new(endorsers))
    }

    /// Trusts the peers that `verifier` accepts.
    pub fn custom(verifier: impl PeerVerifier) -> Self {
        Self::Custom(Arc::new(verifier))
    }

    /// Trusts the peers that this policy trusts during their handshake, and keeps their connections
    /// open when their certificate or endorsement expires.
    ///
    /// Other policies close these with [`TRUST_ENDED`](crate::close_code::TRUST_ENDED).
    #[must_use]
    pub fn at_handshake(self) -> Self {
        Self::AtHandshake(Arc::new(self))
    }

    /// Rejects every peer.
    pub fn reject_all() -> Self {
        Self::hashes([])
    }

    /// Verifies the peer's certificate now and returns its identity; `None` if it presented none.
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not trusted.
    pub fn verify(
        &self,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<PeerIdentity, TrustError> {
        self.verify_at(certificate, SystemTime::now())
    }

    /// Verifies the peer's certificate at the time `now`, see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not trusted.
    pub fn verify_at(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        now: SystemTime,
    ) -> Result<PeerIdentity, TrustError> {
        self.verify_caught(certificate, now, None)
    }

    /// Verifies a peer that a policy has accepted again, at the current time.
    ///
    /// `peer` is the result of the earlier verification. The self-signature of the certificate is
    /// not verified again, and endorsements only if this policy depends on them. This takes a
    /// fraction of the time of [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// [`TrustError`] says why the peer is not trusted any more.
    pub fn still_trusts(
        &self,
        peer: &PeerIdentity,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Result<(), TrustError> {
        self.verify_caught(certificate, SystemTime::now(), Some(peer)).map(drop)
    }

    /// Verifies a peer, and catches a panic of the application's verifier. `before` is the result
    /// of an earlier verification.
    fn verify_caught(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        now: SystemTime,
        before: Option<&PeerIdentity>,
    ) -> Result<PeerIdentity, TrustError> {
        let certificate = certificate.ok_or(TrustError::NoCertificate)?;
        let evaluate = || self.evaluate(certificate, now, before);
        match self {
            // These may run the application's verifier.
            Self::Custom(_) | Self::AtHandshake(_) => catch_unwind(AssertUnwindSafe(evaluate))
                .unwrap_or_else(|panic| {
                    let identity = CertHash::of(certificate);
                    Err(TrustError::VerifierPanicked { identity, what: message(&*panic) })
                }),
            _ => evaluate(),
        }
    }

    fn evaluate(
        &self,
        certificate: &CertificateDer<'_>,
        now: SystemTime,
        before: Option<&PeerIdentity>,
    ) -> Result<PeerIdentity, TrustError> {
        if let Self::AtHandshake(policy) = self {
            let peer = policy.evaluate(certificate, now, before)?;
            return Ok(PeerIdentity { stays_connected: true, ..peer });
        }
        // Cheap checks come first, since any host can present a certificate.
        let dated = DatedCertificate::parse(certificate, now)?;
        let before = before.filter(|before| before.hash == dated.identity);
        let (hash, with_legacy) = (dated.identity, self.reads_legacy_endorsements());
        let is_known = match self {
            Self::Any | Self::Custom(_) => true,
            Self::Hashes(hashes) | Self::HashesOrEndorsed(hashes, _) => hashes.contains(&hash),
            Self::Endorsed(_) | Self::AtHandshake(_) => false,
        };
        if !is_known {
            if let Self::Hashes(_) = self {
                return Err(TrustError::UntrustedIdentity(hash));
            }
            let claimed = endorsement::claimed(&dated, with_legacy)?;
            if !claimed.iter().any(|key| self.counts(key)) {
                return Err(TrustError::NotEndorsed { identity: hash, claimed });
            }
        }
        if before.is_none() {
            dated.verify_signature()?;
        }
        // The first verification has found the endorsers. Verify them again only if trust depends
        // on them.
        if let (Some(before), true) = (before, is_known && !matches!(self, Self::Custom(_))) {
            return Ok(before.clone());
        }
        let counts = |key: &EndorsingKey| self.counts(key);
        let (endorsers, endorsed_until) = endorsement::endorsers(&dated, now, with_legacy, counts)?;
        if !is_known && endorsers.is_empty() {
            let claimed = endorsement::claimed(&dated, with_legacy)?;
            return Err(TrustError::NotEndorsed { identity: hash, claimed });
        }
        // A custom verifier may depend on the endorsements that it was given; its `complete` can
        // say otherwise.
        let depends = !is_known || matches!(self, Self::Custom(_)) && !endorsers.is_empty();
        let ends = [dated.until, endorsed_until.filter(|_| depends)];
        let trusted_until = ends.into_iter().flatten().min();
        let peer = PeerIdentity { hash, endorsers, trusted_until, stays_connected: false };
        let Self::Custom(verifier) = self else { return Ok(peer) };
        let verified = verifier.verify(&peer, certificate);
        verified.map_err(|why| TrustError::Refused { identity: hash, why })?;
        Ok(PeerIdentity { hash, ..verifier.complete(peer, certificate) })
    }

    /// Returns whether endorsements by `key` count. Others are neither verified nor listed in
    /// [`PeerIdentity::endorsers`].
    pub fn counts(&self, key: &EndorsingKey) -> bool {
        match self {
            Self::Any | Self::Hashes(_) => false,
            Self::Endorsed(trusted) | Self::HashesOrEndorsed(_, trusted) => {
                trusted.keys.contains(key)
            }
            Self::Custom(verifier) => verifier.counts(key),
            Self::AtHandshake(policy) => policy.counts(key),
        }
    }

    /// Returns whether endorsements in the [older format](Endorsers::with_legacy_format) are read.
    pub fn reads_legacy_endorsements(&self) -> bool {
        match self {
            Self::Any | Self::Hashes(_) => false,
            Self::Endorsed(trusted) | Self::HashesOrEndorsed(_, trusted) => trusted.with_legacy,
            Self::Custom(verifier) => verifier.reads_legacy_endorsements(),
            Self::AtHandshake(policy) => policy.reads_legacy_endorsements(),
        }
    }
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let literal = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = panic.downcast_ref::<String>().cloned().or_else(literal);
    message.unwrap_or_else(|| "a panic without a message".to_owned())
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self::reject_all()
    }
}
