//! `MemoryConnection`: messages over a virtual wire.

use super::pipe::frame;
use super::transport::Host;
use super::wire::{Side, Wire};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{
    CertificateDer, CloseReason, NetConnection, PeerIdentity, RecvError, SendError, TrustPolicy,
    close_code,
};
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A connection of [`MemoryTransport`](crate::memory::MemoryTransport).
#[derive(Clone)]
pub struct MemoryConnection {
    shared: Arc<Shared>,
}

/// One side's view of a connection.
pub(super) struct Shared {
    seat: Seat,
    remote_identity: String,
    /// Code and reason of the local close, once it has begun.
    closing: Mutex<Option<CloseReason>>,
}

/// The parts of a connection.
pub(super) struct Seat {
    pub(super) wire: Arc<Wire>,
    pub(super) side: Side,
    pub(super) host: Arc<Host>,
    pub(super) local_addr: SocketAddr,
    pub(super) remote_addr: SocketAddr,
    pub(super) local_identity: String,
    pub(super) peer: PeerIdentity,
    pub(super) certificate: Option<CertificateDer<'static>>,
    pub(super) alpn: String,
    /// `Some` for accepted connections.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl MemoryConnection {
    pub(super) fn new(seat: Seat) -> Self {
        let host = seat.host.clone();
        let remote_identity = seat.peer.hash.to_string();
        let shared = Arc::new(Shared { seat, remote_identity, closing: Mutex::default() });
        host.know(&shared);
        Self { shared }
    }

    /// Sends raw bytes, for tests of peers that violate the protocol.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued all bytes or none.
    pub async fn send_raw(&self, bytes: Bytes) -> Result<(), SendError> {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.push(*side, bytes).await.map_err(SendError::Closed)
    }

    /// Ends the byte stream, possibly inside a message. Data sent later begins with a new message.
    pub fn end_raw(&self) {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.end(*side);
    }

    fn frame(&self, parts: &[Bytes]) -> Result<Bytes, SendError> {
        let Shared { seat, closing, .. } = &*self.shared;
        if let Some(reason) = closing.lock().clone() {
            // Another task may have closed first.
            let over = seat.wire.over(seat.side).now_or_never();
            return Err(SendError::Closed(over.unwrap_or(reason)));
        }
        let (size, limit) = (parts.iter().map(Bytes::len).sum(), seat.host.limits.max_message_size);
        frame(parts).filter(|_| size <= limit).ok_or(SendError::TooLarge { size, limit })
    }

    /// Waits for `operation` as long as the peer makes progress.
    async fn unless_stuck<T>(
        &self,
        operation: impl Future<Output = Result<T, CloseReason>>,
    ) -> Result<T, SendError> {
        let Seat { wire, side, host, .. } = &self.shared.seat;
        let after = host.limits.no_progress_timeout;
        let mut operation = std::pin::pin!(operation);
        let mut progress = wire.progress(*side);
        loop {
            if let Ok(result) = timeout(after, &mut operation).await {
                return result.map_err(SendError::Closed);
            }
            let now = wire.progress(*side);
            if now == progress && !wire.is_moving(*side) {
                return Err(SendError::TimedOut { after });
            }
            progress = now;
        }
    }
}

impl Shared {
    /// Closes the connection if `policy` does not trust its peer, and returns whether it did.
    pub(super) fn revoke(&self, policy: &TrustPolicy) -> bool {
        let Seat { wire, side, certificate, .. } = &self.seat;
        let is_revoked = policy.verify(certificate.as_ref()).is_err();
        if is_revoked {
            wire.close(*side, close_code::REVOKED, "no longer trusted");
        }
        is_revoked
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.seat.wire.close(self.seat.side, 0, "");
    }
}

#[async_trait]
impl NetConnection for MemoryConnection {
    fn local_addr(&self) -> SocketAddr {
        self.shared.seat.local_addr
    }

    fn remote_addr(&self) -> SocketAddr {
        self.shared.seat.remote_addr
    }

    fn local_identity(&self) -> &str {
        &self.shared.seat.local_identity
    }

    fn remote_identity(&self) -> &str {
        &self.shared.remote_identity
    }

    fn peer_identity(&self) -> &PeerIdentity {
        &self.shared.seat.peer
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        self.shared.seat.certificate.clone()
    }

    fn alpn_negotiated(&self) -> &str {
        &self.shared.seat.alpn
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        let frame = self.frame(parts)?;
        let Seat { wire, side, .. } = &self.shared.seat;
        self.unless_stuck(wire.push(*side, frame)).await
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let frame = self.frame(&[message])?;
        let Seat { wire, side, .. } = &self.shared.seat;
        match wire.try_push(*side, &frame) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::WouldBlock),
            Err(reason) => Err(SendError::Closed(reason)),
        }
    }

    async fn flush(&self) -> Result<(), SendError> {
        let Seat { wire, side, .. } = &self.shared.seat;
        self.unless_stuck(wire.delivered(*side)).await
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.take(*side).await
    }

    async fn close(&self, code: u64, reason: &str) {
        let Seat { wire, side, .. } = &self.shared.seat;
        let is_first = {
            let mut closing = self.shared.closing.lock();
            let is_first = closing.is_none();
            closing.get_or_insert_with(|| CloseReason::Local { code, reason: reason.to_owned() });
            is_first
        };
        if is_first {
            let _close = CloseOnDrop { wire, side: *side, code, reason };
            let _ = self.flush().await; // a stuck peer is abandoned
        }
        wire.over(*side).await;
    }

    async fn watch_close(&self) -> CloseReason {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.over(*side).await
    }
}

/// Closes the connection on drop, also when the future of `close` is cancelled.
struct CloseOnDrop<'a> {
    wire: &'a Wire,
    side: Side,
    code: u64,
    reason: &'a str,
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.wire.close(self.side, self.code, self.reason);
    }
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnection")
            .field("remote_addr", &self.shared.seat.remote_addr)
            .field("remote_identity", &self.shared.remote_identity)
            .finish_non_exhaustive()
    }
}
