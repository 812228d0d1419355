//! `NetCredential`: who I am and whom I trust.

use crate::{CertHash, TrustPolicy};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// A certificate chain, its private key, and whom to trust.
///
/// Cloning is cheap: all clones share the key. `Debug` shows the identity and never the key, which is
/// erased from memory when the last clone is dropped.
#[derive(Clone)]
pub struct NetCredential {
    own: Arc<Own>,
    trust: TrustPolicy,
}

struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: CertHash,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl NetCredential {
    /// The longest chain, in bytes of DER: 24 KiB.
    ///
    /// Transports differ in what they can send, and peers in what they accept. msquic accepts 32 KiB of handshake
    /// data in all, besides the chain a signature and the extensions of TLS.
    pub const MAX_CHAIN: usize = 24 * 1024;

    /// A credential from a chain, the leaf first, and the leaf's private key.
    ///
    /// Whether the key fits the leaf is found out by the transport that first uses it.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoCertificate`] when the chain is empty; [`CredentialError::ChainTooLong`] when it has more
    /// than [`MAX_CHAIN`](Self::MAX_CHAIN) bytes.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trust: TrustPolicy,
    ) -> Result<Self, CredentialError> {
        let identity = CertHash::of(chain.first().ok_or(CredentialError::NoCertificate)?);
        let bytes = chain.iter().map(|certificate| certificate.len()).sum();
        if bytes > Self::MAX_CHAIN {
            return Err(CredentialError::ChainTooLong { bytes });
        }
        Ok(Self { own: Arc::new(Own { chain, key, identity }), trust })
    }

    /// A credential from PEM text that holds certificates, the leaf first, and one private key.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] when the text is no PEM or one of the two is missing.
    pub fn from_pem(pem: &[u8], trust: TrustPolicy) -> Result<Self, CredentialError> {
        let chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CredentialError::Pem(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => CredentialError::NoPrivateKey,
            error => CredentialError::Pem(error.to_string()),
        })?;
        Self::new(chain, key, trust)
    }

    /// A credential from DER: a chain, the leaf first, and the leaf's private key in PKCS#8, SEC1 or
    /// PKCS#1 form. A transport may take fewer forms: msquic takes PKCS#8.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoCertificate`] when the chain is empty; [`CredentialError::Unusable`] when the
    /// key is in no known form.
    pub fn from_der(
        chain: impl IntoIterator<Item = Vec<u8>>,
        key: Vec<u8>,
        trust: TrustPolicy,
    ) -> Result<Self, CredentialError> {
        let key = Zeroizing::new(key);
        let known = PrivateKeyDer::try_from(&**key)
            .map_err(|what| CredentialError::Unusable(format!("the private key: {what}")))?;
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), known.clone_key(), trust)
    }

    /// A credential from a PEM file, see [`from_pem`](Self::from_pem). Reading it blocks.
    ///
    /// # Errors
    ///
    /// [`CredentialError::File`] when it cannot be read, otherwise as for [`from_pem`](Self::from_pem).
    pub fn from_pem_file(path: &Path, trust: TrustPolicy) -> Result<Self, CredentialError> {
        Self::from_pem(&Zeroizing::new(read(path)?), trust)
    }

    /// A credential from DER files: the certificates of a chain, the leaf first, and the private key, see
    /// [`from_der`](Self::from_der). Reading them blocks.
    ///
    /// # Errors
    ///
    /// [`CredentialError::File`] when one cannot be read, otherwise as for [`from_der`](Self::from_der).
    pub fn from_der_files(
        chain: &[impl AsRef<Path>],
        key: &Path,
        trust: TrustPolicy,
    ) -> Result<Self, CredentialError> {
        let chain: Vec<_> = chain.iter().map(|it| read(it.as_ref())).collect::<Result<_, _>>()?;
        Self::from_der(chain, read(key)?, trust)
    }

    /// The same identity, for a peer that has to have this identity and no other.
    pub fn expecting(&self, peer: CertHash) -> Self {
        self.with_trust(TrustPolicy::hashes([peer]))
    }

    /// The same identity with another policy.
    pub fn with_trust(&self, trust: TrustPolicy) -> Self {
        Self { own: self.own.clone(), trust }
    }

    /// My identity: the hash of the leaf certificate.
    pub fn identity(&self) -> CertHash {
        self.own.identity
    }

    /// My certificates, the leaf first; never empty.
    pub fn certificate_chain(&self) -> &[CertificateDer<'static>] {
        &self.own.chain
    }

    /// The private key of the leaf. Keep copies of it short-lived, and erase them.
    pub fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.own.key
    }

    /// Whom I trust.
    pub fn trust(&self) -> &TrustPolicy {
        &self.trust
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|error| CredentialError::File {
        path: path.display().to_string(),
        what: error.to_string(),
    })
}

impl fmt::Debug for NetCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetCredential")
            .field("identity", &self.own.identity)
            .field("certificates", &self.own.chain.len())
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Why a credential cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no certificate.
    #[error("the credential holds no certificate")]
    NoCertificate,
    /// The chain has more bytes than a handshake can carry.
    #[error(
        "the certificate chain has {bytes} bytes, more than {}: leave out what peers do not need",
        NetCredential::MAX_CHAIN
    )]
    ChainTooLong {
        /// The bytes of all certificates in DER.
        bytes: usize,
    },
    /// There is no private key.
    #[error("the credential holds no private key")]
    NoPrivateKey,
    /// The file cannot be read.
    #[error("cannot read {path}: {what}")]
    File {
        /// Its name.
        path: String,
        /// What the operating system says.
        what: String,
    },
    /// The text is not PEM.
    #[error("the credential is not valid PEM: {0}")]
    Pem(String),
    /// The key or the certificate cannot be used by the transport.
    #[error("the credential cannot be used: {0}")]
    Unusable(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_key() {
        let key = PrivateKeyDer::try_from(&b"\x30\x03\x02\x01\x00secret"[..]);
        let key = key.map(|key| key.clone_key()).unwrap_or_else(|_| {
            PrivateKeyDer::Pkcs8(rustls_pki_types::PrivatePkcs8KeyDer::from(b"secret".to_vec()))
        });
        let chain = vec![CertificateDer::from(b"certificate".to_vec())];
        let credential = NetCredential::new(chain, key, TrustPolicy::nobody()).unwrap();
        let text = format!("{credential:?} {credential:#?}");
        assert!(text.contains(&credential.identity().to_string()));
        assert!(!text.contains("secret") && !text.contains("115, 101, 99"));
    }

    #[test]
    fn a_chain_that_no_handshake_carries_is_refused() {
        let make = |bytes: usize| {
            let chain = [vec![0; 1000], vec![0; bytes - 1000]];
            NetCredential::from_der(chain, b"\x30\x03\x02\x01\x00".to_vec(), TrustPolicy::Any)
        };
        assert!(!matches!(make(24 * 1024), Err(CredentialError::ChainTooLong { .. })));
        let error = make(24 * 1024 + 1).unwrap_err();
        assert_eq!(error, CredentialError::ChainTooLong { bytes: 24 * 1024 + 1 });
        assert!(
            error.to_string().starts_with("the certificate chain has 24577 bytes, more than 24576")
        );
    }

    #[test]
    fn pem_errors_say_what_is_missing() {
        let error = |pem: &str| NetCredential::from_pem(pem.as_bytes(), TrustPolicy::Any).err();
        assert_eq!(error(""), Some(CredentialError::NoPrivateKey));
        let key = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(error(key), Some(CredentialError::NoCertificate));
        let cut = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n";
        assert!(matches!(error(cut), Some(CredentialError::Pem(_))));
    }
}
