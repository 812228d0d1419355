//! PKCS#12 (RFC 7292): the form in which msquic takes certificates and a private key from memory.
//!
//! The bundle never leaves this process and exists until msquic has read it. It therefore has no
//! encryption and no MAC, which OpenSSL accepts together with a null password. All buffers with the
//! private key are wiped when they are dropped.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag};
use net_traits::{Cause, CredentialError, NetCredential, PrivateKeyDer};
use zeroize::Zeroizing;

/// Encodes `credential`: its key, and its certificates in their order.
///
/// # Errors
///
/// [`CredentialError::Unusable`] if the encoding of the key is unknown.
pub(crate) fn bundle(credential: &NetCredential) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let encoded = private_key_info(credential.private_key())
        .and_then(|key| encode(&key, credential.certificate_chain()));
    encoded.map_err(|error| {
        CredentialError::Unusable(Cause::new(format!("the private key is not DER: {error}")))
    })
}

/// Encodes the key as version 1 of PKCS#8 (RFC 5208), the only form that OpenSSL reads: the public
/// key that version 2 (RFC 5958) has for Ed25519 is left out, and keys in SEC1 or PKCS#1 form are
/// wrapped.
fn private_key_info(key: &PrivateKeyDer<'_>) -> der::Result<Zeroizing<Vec<u8>>> {
    let info = |algorithm, key| PrivateKeyInfo { version: 0, algorithm, key }.to_der();
    let inside = |der| AnyRef::new(Tag::OctetString, der);
    let info = match key {
        PrivateKeyDer::Sec1(key) => {
            let der = key.secret_sec1_der();
            let curve = EcPrivateKey::from_der(der)?.curve;
            let curve = curve.ok_or_else(|| Tag::Sequence.value_error())?;
            let algorithm = Algorithm { id: ELLIPTIC_CURVE, parameters: curve }.to_der()?;
            info(AnyRef::from_der(&algorithm)?, inside(der)?)
        }
        PrivateKeyDer::Pkcs1(key) => {
            let algorithm = Algorithm { id: RSA, parameters: AnyRef::NULL }.to_der()?;
            info(AnyRef::from_der(&algorithm)?, inside(key.secret_pkcs1_der())?)
        }
        key => SliceReader::new(key.secret_der())?.sequence(|reader| {
            u8::decode(reader)?; // the version
            let (algorithm, key) = (AnyRef::decode(reader)?, AnyRef::decode(reader)?);
            reader.drain(reader.remaining_len())?;
            info(algorithm, key)
        }),
    };
    info.map(Zeroizing::new)
}

fn encode(key: &[u8], chain: &[impl AsRef<[u8]>]) -> der::Result<Zeroizing<Vec<u8>>> {
    let certificates = chain
        .iter()
        .map(|certificate| {
            let value = AnyRef::new(Tag::OctetString, certificate.as_ref())?;
            CertBag { id: X509_CERTIFICATE, value }.to_der()
        })
        .collect::<der::Result<Vec<_>>>()?;
    let mut bags = vec![Content { id: KEY_BAG, value: AnyRef::from_der(key)? }];
    for certificate in &certificates {
        bags.push(Content { id: CERT_BAG, value: AnyRef::from_der(certificate)? });
    }
    let safe_contents = Zeroizing::new(bags.to_der()?);
    let authenticated_safe = Zeroizing::new(vec![data(&safe_contents)?].to_der()?);
    let pfx = Pfx { version: VERSION, auth_safe: data(&authenticated_safe)? };
    pfx.to_der().map(Zeroizing::new)
}

/// Wraps `bytes` in the content type `data` (RFC 2315, section 8).
fn data(bytes: &[u8]) -> der::Result<Content<'_>> {
    Ok(Content { id: DATA, value: AnyRef::new(Tag::OctetString, bytes)? })
}

/// `PrivateKeyInfo`, version 1.
#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: AnyRef<'a>,
    key: AnyRef<'a>,
}

/// `AlgorithmIdentifier`.
#[derive(Sequence)]
struct Algorithm<'a> {
    id: ObjectIdentifier,
    parameters: AnyRef<'a>,
}

/// `ECPrivateKey` (RFC 5915).
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    key: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    curve: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<AnyRef<'a>>,
}

/// `PFX`, without the optional MAC.
#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    auth_safe: Content<'a>,
}

/// `ContentInfo`, and `SafeBag` without the optional attributes: both have the same structure.
#[derive(Sequence)]
struct Content<'a> {
    id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
}

/// `CertBag`.
type CertBag<'a> = Content<'a>;

const VERSION: u8 = 3;
/// RFC 5480, section 2.1.1, and RFC 8017, section A.1.
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 2315, section 14: `data`.
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// RFC 7292, appendix D: `keyBag`, `certBag` and `x509Certificate`.
const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
const CERT_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{TrustPolicy, WithCauses};

    fn with_key(key: PrivateKeyDer<'static>) -> CredentialError {
        let good = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let chain = good.certificate_chain().to_vec();
        bundle(&NetCredential::new(chain, key, TrustPolicy::Any).unwrap()).unwrap_err()
    }

    #[test]
    fn keys_in_unknown_forms_are_rejected_with_the_reason() {
        let no_curve = b"\x30\x06\x02\x01\x01\x04\x01\x07".to_vec();
        for key in [
            PrivateKeyDer::Sec1(b"key".to_vec().into()),
            PrivateKeyDer::Sec1(no_curve.into()),
            PrivateKeyDer::Pkcs8(b"key".to_vec().into()),
        ] {
            let error = WithCauses(&with_key(key)).to_string();
            assert!(error.contains("DER"), "{error}");
        }
    }

    #[test]
    fn newer_keys_are_written_as_openssl_reads_them() {
        // Version 2, with attributes and the public key.
        let new = [0x30, 14, 2, 1, 1, 0x30, 0, 4, 1, 7, 0xa0, 0, 0x81, 2, 0, 9];
        let key = PrivateKeyDer::Pkcs8(new.to_vec().into());
        assert_eq!(**private_key_info(&key).unwrap(), [0x30, 8, 2, 1, 0, 0x30, 0, 4, 1, 7]);
    }

    #[test]
    fn the_bundle_holds_key_and_chain_in_order() {
        let bundle = encode(&[0x30, 0], &[[1, 2], [3, 4]]).unwrap();
        let find = |bytes: &[u8]| bundle.windows(bytes.len()).position(|window| window == bytes);
        let key = find(&[0xa0, 2, 0x30, 0]).unwrap();
        assert!(key < find(&[4, 2, 1, 2]).unwrap());
        assert!(find(&[4, 2, 1, 2]).unwrap() < find(&[4, 2, 3, 4]).unwrap());
    }
}
