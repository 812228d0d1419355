//! `EndorsingKey`: the public key of an endorser.

use crate::{CertHash, ParseCertHashError};
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;

/// Bytes of an Ed25519 public key (RFC 8032, section 5.1.5).
pub(crate) const KEY: usize = 32;

/// The public half of an Ed25519 key that endorses certificates.
///
/// It prints and parses as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndorsingKey([u8; KEY]);

impl EndorsingKey {
    /// Creates a key from its 32 bytes (RFC 8032).
    pub const fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }
}

impl fmt::Display for EndorsingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for EndorsingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndorsingKey({self})")
    }
}

impl FromStr for EndorsingKey {
    type Err = ParseCertHashError;

    /// Parses 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<CertHash>().map(|hash| Self(*hash.as_bytes()))
    }
}
