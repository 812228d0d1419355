//! Configuration, events and errors of a `PeerPool`.

use crate::resolver::ResolveError;
use net_traits::{CertHash, CloseReason, ConnectError, SendError};
use std::net::SocketAddr;
use std::time::Duration;

/// Dialling and queue limits of a [`PeerPool`](crate::PeerPool).
///
/// ```
/// use net_peers::PeerPoolConfig;
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
    pub(super) max_followed: usize,
    pub(super) max_dials: usize,
    pub(super) removal_delay: Duration,
}

impl Default for PeerPoolConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            max_attempts: 10,
            max_queued_messages: 1000,
            max_queued_bytes: 1024 * 1024,
            max_followed: 1024,
            max_dials: 32,
            removal_delay: Duration::from_secs(30),
        }
    }
}

impl PeerPoolConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The maximum backoff after the first failure. The maximum doubles with each failure, and each
    /// backoff is a random time between half of the maximum and the maximum. A connection that the
    /// peer ends within 10 s counts as a failure. Default: 100 ms.
    #[must_use]
    pub fn first_delay(mut self, value: Duration) -> Self {
        self.first_delay = value;
        self
    }

    /// The upper limit of the backoff. Default: 30 s.
    #[must_use]
    pub fn max_delay(mut self, value: Duration) -> Self {
        self.max_delay = value;
        self
    }

    /// Number of consecutive failed attempts after which queued messages are dropped and reported.
    /// Default: 10.
    #[must_use]
    pub fn max_attempts(mut self, value: u32) -> Self {
        self.max_attempts = value;
        self
    }

    /// How many messages may be queued per peer, at least one. Default: 1000.
    #[must_use]
    pub fn max_queued_messages(mut self, value: usize) -> Self {
        self.max_queued_messages = value;
        self
    }

    /// How many bytes of messages may be queued per peer. Default: 1 MiB.
    #[must_use]
    pub fn max_queued_bytes(mut self, value: usize) -> Self {
        self.max_queued_bytes = value;
        self
    }

    /// How many addresses of a resolver are followed. Default: 1024.
    #[must_use]
    pub fn max_followed(mut self, value: usize) -> Self {
        self.max_followed = value;
        self
    }

    /// How many followed addresses are dialled at once, at least one. Default: 32.
    #[must_use]
    pub fn max_dials(mut self, value: usize) -> Self {
        self.max_dials = value;
        self
    }

    /// How long an address must be missing in the lists of a resolver before it is removed.
    /// Default: 30 s.
    #[must_use]
    pub fn removal_delay(mut self, value: Duration) -> Self {
        self.removal_delay = value;
        self
    }

    /// Returns the backoff after `failed` failures.
    pub(super) fn delay(&self, failed: u32) -> Duration {
        let longest = self
            .first_delay
            .saturating_mul(1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.max_delay);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// An event of a [`PeerPool`](crate::PeerPool).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent<C> {
    /// The pool has dialled a peer. Receive the peer's messages from the connection until it ends,
    /// even if the pool sends on another connection with that peer.
    Connected {
        /// The peer.
        peer: CertHash,
        /// The connection.
        connection: C,
    },
    /// A connection of the pool has ended. Messages that it had queued and not delivered are lost.
    Disconnected {
        /// The peer.
        peer: CertHash,
        /// Why.
        reason: CloseReason,
    },
    /// Messages were dropped: the peer is unreachable, one side rejected the other, or a message is
    /// too long.
    Dropped {
        /// The peer.
        peer: CertHash,
        /// Number of dropped messages.
        messages: usize,
        /// Why.
        error: DropError,
    },
    /// A [followed](crate::PeerPool::follow) address cannot be reached. It is dialled further with
    /// backoff; what later attempts find is not reported, until one succeeds.
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: ConnectError,
    },
    /// A [followed](crate::PeerPool::follow) resolver failed, or listed too much. The pool keeps
    /// the addresses that it has. The same error is reported once.
    ResolveFailed {
        /// Why.
        error: ResolveError,
    },
}

/// Why queued messages were dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// No connection could be established.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection rejected the message.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The message of a broadcast was not queued.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The connection ended and no address of the peer is known.
    #[error("not connected, and no address of the peer is known")]
    NoAddress,
    /// The peer was removed from the pool, or the pool was dropped.
    #[error("the peer was removed from the pool")]
    Removed,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The peer's queue is full.
    #[error("the queue of the peer is full")]
    Full,
    /// The message alone exceeds the queue limit.
    #[error("a message of {size} bytes exceeds the queue limit of {limit} bytes per peer")]
    TooLarge {
        /// Size of the message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer's identity is that of this node.
    #[error("the identity of the peer is that of this node")]
    OwnIdentity,
    /// There is no connection with the peer and no address of it is known.
    #[error("not connected, and no address of the peer is known")]
    NoAddress,
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
