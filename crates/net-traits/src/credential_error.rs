//! `CredentialError`: why a credential cannot be used.

use crate::Cause;

/// The largest certificate chain, in bytes of DER, see
/// [`NetCredential::MAX_CHAIN`](crate::NetCredential::MAX_CHAIN).
pub(crate) const MAX_CHAIN: usize = 24 * 1024;

/// Why a credential cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no certificate. The PEM text needs a block `CERTIFICATE`.
    #[error("the credential holds no certificate: a PEM text needs a block CERTIFICATE")]
    NoCertificate,
    /// The chain is larger than a handshake can carry.
    #[error(
        "the certificate chain has {bytes} bytes, more than {}: remove what peers do not need",
        MAX_CHAIN
    )]
    ChainTooLong {
        /// Size of all certificates in DER, in bytes.
        bytes: usize,
    },
    /// There is no private key. The PEM text needs a block of one, such as `PRIVATE KEY`.
    #[error("the credential holds no private key: a PEM text needs a block such as PRIVATE KEY")]
    NoPrivateKey,
    /// The private key is encrypted.
    #[error("the private key is encrypted: decrypt it first (openssl pkey)")]
    EncryptedKey,
    /// The file cannot be read. The source says why: check the path and its permissions.
    #[error("cannot read {path}")]
    File {
        /// Path of the file.
        path: String,
        /// The error of the operating system, a [`std::io::Error`].
        #[source]
        cause: Cause,
    },
    /// The text is not PEM.
    #[error("the credential is not valid PEM")]
    Pem(#[source] Cause),
    /// The transport cannot use the key or the certificate, or an endorsement cannot be made. The
    /// source says why, for instance because the key is not that of the certificate.
    #[error("the credential cannot be used")]
    Unusable(#[source] Cause),
}
