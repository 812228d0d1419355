//! Parses and checks X.509 certificates.

use crate::{Cause, CertHash, TrustError};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;

/// A certificate that is valid now.
pub(crate) struct ValidCertificate {
    certificate: Certificate,
    pub(crate) identity: CertHash,
    /// The public key with its algorithm (SubjectPublicKeyInfo, RFC 5280) in DER.
    pub(crate) public_key_info: Vec<u8>,
}

impl ValidCertificate {
    /// Parses `certificate` and checks its validity period and, if it is self-signed, its
    /// signature. The signature of an issuer is not checked: trust is not derived from issuers.
    ///
    /// # Errors
    ///
    /// [`TrustError`] describes the fault.
    pub(crate) fn check(
        certificate: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<Self, TrustError> {
        let identity = CertHash::of(certificate);
        let malformed = |cause| TrustError::Malformed { identity, cause };
        let failed = |error: der::Error| malformed(Cause::new(error));
        let parsed = Certificate::from_der(certificate).map_err(failed)?;
        let content = parsed.tbs_certificate();

        let validity = content.validity();
        let (from, until) =
            (validity.not_before.to_system_time(), validity.not_after.to_system_time());
        if now < from {
            return Err(TrustError::NotYetValid { identity, from });
        }
        if now > until {
            return Err(TrustError::Expired { identity, until });
        }

        let key = content.subject_public_key_info();
        if content.issuer() == content.subject() {
            if content.signature() != parsed.signature_algorithm() {
                return Err(malformed(Cause::new("it names two signature algorithms")));
            }
            let oid = parsed.signature_algorithm().oid;
            let algorithms = algorithms(oid);
            if algorithms.is_empty() {
                return Err(TrustError::Unsupported { identity, algorithm: oid.to_string() });
            }
            let signed = signed_part(certificate).map_err(failed)?;
            let signature = parsed.signature().as_bytes().unwrap_or_default();
            let key = key.subject_public_key.as_bytes().unwrap_or_default();
            let verifies = |algorithm: &&'static dyn VerificationAlgorithm| {
                UnparsedPublicKey::new(*algorithm, key).verify(signed, signature).is_ok()
            };
            if !algorithms.iter().any(verifies) {
                return Err(TrustError::BadSignature { identity });
            }
        }
        let public_key_info = key.to_der().map_err(failed)?;
        Ok(Self { certificate: parsed, identity, public_key_info })
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
