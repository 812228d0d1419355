//! `address_changed` and `next_change`: waiting for changes of a connection.

use super::state::ConnectionState;
use super::{Connection, ConnectionChange, ConnectionError};
use crate::waiters::wait_future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll};

impl Connection {
    /// Waits until the local or the peer's address changes, and returns both addresses. Changes before the call
    /// are not reported.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) {
    /// while let Ok((_, remote)) = connection.address_changed().await {
    ///     println!("the peer is at {remote} now");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] when the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// A change between two calls is missed; compare with [`get_remote_addr`](Self::get_remote_addr).
    pub async fn address_changed(&self) -> Result<(SocketAddr, SocketAddr), ConnectionError> {
        let addresses = || {
            let exclusive = self.inner().exclusive.lock();
            (exclusive.local_addr, exclusive.remote_addr, exclusive.state.error().cloned())
        };
        let before = addresses();
        loop {
            let mut changed = pin!(self.inner().changed.notified());
            changed.as_mut().enable();
            match addresses() {
                (_, _, Some(error)) => return Err(error),
                (Some(local), Some(remote), None)
                    if (before.0, before.1) != (Some(local), Some(remote)) =>
                {
                    return Ok((local, remote));
                }
                _ => changed.await,
            }
        }
    }

    /// Waits for the next change of an address, of the size of datagrams, or of the streams that the peer
    /// allows.
    ///
    /// Changes are kept from the start of the connection until they are read; one that was not read is replaced by
    /// a newer one of its kind. Each change is returned to one caller.
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
        if let Some(change) = exclusive.changes.pop() {
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
    on connection.inner().inbound.changes, take connection.unread_change()
}
