//! `CloseOutcome`: what became of the messages when a connection was closed.

use crate::CloseReason;

/// What became of the messages that were sent before
/// [`NetConnection::close`](crate::NetConnection::close).
///
/// No variant means that the peer's application has received a message. Only an answer of the
/// application shows that.
///
/// ```
/// use net_traits::{CloseOutcome, NetConnection};
///
/// async fn hang_up(connection: &impl NetConnection) {
///     if let CloseOutcome::Undelivered { messages, bytes, .. } = connection.close(0, "done").await {
///         eprintln!("up to {messages} messages ({bytes} bytes) may be lost");
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// The peer's transport has all messages, and delivers them to its application before it
    /// reports the end.
    Delivered,
    /// The peer's transport has acknowledged all messages. It is not known whether it kept the
    /// messages for which its receive queue had no room.
    Acknowledged,
    /// The connection ended before the peer's transport confirmed all messages: the peer made no
    /// progress, the connection was lost, or it was aborted. The peer may have received some of
    /// them.
    #[non_exhaustive]
    Undelivered {
        /// How many messages were not confirmed, at most.
        messages: u64,
        /// Their size in bytes, at most.
        bytes: u64,
    },
    /// The connection had ended, or another call was closing it. The call waited for the end, and
    /// this is its reason.
    AlreadyClosed(CloseReason),
}

impl CloseOutcome {
    /// Returns [`Undelivered`](Self::Undelivered), or `confirmed` if there are no unconfirmed
    /// messages. For implementors of transports.
    pub fn from_unconfirmed(messages: u64, bytes: u64, confirmed: Self) -> Self {
        if messages == 0 { confirmed } else { Self::Undelivered { messages, bytes } }
    }

    /// Returns whether the peer's transport has confirmed all messages.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Delivered | Self::Acknowledged)
    }
}
