//! Changes of a connection that an application may want to follow: addresses, sizes, limits.
//!
//! At most one change of each kind waits to be read. A newer one takes the place of an older one, so that a
//! reader that is slow, or none, costs a fixed number of bytes and never misses the current state.

use super::{Connection, ConnectionError, ConnectionState};
use crate::waiters::wait_future;
use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// What changed about a connection, and what it is now. See [`Connection::next_change`].
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) {
/// use msquic_async::connection::ConnectionChange;
///
/// while let Ok(change) = connection.next_change().await {
///     match change {
///         ConnectionChange::RemoteAddr(addr) => println!("the peer is at {addr}"),
///         ConnectionChange::DatagramSize(Some(size)) => println!("datagrams take {size} bytes"),
///         change => println!("{change:?}"),
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionChange {
    /// The address of this side.
    LocalAddr(SocketAddr),
    /// The address of the peer: it moved, or a NAT on the way gave it another one.
    RemoteAddr(SocketAddr),
    /// The largest datagram that can be sent, in bytes, as
    /// [`max_datagram_size`](Connection::max_datagram_size) tells. It follows the MTU of the path, which
    /// msquic reports in no other way: where the peer takes no datagrams it is not told.
    DatagramSize(Option<usize>),
    /// How many more streams the peer allows this side to open, at the moment at which it allowed more.
    StreamsAvailable {
        /// Bidirectional streams.
        bidirectional: u16,
        /// Unidirectional streams.
        unidirectional: u16,
    },
}

/// Changes that were not read yet. Pure.
#[derive(Debug, Default)]
pub(super) struct Changes(VecDeque<ConnectionChange>);

impl Changes {
    /// Takes the place of an older change of its kind.
    pub(super) fn push(&mut self, change: ConnectionChange) {
        let kind = mem::discriminant(&change);
        self.0.retain(|older| mem::discriminant(older) != kind);
        self.0.push_back(change);
    }
}

impl Connection {
    /// Waits for the next change of an address, of the size of datagrams, or of the streams that the peer
    /// allows.
    ///
    /// Changes wait from the start of the connection until they are read; one that was not read is replaced by
    /// a newer one of its kind. Each change is given to one reader.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// while let Ok(change) = connection.next_change().await {
    ///     println!("{change:?}");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection was not started, or is over and all changes were read.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no change.
    pub fn next_change(&self) -> NextChange<'_> {
        NextChange::new(self)
    }

    /// [`next_change`](Self::next_change) for pollers. Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let change = std::future::poll_fn(|cx| connection.poll_change(cx)).await?;
    /// println!("{change:?}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], as for [`next_change`](Self::next_change).
    pub fn poll_change(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ConnectionChange, ConnectionError>> {
        self.inner().inbound.changes.poll_registered(cx, || self.unread_change())
    }

    fn unread_change(&self) -> Option<Result<ConnectionChange, ConnectionError>> {
        let mut exclusive = self.inner().exclusive.lock();
        if let Some(change) = exclusive.changes.0.pop_front() {
            return Some(Ok(change));
        }
        match &exclusive.state {
            ConnectionState::Open => Some(Err(ConnectionError::NotStarted)),
            state => state.error().map(|error| Err(error.clone())),
        }
    }
}

wait_future! {
    /// Future of [`Connection::next_change`].
    NextChange(connection: &Connection) -> Result<ConnectionChange, ConnectionError>,
    on connection.inner().inbound.changes, until connection.unread_change()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_kind_waits() {
        let mut changes = Changes::default();
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for number in 0..1000 {
            changes.push(ConnectionChange::LocalAddr(addr(number)));
            changes.push(ConnectionChange::DatagramSize(Some(number.into())));
            let (bidirectional, unidirectional) = (number, 1);
            changes.push(ConnectionChange::StreamsAvailable { bidirectional, unidirectional });
            changes.push(ConnectionChange::RemoteAddr(addr(number)));
        }
        changes.push(ConnectionChange::LocalAddr(addr(7)));
        let expected = [
            ConnectionChange::DatagramSize(Some(999)),
            ConnectionChange::StreamsAvailable { bidirectional: 999, unidirectional: 1 },
            ConnectionChange::RemoteAddr(addr(999)),
            ConnectionChange::LocalAddr(addr(7)),
        ];
        assert_eq!(changes.0, expected);
    }
}
