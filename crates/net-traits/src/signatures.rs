//! `is_valid`: verifies signatures, and remembers those that are valid.
//!
//! A peer that connects again presents the same certificate, and verifying its signatures is a large part of the
//! work of a handshake. Whether a signature is valid depends on nothing but the arguments, so what is
//! remembered is never outdated.

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use ring::signature::{UnparsedPublicKey, VerificationAlgorithm};
use std::sync::{Mutex, PoisonError};

type Digest = [u8; SHA256_OUTPUT_LEN];

/// How many signatures are remembered by the process, in 40 KiB.
const SLOTS: usize = 1024;

/// The digests of valid signatures, each in the slot that its first bytes name. A later one replaces an earlier
/// one.
static VALID: [Mutex<Digest>; SLOTS] = [const { Mutex::new([0; SHA256_OUTPUT_LEN]) }; SLOTS];

/// Returns whether `signature` is a signature of `message` by `key`.
pub(crate) fn is_valid(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    check(algorithm, key, message, signature).is_some()
}

/// How it is known that a signature is valid.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Before,
    Verified,
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Option<Known> {
    let digest = digest(&[format!("{algorithm:?}").as_bytes(), key, message, signature]);
    let slot = &VALID[usize::from(u16::from_be_bytes([digest[0], digest[1]])) % SLOTS];
    let remembered = || slot.lock().unwrap_or_else(PoisonError::into_inner);
    if *remembered() == digest {
        return Some(Known::Before);
    }
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()?;
    *remembered() = digest;
    Some(Known::Verified)
}

/// Returns the digest of the parts, each after its length: other parts have another digest.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; SHA256_OUTPUT_LEN];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{self, ECDSA_P256_SHA256_ASN1, ED25519, Ed25519KeyPair, KeyPair};
    use std::collections::HashSet;

    #[test]
    fn a_valid_signature_is_verified_once() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let key = pair.public_key().as_ref();
        let signature = pair.sign(b"message");
        let signature = signature.as_ref();
        assert_eq!(check(&ED25519, key, b"message", signature), Some(Known::Verified));
        assert_eq!(check(&ED25519, key, b"message", signature), Some(Known::Before));
        let (mut other_key, mut other_signature) = (key.to_vec(), signature.to_vec());
        other_key[0] ^= 1;
        other_signature[0] ^= 1;
        for _ in 0..2 {
            assert_eq!(check(&ED25519, key, b"massage", signature), None);
            assert_eq!(check(&ED25519, key, b"message", &other_signature), None);
            assert_eq!(check(&ED25519, &other_key, b"message", signature), None);
            assert_eq!(check(&ECDSA_P256_SHA256_ASN1, key, b"message", signature), None);
        }
    }

    #[test]
    fn each_algorithm_has_a_name() {
        let algorithms: [&dyn VerificationAlgorithm; 8] = [
            &ECDSA_P256_SHA256_ASN1,
            &signature::ECDSA_P384_SHA256_ASN1,
            &signature::ECDSA_P256_SHA384_ASN1,
            &signature::ECDSA_P384_SHA384_ASN1,
            &ED25519,
            &signature::RSA_PKCS1_2048_8192_SHA256,
            &signature::RSA_PKCS1_2048_8192_SHA384,
            &signature::RSA_PKCS1_2048_8192_SHA512,
        ];
        let names: HashSet<_> = algorithms.iter().map(|it| format!("{it:?}")).collect();
        assert_eq!(names.len(), algorithms.len(), "{names:?}");
    }

    #[test]
    fn bytes_belong_to_one_part() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab", b""]), digest(&[b"", b"ab"]));
    }
}
