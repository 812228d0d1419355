//! `SelfSigned`: a new key with a self-signed certificate.

use crate::{
    Cause, CredentialError, ENDORSEMENT_OID, Endorsement, LEGACY_ENDORSEMENT_OID, MAX_ENDORSEMENTS,
    NetCredential, TrustPolicy, encode_endorsements,
};
use rcgen::PublicKeyData;
use std::fmt;

/// A P-256 key without a certificate yet, so that it can be endorsed first.
///
/// ```
/// use net_traits::*;
/// use std::time::Duration;
///
/// // The node generates its key and sends the public half to the endorser.
/// let key = IdentityKey::generate()?;
/// let endorser = Endorser::generate()?;
/// let month = EndorsementValidity::for_duration(Duration::from_secs(30 * 24 * 3600));
/// let endorsement = endorser.endorse(&key.public_key_info(), month);
/// // Peers that trust the endorser accept the certificate with the endorsement.
/// let node = key.self_sign(&["node.example"], &[endorsement])?.credential(TrustPolicy::Any)?;
/// let policy = TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]));
/// let peer = policy.verify(node.certificate_chain().first()).unwrap();
/// assert_eq!(peer.endorsers, [endorser.key()]);
/// # Ok::<(), CredentialError>(())
/// ```
pub struct IdentityKey(rcgen::KeyPair);

impl IdentityKey {
    /// Generates a key.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if the system's random source fails.
    pub fn generate() -> Result<Self, CredentialError> {
        rcgen::KeyPair::generate().map(Self).map_err(unusable)
    }

    /// Returns the public half with its algorithm (SubjectPublicKeyInfo, RFC 5280) in DER.
    ///
    /// An [`Endorser`](crate::Endorser) signs these bytes.
    pub fn public_key_info(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// Creates a self-signed certificate with the subject alternative names `names`.
    ///
    /// The certificate carries `endorsements`, which may be empty.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if a name is not a DNS name, or there are too many
    /// endorsements.
    pub fn self_sign(
        self,
        names: &[&str],
        endorsements: &[Endorsement],
    ) -> Result<SelfSigned, CredentialError> {
        let mut extensions = Vec::new();
        if !endorsements.is_empty() {
            extensions.push((ENDORSEMENT_OID, encode_endorsements(endorsements)?));
        }
        self.self_sign_with(names, extensions)
    }

    /// Like [`self_sign`](Self::self_sign), with additional endorsements in the older format.
    ///
    /// Each has 96 bytes, see [`Endorser::endorse_legacy`](crate::Endorser::endorse_legacy). Peers
    /// read the format that they know.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if a name is not a DNS name, or there are too many
    /// endorsements of one format.
    pub fn self_sign_legacy(
        self,
        names: &[&str],
        endorsements: &[Endorsement],
        legacy: &[Vec<u8>],
    ) -> Result<SelfSigned, CredentialError> {
        if legacy.is_empty() || legacy.len() > MAX_ENDORSEMENTS {
            let count = legacy.len();
            let what =
                format!("{count} endorsements in the older format: give 1 to {MAX_ENDORSEMENTS}");
            return Err(CredentialError::Unusable(Cause::new(what)));
        }
        let mut extensions = vec![(LEGACY_ENDORSEMENT_OID, legacy.concat())];
        if !endorsements.is_empty() {
            extensions.push((ENDORSEMENT_OID, encode_endorsements(endorsements)?));
        }
        self.self_sign_with(names, extensions)
    }

    fn self_sign_with(
        self,
        names: &[&str],
        extensions: Vec<(&str, Vec<u8>)>,
    ) -> Result<SelfSigned, CredentialError> {
        let Self(key) = self;
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut parameters = rcgen::CertificateParams::new(names).map_err(unusable)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "self-signed");
        parameters.custom_extensions = extensions
            .into_iter()
            .map(|(oid, content)| {
                let arcs: Vec<u64> = oid.split('.').filter_map(|arc| arc.parse().ok()).collect();
                rcgen::CustomExtension::from_oid_content(&arcs, content)
            })
            .collect();
        let certificate = parameters.self_signed(&key).map_err(unusable)?;
        Ok(SelfSigned { certificate, key })
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityKey").finish_non_exhaustive()
    }
}

fn unusable(error: rcgen::Error) -> CredentialError {
    CredentialError::Unusable(Cause::new(error))
}

/// A P-256 key and its self-signed certificate.
///
/// Peers identify the holder by the certificate's hash; the subject name has no meaning.
pub struct SelfSigned {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl SelfSigned {
    /// Creates a key and a certificate with the subject alternative names `names`.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if a name is not a DNS name, or key generation fails.
    pub fn generate(names: &[&str]) -> Result<Self, CredentialError> {
        IdentityKey::generate()?.self_sign(names, &[])
    }

    /// Encodes the certificate and the **private key** as PEM, for [`NetCredential::from_pem`].
    /// Store it where only its owner can read it.
    pub fn to_pem(&self) -> String {
        self.certificate.pem() + &self.key.serialize_pem()
    }

    /// Creates the credential with this key and the policy `trust`.
    ///
    /// # Errors
    ///
    /// The errors of [`NetCredential::new`], which do not occur here.
    pub fn credential(&self, trust: TrustPolicy) -> Result<NetCredential, CredentialError> {
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(self.key.serialize_der());
        NetCredential::new(vec![self.certificate.der().clone()], key.into(), trust)
    }
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").finish_non_exhaustive()
    }
}

impl NetCredential {
    /// Creates a credential with a new self-signed certificate, see [`SelfSigned`].
    ///
    /// ```
    /// use net_traits::{NetCredential, TrustPolicy};
    ///
    /// let peer = NetCredential::self_signed(TrustPolicy::reject_all())?;
    /// let me = NetCredential::self_signed(TrustPolicy::hashes([peer.identity()]))?;
    /// assert!(me.trust().verify(peer.certificate_chain().first()).is_ok());
    /// # Ok::<(), net_traits::CredentialError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] if the system's random source fails.
    pub fn self_signed(trust: TrustPolicy) -> Result<Self, CredentialError> {
        SelfSigned::generate(&["localhost"])?.credential(trust)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_through_pem() {
        let made = SelfSigned::generate(&["node.example"]).unwrap();
        let before = made.credential(TrustPolicy::Any).unwrap();
        let after = NetCredential::from_pem(made.to_pem().as_bytes(), TrustPolicy::Any).unwrap();
        assert_eq!(before.identity(), after.identity());
        assert_eq!(before.private_key(), after.private_key());
    }

    #[test]
    fn every_certificate_has_another_identity() {
        let one = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let two = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        assert_ne!(one.identity(), two.identity());
    }
}
