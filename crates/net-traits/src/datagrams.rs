//! `NetDatagrams`: datagrams beside the messages of a connection.

use crate::{Cause, CloseReason};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;

/// Sends and receives datagrams, which may be lost and overtake each other, and are never repeated by
/// the transport. They suit values that a newer one replaces soon.
///
/// [`NetConnection::datagrams`](crate::NetConnection::datagrams) returns it.
///
/// ```
/// use net_traits::{DatagramError, NetConnection};
///
/// /// Sends a position, or nothing where the transport has no datagrams.
/// fn tell(connection: &impl NetConnection, position: [u8; 8]) -> Result<(), DatagramError> {
///     match connection.datagrams()?.send_datagram(position.to_vec().into()) {
///         Err(DatagramError::WouldBlock) => Ok(()), // the next position comes soon
///         result => result,
///     }
/// }
/// ```
#[async_trait]
pub trait NetDatagrams: Send + Sync + fmt::Debug {
    /// Returns the largest datagram that can be sent now, in bytes, which changes with the path.
    /// `None` if the peer takes none, or before that is known.
    fn max_datagram_size(&self) -> Option<usize>;

    /// Queues a datagram without waiting.
    ///
    /// # Errors
    ///
    /// [`DatagramError`]. Unless it is [`DatagramError::Closed`], the connection remains usable.
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError>;

    /// Waits for the next datagram.
    ///
    /// While none is asked for, the transport keeps some and then drops the oldest.
    ///
    /// # Errors
    ///
    /// [`DatagramError::Closed`] once the connection has ended or its peer is not trusted any more, see
    /// [`NetTransport::revoke`](crate::NetTransport::revoke).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no datagram.
    async fn recv_datagram(&self) -> Result<Bytes, DatagramError>;

    /// Returns what was counted on this side.
    fn datagram_statistics(&self) -> DatagramStatistics;
}

/// Why a datagram cannot be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The transport has no datagrams, they are not enabled, or the peer takes none.
    #[error("the transport or the peer does not support datagrams")]
    Unsupported,
    /// The datagram is larger than the path carries now.
    #[error("a datagram of {size} bytes exceeds the {limit} bytes that the path carries")]
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Too many datagrams wait to be sent; this one was not queued.
    #[error("the queue of datagrams is full")]
    WouldBlock,
    /// The transport failed. The connection may remain usable.
    #[error("the transport failed")]
    Transport(#[source] Cause),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

/// What was counted on one side of a connection. Those that arrived and were not received wait or were
/// dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DatagramStatistics {
    /// Datagrams that [`send_datagram`](NetDatagrams::send_datagram) queued.
    pub sent: u64,
    /// Datagrams that arrived.
    pub arrived: u64,
    /// Datagrams that [`recv_datagram`](NetDatagrams::recv_datagram) returned.
    pub received: u64,
}

impl DatagramStatistics {
    /// Combines the three numbers.
    pub const fn new(sent: u64, arrived: u64, received: u64) -> Self {
        Self { sent, arrived, received }
    }
}
