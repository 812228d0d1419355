//! What a `PeerPool` is told and what it tells.

use crate::config::options;
use net_traits::{CertHash, CloseReason, ConnectError, SendError};
use std::time::Duration;

/// How a [`PeerPool`](crate::PeerPool) dials and what it holds meanwhile.
///
/// ```
/// use msquic_transport::PeerPoolConfig;
/// use std::time::Duration;
///
/// let config = PeerPoolConfig::new().first_delay(Duration::from_millis(200)).max_attempts(5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPoolConfig {
    pub(super) first_delay: Duration,
    pub(super) max_delay: Duration,
    pub(super) max_attempts: u32,
    pub(super) max_queued_messages: usize,
    pub(super) max_queued_bytes: usize,
}

impl Default for PeerPoolConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            max_attempts: 10,
            max_queued_messages: 1000,
            max_queued_bytes: 1024 * 1024,
        }
    }
}

options! {
    PeerPoolConfig:

    /// The longest wait after the first failure. Each wait is a random part, at least half, of its longest, and the
    /// longest doubles from failure to failure. A connection that the peer ends within 10 s is a failure too.
    /// Default: 100 ms.
    first_delay: Duration;
    /// What the longest wait grows to. Default: 30 s.
    max_delay: Duration;
    /// After how many failed attempts in a row the messages that wait are dropped, and reported.
    /// Default: 10.
    max_attempts: u32;
    /// How many messages wait for one peer, at least one. Default: 1000.
    max_queued_messages: usize;
    /// How many bytes of messages wait for one peer. Default: 1 MiB.
    max_queued_bytes: usize;
}

impl PeerPoolConfig {
    /// How long to wait after so many failures: between a half and all of a time that doubles.
    pub(super) fn delay(&self, failed: u32) -> Duration {
        let longest = self
            .first_delay
            .saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.max_delay);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// What happens to the peers of a [`PeerPool`](crate::PeerPool).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent<C> {
    /// The pool has dialled a peer. Take the peer's messages from the connection until it is over, also when another
    /// connection with that peer is the one on which the pool sends.
    Connected {
        /// With whom.
        peer: CertHash,
        /// The connection.
        connection: C,
    },
    /// A connection of the pool is over. Messages that it had taken over and that had not arrived are lost.
    Disconnected {
        /// With whom.
        peer: CertHash,
        /// Why.
        reason: CloseReason,
    },
    /// Messages will not be sent: the peer cannot be reached, one side does not accept the other, or a message is too
    /// long.
    Dropped {
        /// For whom they were.
        peer: CertHash,
        /// How many.
        messages: usize,
        /// Why.
        error: DropError,
    },
}

/// Why queued messages were dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection did not take the message.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// As many messages or bytes wait for the peer as are allowed.
    #[error("too much is queued for the peer")]
    Full,
    /// The message alone is more than may wait.
    #[error("a message of {size} bytes is longer than the {limit} that may wait for a peer")]
    TooLarge {
        /// Bytes in the message.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The peer is this node itself.
    #[error("that is the identity of this node")]
    OwnIdentity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_differ() {
        let config = PeerPoolConfig::new().first_delay(Duration::from_secs(1));
        for (failed, longest) in
            [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)]
        {
            let longest = Duration::from_secs(longest);
            for _ in 0..100 {
                let delay = config.delay(failed);
                assert!(delay >= longest / 2 && delay <= longest, "{delay:?} after {failed}");
            }
        }
    }
}
