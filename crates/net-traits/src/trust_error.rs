//! `TrustError`: why a peer is not trusted.

use crate::{CertHash, PeerIdentity};
use std::fmt;
use std::time::SystemTime;

/// Why a peer is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("certificate {identity} is malformed: {what}")]
    Malformed {
        /// Whose it is.
        identity: CertHash,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate counts later.
    #[error("certificate {identity} is not valid before {}", Seconds(*from))]
    NotYetValid {
        /// Whose it is.
        identity: CertHash,
        /// The first moment at which it is valid.
        from: SystemTime,
    },
    /// The certificate has expired.
    #[error("certificate {identity} has expired at {}", Seconds(*until))]
    Expired {
        /// Whose it is.
        identity: CertHash,
        /// The last moment at which it was valid.
        until: SystemTime,
    },
    /// The certificate signed itself, wrongly.
    #[error("the signature of certificate {identity} does not verify")]
    BadSignature {
        /// Whose it is.
        identity: CertHash,
    },
    /// The certificate signed itself in a way that this crate cannot verify.
    #[error("certificate {identity} is signed with the unsupported algorithm {algorithm}")]
    Unsupported {
        /// Whose it is.
        identity: CertHash,
        /// The name of the algorithm, an object identifier.
        algorithm: String,
    },
    /// The peer showed a certificate, and did not prove in the handshake that it holds its private key.
    #[error("the peer did not prove that it holds the key of certificate {identity}")]
    Unproven {
        /// Whose it is.
        identity: CertHash,
    },
    /// The identity of the peer is not among the trusted ones.
    #[error("identity {0} is not trusted")]
    UntrustedIdentity(CertHash),
    /// No key that is trusted vouches for the peer.
    #[error("identity {} is not trusted, and {}", .0.hash, Endorsed(.0))]
    NotEndorsed(PeerIdentity),
    /// The application's verifier refused the peer.
    #[error("identity {identity} is refused: {why}")]
    Refused {
        /// Whose it is.
        identity: CertHash,
        /// What the verifier said.
        why: String,
    },
}

impl TrustError {
    /// The identity of the peer, if it showed a certificate.
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
            | Self::Refused { identity, .. } => Some(*identity),
            Self::NotEndorsed(peer) => Some(peer.hash),
        }
    }

    /// The TLS alert (RFC 8446, section 6.2) with which the peer is told.
    ///
    /// What the certificate shows by itself is named. What depends on this side's trust is not: under one policy
    /// every valid certificate that is not accepted gets the same alert, so that a stranger who shows a
    /// certificate that is not its own learns nothing about whom this side knows, or has revoked.
    ///
    /// ```
    /// use net_traits::{TrustError, TrustPolicy};
    ///
    /// let error = TrustPolicy::nobody().verify(None).unwrap_err();
    /// assert_eq!(error, TrustError::NoCertificate);
    /// assert_eq!(error.tls_alert(), 116);
    /// ```
    pub fn tls_alert(&self) -> u8 {
        match self {
            Self::Malformed { .. } | Self::BadSignature { .. } => 42, // bad_certificate
            Self::Unsupported { .. } => 43,                           // unsupported_certificate
            Self::NotYetValid { .. } | Self::Expired { .. } => 45,    // certificate_expired
            Self::UntrustedIdentity(_) | Self::NotEndorsed(_) => 48,  // unknown_ca
            Self::Refused { .. } => 49,                               // access_denied
            Self::Unproven { .. } => 51,                              // decrypt_error
            Self::NoCertificate => 116,                               // certificate_required
        }
    }
}

/// A time, in seconds since the Unix epoch.
struct Seconds(SystemTime);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s after 1970", crate::certificate::unix_seconds(self.0))
    }
}

/// Who vouches for a peer.
struct Endorsed<'a>(&'a PeerIdentity);

impl fmt::Display for Endorsed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.endorsers {
            [] => f.write_str("no valid endorsement vouches for it"),
            keys => {
                f.write_str("no trusted key vouches for it, only")?;
                keys.iter().try_for_each(|key| write!(f, " {key}"))
            }
        }
    }
}
