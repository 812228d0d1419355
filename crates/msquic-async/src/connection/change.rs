//! Changes of a connection that an application can follow: addresses, sizes, limits.
//!
//! At most one change of each kind waits to be read: a newer change replaces an older one of its kind. So a
//! slow reader, or none, costs a fixed number of bytes, and a reader never misses the current state.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;

/// A change of a connection, with the new value. See
/// [`Connection::next_change`](crate::Connection::next_change).
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) {
/// use msquic_async::ConnectionChange;
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
    /// The address of the peer: it moved, or a NAT on the path gave it another one.
    RemoteAddr(SocketAddr),
    /// The largest datagram that can be sent, in bytes, as
    /// [`max_datagram_size`](crate::Connection::max_datagram_size) returns. It follows the MTU of the path, which
    /// msquic reports in no other way: if the peer accepts no datagrams it is not reported.
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
    /// Queues a change, which replaces an older one of its kind.
    pub(super) fn push(&mut self, change: ConnectionChange) {
        let kind = mem::discriminant(&change);
        self.0.retain(|older| mem::discriminant(older) != kind);
        self.0.push_back(change);
    }

    pub(super) fn pop(&mut self) -> Option<ConnectionChange> {
        self.0.pop_front()
    }
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
