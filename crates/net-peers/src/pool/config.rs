//! Configuration, events and errors of a `PeerPool`.

use crate::resolver::ResolveError;
use net_kit::options::{COUNT, QUEUE, TIMEOUT};
use net_traits::{CertHash, CloseReason, ConfigError, ConnectError, SendError};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

net_kit::options! {
    /// Dialling and queue limits of a [`PeerPool`](crate::PeerPool).
    ///
    /// ```
    /// use net_peers::PeerPoolConfig;
    /// use std::time::Duration;
    ///
    /// let config = PeerPoolConfig::new().first_delay(Duration::from_millis(200)).max_attempts(5);
    /// assert!(config.validate().is_ok());
    /// ```
    pub struct PeerPoolConfig {
        /// The maximum backoff after the first failure. The maximum doubles with each failure, and
        /// each backoff is a random time between half of the maximum and the maximum. A connection
        /// that the peer ends within 10 s counts as a failure. Default: 100 ms.
        first_delay: Duration = Duration::from_millis(100), TIMEOUT;
        /// The upper limit of the backoff. Default: 30 s.
        max_delay: Duration = Duration::from_secs(30), TIMEOUT;
        /// Number of consecutive failed attempts after which queued messages are dropped and
        /// reported. Default: 10.
        max_attempts: u32 = 10, 1..=u32::MAX;
        /// How many messages may be queued per peer. Default: 1000.
        max_queued_messages: usize = 1000, PERMITS;
        /// How many bytes of messages may be queued per peer. Default: 1 MiB.
        max_queued_bytes: usize = 1024 * 1024, QUEUE;
        /// How many addresses of a resolver are followed. Default: 1024.
        max_followed: usize = 1024, COUNT;
        /// How many followed addresses are dialled at once. Default: 32.
        max_dials: usize = 32, PERMITS;
        /// How long an address must be missing in the lists of a resolver before it is removed; zero
        /// means not at all. Default: 30 s.
        removal_delay: Duration = Duration::from_secs(30), Duration::ZERO..=*TIMEOUT.end();
    }
}

/// The numbers that tokio's semaphores and channels can count.
const PERMITS: RangeInclusive<usize> = 1..=Semaphore::MAX_PERMITS;

impl PeerPoolConfig {
    /// Checks the values of all options, as [`PeerPool::new`](crate::PeerPool::new) does.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()
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

/// The receiver of the events of a [`PeerPool`](crate::PeerPool), whose connections are of type `C`.
pub type PeerEvents<C> = mpsc::Receiver<PeerEvent<C>>;

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
    fn values_that_cannot_be_used_are_named() {
        let config = PeerPoolConfig::new;
        for (config, option) in [
            (config().first_delay(Duration::ZERO), "first_delay"),
            (config().max_delay(Duration::MAX), "max_delay"),
            (config().max_attempts(0), "max_attempts"),
            (config().max_queued_messages(usize::MAX), "max_queued_messages"),
            (config().max_queued_bytes(0), "max_queued_bytes"),
            (config().max_followed(0), "max_followed"),
            (config().max_dials(0), "max_dials"),
            (config().removal_delay(Duration::MAX), "removal_delay"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
        assert_eq!(config().removal_delay(Duration::ZERO).validate(), Ok(()));
    }

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
