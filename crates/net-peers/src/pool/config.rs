//! Configuration and errors of a `PeerPool`.

use net_kit::options::{COUNT, QUEUE, TIMEOUT};
use net_traits::{CloseReason, ConfigError, ConnectError, SendError};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::Semaphore;

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
        /// Number of consecutive failed attempts after which the queued messages of a peer are
        /// reported as undelivered. Default: 10.
        max_attempts: u32 = 10, 1..=u32::MAX;
        /// How many messages may be queued per peer. Default: 1000.
        max_queued_messages: usize = 1000, PERMITS;
        /// How many bytes of messages may be queued per peer. Default: 1 MiB.
        max_queued_bytes: usize = 1024 * 1024, QUEUE;
        /// How many bytes of messages the connections of a peer may have taken that are not known
        /// to be delivered; each message counts 128 bytes more. Beyond it, messages stay in the
        /// queue. Default: 4 MiB.
        max_unconfirmed_bytes: usize = 4 * 1024 * 1024, QUEUE;
        /// How long a message is kept after a [flush](net_traits::NetConnection::flush) has shown that
        /// the peer's transport has it, and reported if the connection ends meanwhile. It is kept
        /// for a shorter time if `max_unconfirmed_bytes` is reached. Over TCP and with quinn, peers of
        /// older versions do not confirm messages: if the host of such a peer fails, messages that were
        /// written earlier than this before the connection ends are lost without a report. Default: 1 s.
        keep_sent: Duration = Duration::from_secs(1), Duration::ZERO..=*TIMEOUT.end();
        /// How many bytes of messages the pool may hold for all peers, until they are delivered or
        /// their reports are received; each message counts 128 bytes more, and the payload of a
        /// broadcast counts once. Default: 64 MiB.
        max_held_bytes: usize = 64 * 1024 * 1024, QUEUE;
        /// How many bytes of received messages may wait for [`recv`](crate::PeerPool::recv); each
        /// message counts 128 bytes more. Beyond it, the pool does not read from the connections.
        /// Default: 4 MiB.
        receive_queue: usize = 4 * 1024 * 1024, QUEUE;
        /// How many addresses of a resolver are followed. Default: 1024.
        max_followed: usize = 1024, COUNT;
        /// How many followed addresses are dialled at once. Default: 32.
        max_dials: usize = 32, PERMITS;
        /// How long an address must be missing from the lists of a resolver before it is removed.
        /// Zero removes it immediately. Default: 30 s.
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

/// Why a message was not delivered.
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
    /// The connection that had taken the message ended before the message was known to be
    /// delivered.
    #[error("the connection ended before the message was known to be delivered")]
    Lost(#[source] CloseReason),
    /// The connection ended and no address of the peer is known. Send with an address, or follow a
    /// resolver that lists one.
    #[error("not connected, and no address of the peer is known")]
    NoAddress,
    /// The peer was removed from the pool, or the pool was dropped.
    #[error("the peer was removed from the pool")]
    Removed,
}

impl DropError {
    /// Returns a name for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Send(_) => "send",
            Self::Queue(_) => "queue",
            Self::Lost(_) => "lost",
            Self::NoAddress => "no_address",
            Self::Removed => "removed",
        }
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The peer's queue is full. Wait, or leave the message out; the peer is slow or not connected.
    #[error("the queue of the peer is full")]
    Full,
    /// The pool holds as many bytes as its limit allows, in messages and in reports that the
    /// application has not received.
    #[error("the messages and reports that the pool holds reach its limit in bytes")]
    PoolFull,
    /// The message alone exceeds the queue limit. Split it, or raise
    /// [`max_queued_bytes`](PeerPoolConfig::max_queued_bytes).
    #[error("a message of {size} bytes exceeds the queue limit of {limit} bytes per peer")]
    TooLarge {
        /// Size of the message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer has the identity of this node.
    #[error("the identity of the peer is that of this node")]
    OwnIdentity,
    /// There is no connection with the peer and no address of it is known. Send with an address, or
    /// follow a resolver that lists one.
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
            (config().first_delay(Duration::from_nanos(1)), "first_delay"),
            (config().max_delay(Duration::ZERO), "max_delay"),
            (config().max_queued_messages(0), "max_queued_messages"),
            (config().max_queued_bytes(usize::MAX), "max_queued_bytes"),
            (config().max_held_bytes(usize::MAX), "max_held_bytes"),
            (config().receive_queue(usize::MAX), "receive_queue"),
            (config().max_dials(usize::MAX), "max_dials"),
            (config().max_delay(Duration::MAX), "max_delay"),
            (config().max_attempts(0), "max_attempts"),
            (config().max_queued_messages(usize::MAX), "max_queued_messages"),
            (config().max_queued_bytes(0), "max_queued_bytes"),
            (config().max_unconfirmed_bytes(0), "max_unconfirmed_bytes"),
            (config().keep_sent(Duration::MAX), "keep_sent"),
            (config().max_held_bytes(0), "max_held_bytes"),
            (config().receive_queue(0), "receive_queue"),
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
    fn backoffs_double_up_to_a_limit_and_are_random() {
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
