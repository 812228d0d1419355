//! Parses and checks X.509 certificates.

use crate::{Cause, CertHash, TrustError};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;

/// A certificate within its validity period. Its signature may be of an unsupported algorithm or not verify.
pub(crate) struct DatedCertificate<'a> {
    der: &'a CertificateDer<'a>,
    certificate: Certificate,
    pub(crate) identity: CertHash,
    /// The public key with its algorithm (SubjectPublicKeyInfo, RFC 5280) in DER.
    pub(crate) public_key_info: Vec<u8>,
}

impl<'a> DatedCertificate<'a> {
    /// Parses `certificate` and checks its validity period, and that its algorithm is supported.
    ///
    /// # Errors
    ///
    /// [`TrustError`] describes the fault.
    pub(crate) fn parse(der: &'a CertificateDer<'_>, now: SystemTime) -> Result<Self, TrustError> {
        let identity = CertHash::of(der);
        let malformed = |cause| TrustError::Malformed { identity, cause };
        let failed = |error: der::Error| malformed(Cause::new(error));
        let certificate = Certificate::from_der(der).map_err(failed)?;
        let content = certificate.tbs_certificate();

        let validity = content.validity();
        let (from, until) =
            (validity.not_before.to_system_time(), validity.not_after.to_system_time());
        if now < from {
            return Err(TrustError::NotYetValid { identity, from });
        }
        if now > until {
            return Err(TrustError::Expired { identity, until });
        }
        if content.signature() != certificate.signature_algorithm() {
            return Err(malformed(Cause::new("it names two signature algorithms")));
        }
        let public_key_info = content.subject_public_key_info().to_der().map_err(failed)?;
        let dated = Self { der, certificate, identity, public_key_info };
        if dated.is_self_signed() && dated.algorithms().is_empty() {
            let algorithm = dated.certificate.signature_algorithm().oid.to_string();
            return Err(TrustError::Unsupported { identity, algorithm });
        }
        Ok(dated)
    }

    /// Verifies the signature of a self-signed certificate. That of an issuer is not: trust is not
    /// derived from issuers.
    ///
    /// # Errors
    ///
    /// [`TrustError::BadSignature`].
    pub(crate) fn verify_signature(&self) -> Result<(), TrustError> {
        let identity = self.identity;
        let failed =
            |error: der::Error| TrustError::Malformed { identity, cause: Cause::new(error) };
        let signed = signed_part(self.der).map_err(failed)?;
        let signature = self.certificate.signature().as_bytes().unwrap_or_default();
        let key = self.certificate.tbs_certificate().subject_public_key_info();
        let key = key.subject_public_key.as_bytes().unwrap_or_default();
        let verifies = |algorithm: &&'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(*algorithm, key).verify(signed, signature).is_ok()
        };
        if self.is_self_signed() && !self.algorithms().iter().any(verifies) {
            return Err(TrustError::BadSignature { identity });
        }
        Ok(())
    }

    fn is_self_signed(&self) -> bool {
        let content = self.certificate.tbs_certificate();
        content.issuer() == content.subject()
    }

    fn algorithms(&self) -> Vec<&'static dyn VerificationAlgorithm> {
        algorithms(self.certificate.signature_algorithm().oid)
    }

    /// Returns the content of the extension `oid`, if present.
    ///
    /// # Errors
    ///
    /// [`TrustError::Malformed`] if the extension occurs several times (RFC 5280, section 4.2).
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, TrustError> {
        let extensions = self.certificate.tbs_certificate().extensions();
        let mut found = extensions.into_iter().flatten().filter(|it| it.extn_id == oid);
        let first = found.next().map(|extension| extension.extn_value.as_bytes());
        if found.next().is_some() {
            let cause = Cause::new(format!("it has the extension {oid} twice"));
            return Err(TrustError::Malformed { identity: self.identity, cause });
        }
        Ok(first)
    }
}

/// Returns the bytes that a certificate's signature covers (tbsCertificate), not re-encoded.
fn signed_part<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a [u8], der::Error> {
    SliceReader::new(certificate)?.sequence(|reader| {
        let signed = reader.tlv_bytes()?;
        reader.drain(reader.remaining_len())?;
        Ok(signed)
    })
}

/// Lists the algorithms that `oid` can mean; for ECDSA the curve depends on the key.
///
/// The names are those of RFC 5758 (ECDSA), RFC 8410 (Ed25519) and RFC 8017 (RSA).
fn algorithms(oid: ObjectIdentifier) -> Vec<&'static dyn VerificationAlgorithm> {
    const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
    const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
    const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
    const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
    const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
    const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
    match oid {
        ECDSA_SHA256 => {
            vec![&signature::ECDSA_P256_SHA256_ASN1, &signature::ECDSA_P384_SHA256_ASN1]
        }
        ECDSA_SHA384 => {
            vec![&signature::ECDSA_P384_SHA384_ASN1, &signature::ECDSA_P256_SHA384_ASN1]
        }
        ED25519 => vec![&signature::ED25519],
        RSA_SHA256 => vec![&signature::RSA_PKCS1_2048_8192_SHA256],
        RSA_SHA384 => vec![&signature::RSA_PKCS1_2048_8192_SHA384],
        RSA_SHA512 => vec![&signature::RSA_PKCS1_2048_8192_SHA512],
        _ => vec![],
    }
}

/// Converts to seconds since the Unix epoch; 0 before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
