//! `NetConnection`: messages to and from one peer.

use crate::{CloseReason, PeerIdentity, RecvError, SendError};
use async_trait::async_trait;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::time::Duration;

/// An established connection with an authenticated peer.
///
/// Clones are handles of the same connection; dropping the last one closes it with code 0. All
/// methods may be called from many tasks at once.
#[async_trait]
pub trait NetConnection: Clone + Send + Sync + 'static {
    /// The address of this side.
    fn local_addr(&self) -> SocketAddr;

    /// The address of the peer.
    fn remote_addr(&self) -> SocketAddr;

    /// The identity of this side, as 64 hexadecimal digits (see [`CertHash`](crate::CertHash)).
    fn local_identity(&self) -> &str;

    /// The identity of the peer, as 64 hexadecimal digits.
    fn remote_identity(&self) -> &str;

    /// The identity of the peer and the keys that vouch for it, as they were when it was accepted.
    fn peer_identity(&self) -> &PeerIdentity;

    /// The certificate of the peer, where the transport has one.
    fn remote_certificate(&self) -> Option<CertificateDer<'static>>;

    /// The application protocol that both sides agreed on.
    fn alpn_negotiated(&self) -> &str;

    /// Sends one message; the same as [`send_bytes`](Self::send_bytes) with a copy of `message`.
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// See [`send_bytes`](Self::send_bytes).
    async fn send(&self, message: &[u8]) -> Result<(), SendError>;

    /// Sends one message. It resolves once the message is queued, in order behind earlier ones
    /// of the same task; it waits while too much is queued.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Unless it is [`SendError::Closed`], the connection goes on.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or nothing of it.
    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError>;

    /// Sends the concatenation of `parts` as one message, without copying large parts where the
    /// transport can.
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// See [`send_bytes`](Self::send_bytes).
    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        self.send_bytes(parts.concat().into()).await
    }

    /// Queues one message if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError::WouldBlock`] when too much is queued, or the way to the peer is not open yet; nothing
    /// was queued then. Otherwise see [`send_bytes`](Self::send_bytes).
    fn try_send(&self, message: Bytes) -> Result<(), SendError>;

    /// Waits until the transport has taken over everything that was queued before the call: none of it
    /// takes memory of the queue any more. That the peer has it is known only when it answers.
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn flush(&self) -> Result<(), SendError>;

    /// Waits for the next message and tells how long it took to arrive, from its length header to
    /// its last byte: zero if they came in one piece.
    ///
    /// # Errors
    ///
    /// [`RecvError`]. Unless it is [`RecvError::Closed`], the connection goes on.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no byte.
    async fn recv(&self) -> Result<(Bytes, Duration), RecvError>;

    /// Waits until the peer's transport has acknowledged what was sent, then closes with an
    /// application `code` (below 2^62) and a `reason` for the peer's log (cut after 511 bytes).
    /// Returns once the connection is over. Closing again does nothing.
    ///
    /// It waits as long as the peer makes progress. To wait no longer than you like, put a limit around
    /// it: dropping the future that closes first closes at once.
    ///
    /// A peer whose application is far behind, with full queues, may lose what its transport had
    /// acknowledged and not yet handed over. Where that matters, let it answer before closing.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes without waiting for what is still queued.
    async fn close(&self, code: u64, reason: &str);

    /// Waits until the connection is over and tells why. It resolves at once if it already is.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn watch_close(&self) -> CloseReason;
}
