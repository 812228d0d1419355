//! `TrustError`: why a peer is not trusted.

use crate::{Cause, CertHash, EndorsingKey, certificate_fields};
use std::fmt;
use std::time::SystemTime;

/// Why a peer is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The peer presented no certificate. Each peer needs a credential with one.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The certificate cannot be parsed.
    #[error("certificate {identity} is malformed")]
    Malformed {
        /// Identity of the certificate.
        identity: CertHash,
        /// The fault.
        #[source]
        cause: Cause,
    },
    /// The certificate's validity period has not begun. Compare the clocks of both hosts.
    #[error("certificate {identity} is not valid before {}", Rfc3339(*from))]
    NotYetValid {
        /// Identity of the certificate.
        identity: CertHash,
        /// The first moment at which it is valid.
        from: SystemTime,
    },
    /// The certificate has expired. The peer needs a new one; if the clocks are wrong, set them.
    #[error("certificate {identity} expired at {}", Rfc3339(*until))]
    Expired {
        /// Identity of the certificate.
        identity: CertHash,
        /// The last moment at which it was valid.
        until: SystemTime,
    },
    /// The certificate's self-signature does not verify.
    #[error("the signature of certificate {identity} does not verify")]
    BadSignature {
        /// Identity of the certificate.
        identity: CertHash,
    },
    /// The certificate is self-signed with an unsupported algorithm.
    #[error("certificate {identity} is signed with the unsupported algorithm {algorithm}")]
    Unsupported {
        /// Identity of the certificate.
        identity: CertHash,
        /// What is not supported, with its object identifier: the algorithm, the curve, or the
        /// length of the key.
        algorithm: String,
    },
    /// The peer did not prove that it holds the private key of its certificate.
    #[error("the peer did not prove that it holds the key of certificate {identity}")]
    Unproven {
        /// Identity of the certificate.
        identity: CertHash,
    },
    /// The identity of the peer is not among the trusted ones. If it is the right peer, add the
    /// identity to the policy.
    #[error("identity {0} is not trusted")]
    UntrustedIdentity(CertHash),
    /// No trusted key endorses the peer. If it is the right peer, endorse its key, or trust one of
    /// its endorsers.
    #[error("identity {identity} is not trusted, and {}", Endorsed(claimed))]
    NotEndorsed {
        /// Identity of the certificate.
        identity: CertHash,
        /// The keys that the certificate names as its endorsers, in ascending order. Nothing was
        /// verified: a certificate can name any key.
        claimed: Vec<EndorsingKey>,
    },
    /// The application's verifier rejected the peer.
    #[error("identity {identity} was rejected: {why}")]
    Refused {
        /// Identity of the certificate.
        identity: CertHash,
        /// The verifier's reason.
        why: String,
    },
    /// The application's verifier panicked.
    #[error("the verifier panicked on identity {identity}: {what}")]
    VerifierPanicked {
        /// Identity of the certificate.
        identity: CertHash,
        /// The message of the panic.
        what: String,
    },
}

impl TrustError {
    /// Returns the peer's identity, if it presented a certificate.
    pub fn identity(&self) -> Option<CertHash> {
        match self {
            Self::NoCertificate => None,
            Self::Malformed { identity, .. }
            | Self::NotYetValid { identity, .. }
            | Self::Expired { identity, .. }
            | Self::BadSignature { identity }
            | Self::Unproven { identity }
            | Self::Unsupported { identity, .. }
            | Self::UntrustedIdentity(identity)
            | Self::NotEndorsed { identity, .. }
            | Self::Refused { identity, .. }
            | Self::VerifierPanicked { identity, .. } => Some(*identity),
        }
    }

    /// Returns the TLS alert (RFC 8446, section 6.2) to send to the peer.
    ///
    /// Faults of the certificate itself have their own alerts. All other rejections under one
    /// policy use the same alert, so that a peer that presents the certificates of others does not
    /// learn which of them this side trusts or has revoked.
    ///
    /// ```
    /// use net_traits::{TrustError, TrustPolicy};
    ///
    /// let error = TrustPolicy::reject_all().verify(None).unwrap_err();
    /// assert_eq!(error, TrustError::NoCertificate);
    /// assert_eq!(error.tls_alert(), 116);
    /// ```
    pub fn tls_alert(&self) -> u8 {
        match self {
            Self::Malformed { .. } | Self::BadSignature { .. } => 42, // bad_certificate
            Self::Unsupported { .. } => 43,                           // unsupported_certificate
            Self::NotYetValid { .. } | Self::Expired { .. } => 45,    // certificate_expired
            Self::UntrustedIdentity(_) | Self::NotEndorsed { .. } => 48, // unknown_ca
            Self::Refused { .. } | Self::VerifierPanicked { .. } => 49, // access_denied
            Self::Unproven { .. } => 51,                              // decrypt_error
            Self::NoCertificate => 116,                               // certificate_required
        }
    }
}

/// Prints a time as RFC 3339 does, in UTC and whole seconds.
struct Rfc3339(SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match certificate_fields::date_time(self.0) {
            // The fields after the year are the same in both years.
            Some((time, year)) => write!(f, "{year:04}{}", &time.to_string()[4..]),
            None => write!(f, "{:?}", self.0), // before the year 0 or after 9999
        }
    }
}

/// Describes the endorsements that a certificate names.
struct Endorsed<'a>(&'a [EndorsingKey]);

impl fmt::Display for Endorsed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it has no endorsement");
        }
        f.write_str("it has no valid endorsement by a trusted key; it names those by")?;
        self.0.iter().try_for_each(|key| write!(f, " {key}"))
    }
}
