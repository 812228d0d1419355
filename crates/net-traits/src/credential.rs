//! `NetCredential`: the local identity and its trust policy.

use crate::credential_error::{CredentialError, MAX_CHAIN};
use crate::{Cause, CertHash, TrustPolicy};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// A certificate chain, its private key, and a [`TrustPolicy`].
///
/// Cloning is cheap: all clones share the key. `Debug` never shows the key. The key is erased from
/// memory when the last clone is dropped.
#[derive(Clone)]
pub struct NetCredential {
    inner: Arc<Inner>,
    trust: TrustPolicy,
}

struct Inner {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    identity: CertHash,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl NetCredential {
    /// The longest chain, in bytes of DER: 24 KiB.
    ///
    /// Peers limit the size of a handshake: msquic accepts 32 KiB, which have to include the
    /// signature and the TLS extensions as well.
    pub const MAX_CHAIN: usize = MAX_CHAIN;

    /// Creates a credential from a chain, leaf first, and the leaf's private key.
    ///
    /// The transport that first uses the credential checks whether the key belongs to the leaf.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoCertificate`] if the chain is empty; [`CredentialError::ChainTooLong`]
    /// if it exceeds [`MAX_CHAIN`](Self::MAX_CHAIN).
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
        Ok(Self { inner: Arc::new(Inner { chain, key, identity }), trust })
    }

    /// Parses a credential from PEM text with certificates, leaf first, and one private key.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] if the text is not PEM, or the certificate or the key is missing or
    /// encrypted.
    pub fn from_pem(pem: &[u8], trust: TrustPolicy) -> Result<Self, CredentialError> {
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let parsed = chain.and_then(|chain| Ok((chain, PrivateKeyDer::from_pem_slice(pem)?)));
        let is_encrypted = || ENCRYPTED.iter().any(|it| pem.windows(it.len()).any(|at| at == *it));
        let (chain, key) = parsed.map_err(|error| match error {
            _ if is_encrypted() => CredentialError::EncryptedKey,
            pem::Error::NoItemsFound => CredentialError::NoPrivateKey,
            error => CredentialError::Pem(pem_cause(error)),
        })?;
        Self::new(chain, key, trust)
    }

    /// Parses a credential from DER: a chain, leaf first, and the leaf's private key.
    ///
    /// The key is in PKCS#8, SEC1 or PKCS#1 form. P-256, P-384, Ed25519, and RSA of 2048 to 8192
    /// bits are supported.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NoCertificate`] if the chain is empty; [`CredentialError::Unusable`] if
    /// the form of the key is unknown.
    pub fn from_der(
        chain: impl IntoIterator<Item = Vec<u8>>,
        key: Vec<u8>,
        trust: TrustPolicy,
    ) -> Result<Self, CredentialError> {
        let key = Zeroizing::new(key);
        let known = PrivateKeyDer::try_from(&**key).map_err(|what| {
            CredentialError::Unusable(Cause::new(format!("the private key is invalid: {what}")))
        })?;
        Self::new(chain.into_iter().map(CertificateDer::from).collect(), known.clone_key(), trust)
    }

    /// Reads a credential from a PEM file, see [`from_pem`](Self::from_pem). Blocks the thread.
    ///
    /// # Errors
    ///
    /// [`CredentialError::File`] if the file cannot be read; otherwise see
    /// [`from_pem`](Self::from_pem).
    pub fn from_pem_file(path: &Path, trust: TrustPolicy) -> Result<Self, CredentialError> {
        Self::from_pem(&Zeroizing::new(read(path)?), trust)
    }

    /// Reads a credential from DER files, see [`from_der`](Self::from_der). Blocks the thread.
    ///
    /// `chain` names the certificates, leaf first.
    ///
    /// # Errors
    ///
    /// [`CredentialError::File`] if a file cannot be read; otherwise see
    /// [`from_der`](Self::from_der).
    pub fn from_der_files(
        chain: &[impl AsRef<Path>],
        key: &Path,
        trust: TrustPolicy,
    ) -> Result<Self, CredentialError> {
        let chain: Vec<_> = chain.iter().map(|it| read(it.as_ref())).collect::<Result<_, _>>()?;
        Self::from_der(chain, read(key)?, trust)
    }

    /// Returns a credential of the same identity that trusts `peer` only.
    pub fn expecting(&self, peer: CertHash) -> Self {
        self.with_trust(TrustPolicy::hashes([peer]))
    }

    /// Returns a credential of the same identity with the policy `trust`.
    pub fn with_trust(&self, trust: TrustPolicy) -> Self {
        Self { inner: self.inner.clone(), trust }
    }

    /// Returns the local identity: the hash of the leaf certificate.
    pub fn identity(&self) -> CertHash {
        self.inner.identity
    }

    /// Returns the certificate chain, leaf first; never empty.
    pub fn certificate_chain(&self) -> &[CertificateDer<'static>] {
        &self.inner.chain
    }

    /// Returns the private key of the leaf. Keep copies short-lived, and erase them.
    pub fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.inner.key
    }

    /// Returns the trust policy.
    pub fn trust(&self) -> &TrustPolicy {
        &self.trust
    }
}

/// What marks an encrypted key in PEM: in PKCS#8 (RFC 7468, section 11), and in older forms (RFC
/// 1421).
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|error| CredentialError::File {
        path: path.display().to_string(),
        cause: Cause::new(error),
    })
}

impl fmt::Debug for NetCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetCredential")
            .field("identity", &self.inner.identity)
            .field("certificates", &self.inner.chain.len())
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

/// Describes an error of the PEM parser. Its own texts show bytes of the input as numbers, which may be those of
/// the key.
fn pem_cause(error: pem::Error) -> Cause {
    Cause::new(match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            let name = String::from_utf8_lossy(&end_marker).into_owned();
            format!("it has no line -----END {name}-----, copy all of it")
        }
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins with -----BEGIN has more than the name of its block and -----, \
             copy it with its line breaks"
                .to_owned()
        }
        pem::Error::Base64Decode(_) => {
            "the base64 text of a block is damaged, copy it again".to_owned()
        }
        other => other.to_string(),
    })
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
        let credential = NetCredential::new(chain, key, TrustPolicy::reject_all()).unwrap();
        let text = format!("{credential:?} {credential:#?}");
        assert!(text.contains(&credential.identity().to_string()));
        assert!(!text.contains("secret") && !text.contains("115, 101, 99"));
    }

    #[test]
    fn a_chain_too_long_for_a_handshake_is_rejected() {
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
        let error = |text: &str| NetCredential::from_pem(text.as_bytes(), TrustPolicy::Any).err();
        assert_eq!(error(""), Some(CredentialError::NoPrivateKey));
        let key = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(error(key), Some(CredentialError::NoCertificate));
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert_eq!(error(&encrypted), Some(CredentialError::EncryptedKey));
        let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
                     MAMCAQA=\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(error(older), Some(CredentialError::EncryptedKey));
        let cut = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n";
        let one_line = "-----BEGIN PRIVATE KEY----- MAMCAQA= -----END PRIVATE KEY";
        let changed = key.replace("MAMC", "MA(C");
        for (pem, expected) in [
            (cut, "no line -----END CERTIFICATE-----"),
            (one_line, "a line that begins with -----BEGIN"),
            (&changed, "the base64 text"),
        ] {
            let Some(CredentialError::Pem(cause)) = error(pem) else { panic!("{pem}") };
            let text = cause.to_string();
            assert!(text.contains(expected) && !text.contains("MA"), "{text}");
        }
    }
}
