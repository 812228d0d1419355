//! `CertHash`: an identity, the SHA-256 of a leaf certificate.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::digest;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::str::FromStr;

/// The identity of a peer: the SHA-256 of its leaf certificate in DER.
///
/// It prints and parses as 64 lower-case hexadecimal digits. An identity is public and may be
/// logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertHash([u8; 32]);

impl CertHash {
    /// Computes the identity of the holder of `certificate`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate);
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// Creates an identity from the 32 bytes of its hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for CertHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertHash({self})")
    }
}

impl FromStr for CertHash {
    type Err = ParseCertHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return Err(ParseCertHashError::Length(text.chars().count()));
        }
        HEXLOWER_PERMISSIVE
            .decode_mut(text.as_bytes(), &mut bytes)
            .map_err(|_| ParseCertHashError::Digit)?;
        Ok(Self(bytes))
    }
}

/// Why a text is not a [`CertHash`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCertHashError {
    /// The text does not have 64 characters.
    #[error("an identity has 64 hexadecimal digits, not {0} characters")]
    Length(usize),
    /// A character is not a hexadecimal digit.
    #[error("an identity consists of hexadecimal digits only")]
    Digit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sha256_of_the_der() {
        // FIPS 180-2, B.1: the digest of "abc".
        let hash = CertHash::of(&CertificateDer::from(&b"abc"[..]));
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
    }

    #[test]
    fn rejects_other_texts() {
        assert_eq!("".parse::<CertHash>(), Err(ParseCertHashError::Length(0)));
        assert_eq!("é".repeat(32).parse::<CertHash>(), Err(ParseCertHashError::Digit));
        assert_eq!("g".repeat(64).parse::<CertHash>(), Err(ParseCertHashError::Digit));
        assert_eq!("0".repeat(65).parse::<CertHash>(), Err(ParseCertHashError::Length(65)));
    }
}
