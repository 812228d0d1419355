//! `NetIncomingRequest`: a connection attempt before its handshake is complete.

use crate::{ConnectError, NetConnection};
use async_trait::async_trait;
use std::net::SocketAddr;

/// A connection attempt of a peer, before its handshake is complete. Dropping it rejects the
/// attempt.
#[async_trait]
pub trait NetIncomingRequest: Send + 'static {
    /// The connection that `accept` returns.
    type Connection: NetConnection;

    /// Returns the peer's address. It may be forged until the handshake is complete.
    fn remote_addr(&self) -> SocketAddr;

    /// Rejects the attempt without waiting.
    ///
    /// The peer receives the application `code` (below 2^62) if the transport can send it before
    /// the handshake.
    fn refuse(self, code: u64);

    /// Finishes the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], for instance if the peer's certificate is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rejects the attempt.
    async fn accept(self) -> Result<Self::Connection, ConnectError>;
}
