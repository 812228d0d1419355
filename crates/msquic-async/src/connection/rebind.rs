//! Moving a client to another local address while it runs (RFC 9000, section 9).

use super::{Connection, ConnectionError, ConnectionInner, ConnectionState};
use crate::Status;
use crate::ffi::library::has_patch;
use crate::ffi::may_block::{MayBlock, detach};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why a connection did not move.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::RebindError;
///
/// match connection.rebind("192.0.2.7:0".parse()?).await {
///     Ok(local) => println!("moved to {local}"),
///     Err(RebindError::AddressNotAvailable(local)) => println!("no interface has {local} yet"),
///     Err(error) => println!("did not move: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebindError {
    /// The linked libmsquic lacks the patches N13 and U3, without which a move can use freed memory.
    #[error("this libmsquic cannot move a connection; the feature `vendored` builds one that can")]
    Unsupported,
    /// This side accepted the connection. Only clients move.
    #[error("only the client of a connection can move")]
    NotClient,
    /// The peer forbids it by its transport parameter `disable_active_migration` (RFC 9000, section
    /// 18.2), see [`Settings::migration`](crate::Settings::migration).
    #[error("the peer does not follow a client that moves")]
    Forbidden,
    /// The handshake is not confirmed yet. It is confirmed by a packet of the peer soon after
    /// [`start`](Connection::start) is ready; try again.
    #[error("the handshake is not confirmed yet, try again")]
    NotConfirmed,
    /// Another move of the connection is in progress.
    #[error("the connection is already moving")]
    InProgress,
    /// The address is of another family than the peer's.
    #[error("{local} cannot be used to send to {remote}: the families differ")]
    OtherFamily {
        /// The address that was asked for.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// Another socket has the address.
    #[error("{0} is in use")]
    AddressInUse(SocketAddr),
    /// This machine does not have the address.
    #[error("{0} is not an address of this host")]
    AddressNotAvailable(SocketAddr),
    /// The connection has ended.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed, for instance because no descriptor is left.
    #[error("msquic could not move the connection")]
    Other(#[source] Status),
}

impl From<RebindError> for io::Error {
    fn from(error: RebindError) -> Self {
        let kind = match &error {
            RebindError::Unsupported | RebindError::Forbidden => io::ErrorKind::Unsupported,
            RebindError::NotClient | RebindError::OtherFamily { .. } => io::ErrorKind::InvalidInput,
            RebindError::NotConfirmed => io::ErrorKind::NotConnected,
            RebindError::InProgress => io::ErrorKind::WouldBlock,
            RebindError::AddressInUse(_) => io::ErrorKind::AddrInUse,
            RebindError::AddressNotAvailable(_) => io::ErrorKind::AddrNotAvailable,
            RebindError::ConnectionLost(error) => error.io_kind(),
            RebindError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Connection {
    /// Moves this client to another local address while the connection runs, and returns its new address. Port 0
    /// means any port, the unspecified address (`0.0.0.0`, `[::]`) any address.
    ///
    /// Streams and datagrams go on; what was in flight to the old address is sent again. The peer validates the
    /// new path (RFC 9000, section 9). On a path from another IP address the round-trip time, the congestion
    /// window and the MTU are measured again, and the packets have another connection ID, so that observers cannot
    /// link them to those of the old address. This fails after several moves within a round trip, for which
    /// the peer has not supplied enough connection IDs. Other connections keep the socket that this one leaves.
    ///
    /// A peer that does not answer on the new path ends the connection after the
    /// [disconnect timeout](crate::Settings::disconnect_timeout), unless it moves again before. A peer without the
    /// patch N33 may lose a client that [shares sockets](crate::Dial#shared-sockets) and moves several times within a few
    /// round trips.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let local = connection.rebind("0.0.0.0:0".parse()?).await?;
    /// println!("the connection uses {local} now");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RebindError`]. The connection then keeps its old address.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the first poll. After it the move takes place also if the future is dropped;
    /// [`next_change`](Self::next_change) reports the new address.
    pub async fn rebind(&self, local: SocketAddr) -> Result<SocketAddr, RebindError> {
        // C28: without them the call must not reach the library.
        if !(has_patch("N13") && has_patch("U3")) {
            return Err(RebindError::Unsupported);
        }
        let attempt = Attempt::begin(self.inner(), local)?;
        let (done, moved) = tokio::sync::oneshot::channel();
        detach(move |may_block| {
            let _ = done.send(attempt.finish(may_block)); // the waiting future may be dropped
        });
        moved.await.unwrap_or(Err(RebindError::Other(Status::ABORTED)))
    }
}

/// The move in progress; there is one at a time.
struct Attempt {
    inner: Arc<ConnectionInner>,
    local: SocketAddr,
}

impl Attempt {
    fn begin(inner: &Arc<ConnectionInner>, local: SocketAddr) -> Result<Self, RebindError> {
        let mut exclusive = inner.exclusive.lock();
        if let Some(error) = exclusive.state.error() {
            return Err(RebindError::ConnectionLost(error.clone()));
        }
        if exclusive.is_accepted {
            return Err(RebindError::NotClient);
        }
        let remote = match (&exclusive.state, exclusive.remote_addr) {
            (ConnectionState::Connected, Some(remote)) => remote,
            _ => return Err(RebindError::NotConfirmed),
        };
        if remote.is_ipv4() != local.is_ipv4() {
            return Err(RebindError::OtherFamily { local, remote });
        }
        if std::mem::replace(&mut exclusive.is_moving, true) {
            return Err(RebindError::InProgress);
        }
        Ok(Self { inner: inner.clone(), local })
    }

    fn finish(self, may_block: &MayBlock) -> Result<SocketAddr, RebindError> {
        let moved = self.inner.native().calls(may_block).rebind(self.local);
        match moved {
            Ok(local) => {
                self.inner.addrs_changed(Some(local), None);
                Ok(local)
            }
            Err(status) => Err(match (status, self.inner.error()) {
                (_, Some(error)) => RebindError::ConnectionLost(error),
                (Status::INVALID_STATE, None) => RebindError::NotConfirmed,
                (Status::NOT_SUPPORTED, None) => RebindError::Forbidden,
                (Status::ADDRESS_IN_USE, None) => RebindError::AddressInUse(self.local),
                (status, None) if status.raw() == i64::from(libc::EADDRNOTAVAIL) => {
                    RebindError::AddressNotAvailable(self.local)
                }
                (status, None) => RebindError::Other(status),
            }),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.inner.exclusive.lock().is_moving = false;
    }
}
