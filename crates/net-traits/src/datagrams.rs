//! `NetDatagrams`: datagrams of a connection.

use crate::{Cause, CloseReason};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;

/// Sends and receives datagrams, in addition to the messages of a connection.
///
/// Datagrams may be lost or reordered, and are not retransmitted. They suit values that are soon
/// replaced by newer ones. [`NetConnection::datagrams`](crate::NetConnection::datagrams) returns an
/// implementation.
///
/// ```
/// use net_traits::{DatagramError, NetConnection};
///
/// /// Sends a position, which the next one replaces.
/// fn send_position(connection: &impl NetConnection, position: [u8; 8]) -> Result<(), DatagramError> {
///     match connection.datagrams()?.send_datagram(position.to_vec().into()) {
///         Err(DatagramError::WouldBlock) => Ok(()), // the next position comes soon
///         result => result,
///     }
/// }
/// ```
#[async_trait]
pub trait NetDatagrams: Send + Sync + fmt::Debug {
    /// Returns the largest datagram that can be sent now, in bytes. It changes with the path.
    ///
    /// `None` if the peer accepts no datagrams, or while that is not known.
    fn max_datagram_size(&self) -> Option<usize>;

    /// Queues a datagram without waiting.
    ///
    /// # Errors
    ///
    /// [`DatagramError`]. Unless it is [`DatagramError::Closed`], the connection remains usable.
    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError>;

    /// Waits for the next datagram.
    ///
    /// While the application does not call it, the transport queues a limited number of bytes, and
    /// drops the oldest datagrams to make room for new ones.
    ///
    /// # Errors
    ///
    /// [`DatagramError::Closed`] once the connection has ended or its peer is not trusted any more,
    /// see [`NetTransport::revoke`](crate::NetTransport::revoke).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no datagram.
    async fn recv_datagram(&self) -> Result<Bytes, DatagramError>;

    /// Returns the counts of this side.
    fn datagram_statistics(&self) -> DatagramStatistics;
}

/// Why a datagram cannot be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The transport has no datagrams, they are not enabled, or the peer takes none. Send messages
    /// instead.
    #[error("the transport or the peer does not support datagrams")]
    Unsupported,
    /// The datagram is larger than the path carries now. See
    /// [`max_datagram_size`](NetDatagrams::max_datagram_size).
    #[error("a datagram of {size} bytes exceeds the {limit} bytes that the path carries")]
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Too many datagrams wait to be sent; this one was not queued. Leave it out, or try again later.
    #[error("the queue of datagrams is full")]
    WouldBlock,
    /// The transport failed. The connection may remain usable.
    #[error("the transport failed")]
    Transport(#[source] Cause),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

/// How many datagrams one side of a connection has sent and received.
///
/// The difference between `arrived` and `received` is queued or was dropped.
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
    /// Creates statistics from the three counts.
    pub const fn new(sent: u64, arrived: u64, received: u64) -> Self {
        Self { sent, arrived, received }
    }
}
