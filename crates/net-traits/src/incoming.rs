//! `NetIncomingRequest`: a peer that knocked, before its handshake is done.

use crate::{ConnectError, NetConnection};
use async_trait::async_trait;
use std::net::SocketAddr;

/// A connection attempt of a peer. Dropping it turns the peer away.
#[async_trait]
pub trait NetIncomingRequest: Send + 'static {
    /// What the request becomes.
    type Connection: NetConnection;

    /// Where the request comes from. Until the handshake is done the address may be forged.
    fn remote_addr(&self) -> SocketAddr;

    /// Turns the peer away, with an application `code` (below 2^62) where the transport can say it before
    /// the handshake. Never waits.
    fn refuse(self, code: u64);

    /// Finishes the handshake.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], for instance when the peer's certificate is not trusted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future turns the peer away.
    async fn accept(self) -> Result<Self::Connection, ConnectError>;
}
