//! Parses and checks X.509 certificates.

use crate::certificate_fields::Certificate;
use crate::{Cause, CertHash, TrustError, signatures};
use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Encode, Reader, Sequence, SliceReader};
use ring::signature::{self, VerificationAlgorithm};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// A certificate within its validity period. Its signature is not verified yet.
pub(crate) struct DatedCertificate<'a> {
    der: &'a CertificateDer<'a>,
    certificate: Certificate<'a>,
    pub(crate) identity: CertHash,
    /// The last moment of validity; `None` if the certificate has no well-defined expiration date
    /// (RFC 5280, section 4.1.2.5).
    pub(crate) until: Option<SystemTime>,
    /// The public key with its algorithm (SubjectPublicKeyInfo, RFC 5280) in DER.
    pub(crate) public_key_info: Vec<u8>,
}

/// 9999-12-31 23:59:59 UTC, in seconds since the Unix epoch: the certificate does not expire.
const NO_END: u64 = 253_402_300_799;

impl<'a> DatedCertificate<'a> {
    /// Parses a certificate and checks its validity period. The algorithm of a self-signature must
    /// be supported.
    ///
    /// # Errors
    ///
    /// [`TrustError`] describes the fault.
    pub(crate) fn parse(der: &'a CertificateDer<'a>, now: SystemTime) -> Result<Self, TrustError> {
        let identity = CertHash::of(der);
        let malformed = |cause| TrustError::Malformed { identity, cause };
        let failed = |error: der::Error| malformed(Cause::new(error));
        let certificate = Certificate::from_der(der).map_err(failed)?;
        let content = &certificate.content;
        let (from, until) = content.validity.moments().map_err(failed)?;
        if now < from {
            return Err(TrustError::NotYetValid { identity, from });
        }
        if now > until {
            return Err(TrustError::Expired { identity, until });
        }
        if content.signature != certificate.signature_algorithm {
            return Err(malformed(Cause::new("its two signature algorithms differ")));
        }
        let public_key_info = content.public_key.to_der().map_err(failed)?;
        let until = Some(until).filter(|until| unix_seconds(*until) < NO_END);
        let dated = Self { der, certificate, identity, until, public_key_info };
        if dated.is_self_signed() {
            let supported = dated.algorithm().map(drop);
            supported.map_err(|algorithm| TrustError::Unsupported { identity, algorithm })?;
        }
        Ok(dated)
    }

    /// Verifies the signature of a self-signed certificate. The signature of an issuer is not
    /// verified, because trust is not derived from issuers.
    ///
    /// # Errors
    ///
    /// [`TrustError::BadSignature`].
    pub(crate) fn verify_signature(&self) -> Result<(), TrustError> {
        let identity = self.identity;
        let failed =
            |error: der::Error| TrustError::Malformed { identity, cause: Cause::new(error) };
        let signed = signed_part(self.der).map_err(failed)?;
        let signature = self.certificate.signature.as_bytes().unwrap_or_default();
        let key = self.certificate.content.public_key.subject_public_key.as_bytes();
        let verifies =
            |algorithm| signatures::is_valid(algorithm, key.unwrap_or_default(), signed, signature);
        if self.is_self_signed() && !self.algorithm().is_ok_and(verifies) {
            return Err(TrustError::BadSignature { identity });
        }
        Ok(())
    }

    fn is_self_signed(&self) -> bool {
        self.certificate.content.issuer == self.certificate.content.subject
    }

    /// Returns the algorithm of a self-signature.
    ///
    /// # Errors
    ///
    /// What is not supported, with its object identifier.
    fn algorithm(&self) -> Result<&'static dyn VerificationAlgorithm, String> {
        algorithm(self.certificate.signature_algorithm.oid, &self.certificate.content.public_key)
    }

    /// Returns the content of the extension `oid`, if present.
    ///
    /// # Errors
    ///
    /// [`TrustError::Malformed`] if the extension occurs several times (RFC 5280, section 4.2).
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, TrustError> {
        let extensions = &self.certificate.content.extensions;
        let mut found = extensions.iter().flatten().filter(|it| it.extn_id == oid);
        let first = found.next().map(|extension| extension.extn_value.as_bytes());
        if found.next().is_some() {
            let cause = Cause::new(format!("it has the extension {oid} twice"));
            return Err(TrustError::Malformed { identity: self.identity, cause });
        }
        Ok(first)
    }
}

/// Returns the bytes that the signature of a certificate covers (`tbsCertificate`), as they are
/// encoded there.
fn signed_part<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a [u8], der::Error> {
    SliceReader::new(certificate)?.sequence(|reader| {
        let signed = reader.tlv_bytes()?;
        reader.drain(reader.remaining_len())?;
        Ok(signed)
    })
}

/// Returns the algorithm that verifies signatures of the kind `oid` with `key`, which determines
/// the curve of ECDSA.
///
/// The object identifiers are those of RFC 5480 and 5758 (ECDSA), RFC 8410 (Ed25519) and RFC 8017
/// (RSA).
///
/// # Errors
///
/// What is not supported, with its object identifier.
fn algorithm(
    oid: ObjectIdentifier,
    key: &SubjectPublicKeyInfoOwned,
) -> Result<&'static dyn VerificationAlgorithm, String> {
    const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
    const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
    const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
    const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
    const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
    const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
    let is_p384 = is_p384(key)?;
    check_length(key)?;
    Ok(match (oid, is_p384) {
        (ECDSA_SHA256, false) => &signature::ECDSA_P256_SHA256_ASN1,
        (ECDSA_SHA256, true) => &signature::ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, false) => &signature::ECDSA_P256_SHA384_ASN1,
        (ECDSA_SHA384, true) => &signature::ECDSA_P384_SHA384_ASN1,
        (ED25519, _) => &signature::ED25519,
        (RSA_SHA256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (RSA_SHA384, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (RSA_SHA512, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(oid.to_string()),
    })
}

/// Returns whether an elliptic curve is P-384; false for P-256 and for other kinds of keys.
fn is_p384(key: &SubjectPublicKeyInfoOwned) -> Result<bool, String> {
    const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
    const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
    const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
    const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
    const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
    if key.algorithm.oid != ELLIPTIC_CURVE {
        return Ok(false);
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|it| it.decode_as().ok());
    match curve {
        Some(P256) => Ok(false),
        Some(P384) => Ok(true),
        Some(P521) => Err(format!("ECDSA on the curve P-521 ({P521})")),
        Some(SECP256K1) => Err(format!("ECDSA on the curve secp256k1 ({SECP256K1})")),
        Some(curve) => Err(format!("ECDSA on the curve {curve}")),
        None => Err(format!("ECDSA on an unnamed curve ({ELLIPTIC_CURVE})")),
    }
}

/// Checks the length of an RSA key.
fn check_length(key: &SubjectPublicKeyInfoOwned) -> Result<(), String> {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    let der = key.subject_public_key.as_bytes().filter(|_| key.algorithm.oid == RSA);
    let Some(Ok(RsaKey { modulus, .. })) = der.map(RsaKey::from_der) else { return Ok(()) };
    let bytes = modulus.as_bytes();
    let unused = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
    match bytes.len() * 8 - unused {
        2048..=8192 => Ok(()),
        bits => Err(format!("RSA of {bits} bits ({RSA})")),
    }
}

/// `RSAPublicKey` (RFC 8017, section A.1.1).
#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// Converts to seconds since the Unix epoch; 0 before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
