//! `SessionState`: what a server adds to a ticket besides the state of TLS. The ticket's key
//! protects it.

use std::time::{Duration, SystemTime};

/// How long a proof of the peers' keys is valid: the lifetime that OpenSSL gives to sessions.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// The version of the format.
const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// The epoch of the `Resumption` in which the ticket was issued.
    pub(super) epoch: u64,
    /// When the peers proved the keys of their certificates, in seconds since 1970.
    pub(super) proven: u64,
    /// The application protocol.
    pub(super) alpn: Vec<u8>,
}

impl SessionState {
    /// ```text
    /// version (1) │ epoch (8) │ proven (8) │ alpn
    /// ```
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { epoch, proven, alpn } = self;
        [&[VERSION][..], &epoch.to_be_bytes(), &proven.to_be_bytes(), alpn].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (proven, alpn) = rest.split_first_chunk()?;
        let (epoch, proven) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(*proven));
        (version == VERSION).then(|| Self { epoch, proven, alpn: alpn.to_vec() })
    }

    /// Returns whether the proof is still valid. A proof in the future is not: the clock was
    /// changed.
    pub(super) fn is_young(&self) -> bool {
        let age = now().and_then(|now| now.checked_sub(self.proven));
        age.is_some_and(|age| age < LIFETIME.as_secs())
    }
}

/// The time in seconds since 1970.
pub(super) fn now() -> Option<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().map(|now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_decoded_and_other_bytes_are_rejected() {
        let state = SessionState { epoch: 3, proven: u64::MAX, alpn: b"chat/1".to_vec() };
        let bytes = state.encode();
        assert_eq!(SessionState::decode(&bytes), Some(state));
        assert_eq!(SessionState::decode(&bytes[..16]), None);
        assert_eq!(SessionState::decode(b""), None);
        assert_eq!(SessionState::decode(&[&[2][..], &bytes[1..]].concat()), None);
    }

    #[test]
    fn a_proof_is_valid_for_two_hours() {
        let now = now().unwrap();
        let is_young = |proven| SessionState { epoch: 0, proven, alpn: Vec::new() }.is_young();
        assert!(is_young(now) && is_young(now - 7190));
        assert!(!is_young(now - 7200) && !is_young(0));
        assert!(!is_young(now + 3600) && !is_young(u64::MAX));
    }
}
