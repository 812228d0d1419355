//! `NetListener`: accepts connection attempts.

use crate::{
    AcceptError, ListenError, NetConnection, NetCredential, NetIncomingRequest, TrustPolicy,
};
use async_trait::async_trait;
use std::net::SocketAddr;

/// Accepts connection attempts.
///
/// Dropping it stops listening; established connections remain open.
///
/// # Several peers
///
/// [`accept`](Self::accept) returns a request when the peer's first bytes arrive. The handshake
/// happens in [`NetIncomingRequest::accept`], which a peer can delay until the handshake timeout.
/// Call that in a task per request, as `serve` of the crate `net-peers` does. With
/// `listener.accept().await?.accept().await?` in a loop, one stalled peer blocks all other peers.
#[async_trait]
pub trait NetListener: Send + Sync + 'static {
    /// The connection of an accepted request.
    type Connection: NetConnection;
    /// The request that `accept` returns.
    type IncomingRequest: NetIncomingRequest<Connection = Self::Connection>;

    /// Waits for the next connection attempt, not for its handshake.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Closed`] once the listener is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no request.
    async fn accept(&self) -> Result<Self::IncomingRequest, AcceptError>;

    /// Returns the local address, with the assigned port if the listener was created with port 0.
    fn local_addr(&self) -> SocketAddr;

    /// Replaces the credential, with its trust policy, for handshakes that begin after the call.
    ///
    /// Established connections remain open; [`NetTransport::revoke`](crate::NetTransport::revoke)
    /// closes those whose peer is no longer trusted.
    ///
    /// # Errors
    ///
    /// [`ListenError::Credential`] if the credential cannot be used. The listener then keeps the
    /// previous one.
    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError>;

    /// Replaces the trust policy for handshakes that begin after the call, and keeps the identity.
    ///
    /// Established connections remain open, as with [`set_credential`](Self::set_credential).
    fn set_trust(&self, trust: TrustPolicy);
}
