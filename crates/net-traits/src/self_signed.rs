//! `SelfSigned`: a fresh key with a certificate that vouches for itself.

use crate::{CredentialError, NetCredential, TrustPolicy};
use std::fmt;

/// A new P-256 key and a certificate signed by that same key, as PEM.
///
/// Peers know the holder by the certificate's hash, so its subject name carries no meaning.
pub struct SelfSigned {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl SelfSigned {
    /// Makes a key and a certificate whose subject alternative names are `names`.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] when a name is no DNS name, or no key could be made.
    pub fn generate(names: &[&str]) -> Result<Self, CredentialError> {
        let unusable = |error: rcgen::Error| CredentialError::Unusable(error.to_string());
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let key = rcgen::KeyPair::generate().map_err(unusable)?;
        let mut parameters = rcgen::CertificateParams::new(names).map_err(unusable)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "self-signed");
        let certificate = parameters.self_signed(&key).map_err(unusable)?;
        Ok(Self { certificate, key })
    }

    /// The certificate and then the **private key** as PEM text, for
    /// [`NetCredential::from_pem`]. Store it where only its owner can read it.
    pub fn to_pem(&self) -> String {
        self.certificate.pem() + &self.key.serialize_pem()
    }

    /// The credential that holds this key and trusts as `trust` says.
    ///
    /// # Errors
    ///
    /// None that can be provoked; those of [`NetCredential::new`].
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
    /// A credential with a fresh self-signed certificate, see [`SelfSigned`].
    ///
    /// ```
    /// use net_traits::{NetCredential, TrustPolicy};
    ///
    /// let peer = NetCredential::self_signed(TrustPolicy::nobody())?;
    /// let me = NetCredential::self_signed(TrustPolicy::hashes([peer.identity()]))?;
    /// assert!(me.trust().verify(peer.certificate_chain().first()).is_ok());
    /// # Ok::<(), net_traits::CredentialError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CredentialError::Unusable`] when the system's random source fails.
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
    fn every_certificate_is_another_identity() {
        let one = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let two = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        assert_ne!(one.identity(), two.identity());
    }
}
