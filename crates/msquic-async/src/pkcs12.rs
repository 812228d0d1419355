//! PKCS#12 (RFC 7292): the form in which msquic takes certificates and a private key from memory.
//!
//! The bundle never leaves this process and lives until msquic has read it. It therefore has no
//! encryption and no MAC, which OpenSSL accepts together with a null password. Whatever holds the
//! private key is wiped when it is dropped.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Sequence, Tag};
use net_traits::{Cause, CredentialError, NetCredential, PrivateKeyDer};
use zeroize::Zeroizing;

/// The bundle for `credential`: its key, and its certificates in their order.
///
/// # Errors
///
/// [`CredentialError::Unusable`] if the key is not in PKCS#8 form or is no DER.
pub(crate) fn bundle(credential: &NetCredential) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let PrivateKeyDer::Pkcs8(key) = credential.private_key() else {
        let message = "the private key is not in PKCS#8 form (openssl pkcs8 -topk8 converts it)";
        return Err(CredentialError::Unusable(Cause::new(message)));
    };
    encode(key.secret_pkcs8_der(), credential.certificate_chain()).map_err(|error| {
        CredentialError::Unusable(Cause::new(format!("the private key is not DER: {error}")))
    })
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

/// `PFX`, without the optional MAC.
#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    auth_safe: Content<'a>,
}

/// `ContentInfo`, and `SafeBag` without the optional attributes: they look the same.
#[derive(Sequence)]
struct Content<'a> {
    id: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
}

/// `CertBag`.
type CertBag<'a> = Content<'a>;

const VERSION: u8 = 3;
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
    fn keys_in_other_forms_are_rejected_with_the_reason() {
        let reason = |key| WithCauses(&with_key(key)).to_string();
        let error = reason(PrivateKeyDer::Sec1(b"key".to_vec().into()));
        assert!(error.contains("PKCS#8"), "{error}");
        let error = reason(PrivateKeyDer::Pkcs8(b"key".to_vec().into()));
        assert!(error.contains("DER"), "{error}");
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
