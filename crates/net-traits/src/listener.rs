//! `NetListener`: where peers arrive.

use crate::{AcceptError, NetConnection, NetIncomingRequest};
use async_trait::async_trait;
use std::net::SocketAddr;

/// Accepts connections. Dropping it stops listening; connections already made live on.
///
/// # Several peers
///
/// [`accept`](Self::accept) gives a request as soon as a peer has sent its first bytes. The handshake happens in
/// [`NetIncomingRequest::accept`], and a peer can delay it until the handshake timeout. Call that in a task per request:
/// `listener.accept().await?.accept().await?` in a loop lets one stalled peer keep all others out.
#[async_trait]
pub trait NetListener: Send + Sync + 'static {
    /// What an accepted request becomes.
    type Connection: NetConnection;
    /// What `accept` gives.
    type IncomingRequest: NetIncomingRequest<Connection = Self::Connection>;

    /// Waits for the next peer. It does not wait for the handshake.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] once the listener is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no request.
    async fn accept(&self) -> Result<Self::IncomingRequest, AcceptError>;

    /// The address that peers reach, with the real port where 0 was asked for.
    fn local_addr(&self) -> SocketAddr;
}
