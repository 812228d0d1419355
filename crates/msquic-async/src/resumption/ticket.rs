//! Tickets as msquic gives them to clients (`core/crypto.c`, QuicCryptoEncodeClientTicket):
//!
//! ```text
//! version (varint) │ QUIC version (4) │ length of the limits (varint) │ length of the session (varint) │ limits │ session
//! ```

use zeroize::Zeroizing;

/// The only version of that format.
const VERSION: u64 = 1;

/// Removes the limits (transport parameters) that the server had when it issued the ticket.
///
/// They are for early data. Without early data they only do harm: msquic would offer the application streams before
/// the handshake is complete, and would keep stream limits that the server has lowered to 0 since.
pub(crate) fn without_limits(ticket: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (version, rest) = varint(ticket)?;
    let (quic_version, rest) = rest.split_at_checked(4)?;
    let (limits, rest) = varint(rest)?;
    let length = rest;
    let (session, rest) = varint(rest)?;
    let length = &length[..length.len() - rest.len()];
    let (_, rest) = rest.split_at_checked(limits.try_into().ok()?)?;
    if version != VERSION || session == 0 || rest.len() as u64 != session {
        return None;
    }
    // Not `concat`, which may move the secret while it grows.
    let mut ticket = Zeroizing::new(Vec::with_capacity(1 + 4 + 1 + length.len() + rest.len()));
    for part in [&[VERSION as u8], quic_version, &[0], length, rest] {
        ticket.extend_from_slice(part);
    }
    Some(ticket)
}

/// Decodes a variable-length integer (RFC 9000, section 16); returns it and the bytes that follow.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (bytes, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = bytes.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    Some((value & (u64::MAX >> (66 - 8 * bytes.len())), rest))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ticket with limits and a session of less than 16 KiB or 1 GiB.
    pub(crate) fn encode(limits: &[u8], session: &[u8]) -> Vec<u8> {
        let length = (session.len() as u32 | 0x8000_0000).to_be_bytes();
        let limits_length = (limits.len() as u16 | 0x4000).to_be_bytes();
        [&[1, 0, 0, 0, 1], &limits_length[..], &length, limits, session].concat()
    }

    #[test]
    fn varints_are_read() {
        let values = [(&b"\x25"[..], 37), (b"\x7b\xbd", 15293), (b"\x9d\x7f\x3e\x7d", 494_878_333)];
        for (bytes, value) in values {
            assert_eq!(varint(bytes), Some((value, &b""[..])));
        }
        let largest = [0xff; 8];
        assert_eq!(varint(&largest), Some(((1 << 62) - 1, &b""[..])));
        assert_eq!(varint(b"\x40"), None);
        assert_eq!(varint(b""), None);
    }

    #[test]
    fn the_session_stays_and_the_limits_go() {
        let session = vec![7; 100];
        let ticket = without_limits(&encode(&[4, 1, 5], &session)).unwrap();
        assert_eq!(*ticket, without_limits(&ticket).unwrap()[..], "nothing left to remove");
        assert_eq!(ticket[..5], [1, 0, 0, 0, 1]);
        assert!(ticket.ends_with(&session));
        assert_eq!(ticket.len(), 1 + 4 + 1 + 4 + 100);
    }

    #[test]
    fn what_is_no_ticket_is_not_kept() {
        let ticket = encode(&[4, 1, 5], &[7; 100]);
        for length in 0..ticket.len() {
            assert_eq!(without_limits(&ticket[..length]), None);
        }
        assert_eq!(without_limits(&[&ticket[..], &[0]].concat()), None);
        assert_eq!(without_limits(&[&[2], &ticket[1..]].concat()), None);
        assert_eq!(without_limits(&encode(&[], &[])), None);
    }
}
