//! The close codes of these crates, and their names.
//!
//! Applications choose their own codes below 2^62. These begin with the letters `net`, so that they
//! do not collide with small numbers. Code 0 is sent when the last handle of a connection is
//! dropped.
//!
//! ```
//! use net_traits::{CloseReason, close_code};
//!
//! assert_eq!(close_code::name(close_code::SHUTDOWN), Some("shutdown"));
//! let reason = CloseReason::Peer { code: close_code::SHUTDOWN, reason: "maintenance".to_owned() };
//! assert_eq!(
//!     reason.to_string(),
//!     "closed by the peer with code shutdown (0x6e657406): \"maintenance\""
//! );
//! ```

use std::fmt;

/// The largest code that QUIC can send (RFC 9000, section 16). Larger codes are sent as this one.
pub const MAX: u64 = (1 << 62) - 1;

/// The longest reason that is sent, in bytes of UTF-8.
pub const MAX_REASON: usize = 511;

/// Returns the reason as every transport sends it: truncated to at most [`MAX_REASON`] bytes at a
/// character boundary, and with spaces instead of zero bytes, which msquic cannot send.
///
/// ```
/// use net_traits::close_code::sent_reason;
///
/// assert_eq!(sent_reason("moving\0out"), "moving out");
/// assert_eq!(sent_reason(&"é".repeat(400)).len(), 510);
/// ```
pub fn sent_reason(reason: &str) -> String {
    let end = (0..=MAX_REASON.min(reason.len())).rfind(|end| reason.is_char_boundary(*end));
    reason[..end.unwrap_or(0)].replace('\0', " ")
}

/// The listener's transport has as many connections as it allows.
pub const TOO_MANY_CONNECTIONS: u64 = 0x6e65_7401;
/// The dialler's address has as many connections as the listener's transport allows per address.
pub const TOO_MANY_PER_IP: u64 = 0x6e65_7402;
/// The dialler's identity has as many connections as the listener's side allows per identity.
pub const TOO_MANY_PER_IDENTITY: u64 = 0x6e65_7403;
/// The listener's transport has as many handshakes in progress as it allows.
pub const TOO_MANY_HANDSHAKES: u64 = 0x6e65_7404;
/// The peer is no longer trusted.
pub const REVOKED: u64 = 0x6e65_7405;
/// The transport shuts down.
pub const SHUTDOWN: u64 = 0x6e65_7406;
/// Another connection with the same peer is used.
pub const DUPLICATE: u64 = 0x6e65_7407;
/// The handshake did not finish in time.
pub const HANDSHAKE_TIMEOUT: u64 = 0x6e65_7408;
/// The peer announced too many messages that exceed the limit.
pub const TOO_MANY_VIOLATIONS: u64 = 0x6e65_7409;
/// The certificate of the peer, or its endorsement, expired during the connection.
pub const TRUST_ENDED: u64 = 0x6e65_740a;
/// The memory for all peers was used up, and this connection occupied the most.
pub const TOO_MUCH_MEMORY: u64 = 0x6e65_740b;
/// Too little of an unfinished message of the peer arrived in time.
pub const MESSAGE_TIMEOUT: u64 = 0x6e65_740c;
/// The handler of received messages panicked on the side that closed.
pub const HANDLER_PANICKED: u64 = 0x6e65_740d;

/// Returns the name of a code of this module, `None` for any other.
pub const fn name(code: u64) -> Option<&'static str> {
    Some(match code {
        TOO_MANY_CONNECTIONS => "too many connections",
        TOO_MANY_PER_IP => "too many connections per address",
        TOO_MANY_PER_IDENTITY => "too many connections per identity",
        TOO_MANY_HANDSHAKES => "too many handshakes",
        REVOKED => "revoked",
        SHUTDOWN => "shutdown",
        DUPLICATE => "duplicate",
        HANDSHAKE_TIMEOUT => "handshake timeout",
        TOO_MANY_VIOLATIONS => "too many violations",
        TRUST_ENDED => "trust ended",
        TOO_MUCH_MEMORY => "too much memory",
        MESSAGE_TIMEOUT => "message timeout",
        HANDLER_PANICKED => "handler panicked",
        _ => return None,
    })
}

/// Returns whether the peer that closed with `code` may accept another attempt without a change of
/// configuration.
pub(crate) const fn is_retryable(code: u64) -> bool {
    code != REVOKED
}

/// Prints a code, with its name if it has one, and the reason.
pub(crate) struct Described<'a>(pub(crate) u64, pub(crate) &'a str);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code, reason) = *self;
        match name(code) {
            Some(name) => write!(f, "code {name} ({code:#x})")?,
            None => write!(f, "code {code}")?,
        }
        if reason.is_empty() { Ok(()) } else { write!(f, ": {reason:?}") }
    }
}
