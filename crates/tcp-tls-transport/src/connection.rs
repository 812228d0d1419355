//! `TcpTlsConnection`: messages over one TCP connection.

use crate::core::Core;
use crate::driver;
use crate::handshake::{Parties, Secured};
use crate::record::{self, MAX_MESSAGE};
use crate::transport::Context;
use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{
    CertificateDer, CloseReason, NetConnection, PeerIdentity, RecvError, SendError, TrustPolicy,
    close_code,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Factor for the timeout while the system's socket holds all data and progress is not visible.
const UNSEEN: u32 = 10;

/// A connection of [`TcpTlsTransport`](crate::TcpTlsTransport).
#[derive(Clone)]
pub struct TcpTlsConnection {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    core: Arc<Core>,
    local_addr: SocketAddr,
    remote_addr: SocketAddr,
    local_identity: String,
    remote_identity: String,
    peer: PeerIdentity,
    certificate: CertificateDer<'static>,
    alpn: String,
}

impl TcpTlsConnection {
    /// Wraps a connection after its handshake and starts the task that drives it.
    pub(crate) fn start(
        secured: Secured,
        local_addr: SocketAddr,
        parties: Parties,
        context: &Context,
        revocations: u64,
    ) -> Self {
        let Secured { stream, peer, certificate, alpn, place } = secured;
        let core = Core::new(context.config.clone());
        let shared = Arc::new(Shared {
            core: core.clone(),
            local_addr,
            remote_addr: parties.remote_addr,
            local_identity: parties.local_identity.to_string(),
            remote_identity: peer.hash.to_string(),
            peer,
            certificate,
            alpn,
        });
        context.know(&shared, revocations);
        tokio::spawn(driver::drive(core, stream, parties, place));
        Self { shared }
    }

    fn pieces(&self, parts: &[Bytes]) -> Result<Vec<Bytes>, SendError> {
        let size = parts.iter().map(Bytes::len).sum();
        let limit = self.shared.core.config.max_message_size.min(MAX_MESSAGE);
        record::message(parts).filter(|_| size <= limit).ok_or(SendError::TooLarge { size, limit })
    }

    /// Waits for `operation` as long as the socket makes progress.
    async fn unless_stuck<T>(
        &self,
        operation: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let core = &self.shared.core;
        let after = core.config.no_progress_timeout;
        let mut operation = std::pin::pin!(operation);
        let (mut progress, mut still) = (core.progress(), 0);
        loop {
            if let Ok(result) = timeout(after, &mut operation).await {
                return result;
            }
            let now = core.progress();
            still = if now == progress { still + 1 } else { 0 };
            let patience = if core.has_written_all() { UNSEEN } else { 1 };
            if still >= patience {
                return Err(SendError::TimedOut { after });
            }
            progress = now;
        }
    }
}

impl Shared {
    /// Closes the connection if `policy` does not trust its peer, and returns whether it did.
    pub(crate) fn revoke(&self, policy: &TrustPolicy) -> bool {
        if self.core.is_over() || policy.verify(Some(&self.certificate)).is_ok() {
            return false;
        }
        self.core.close_now(close_code::REVOKED, "no longer trusted");
        true
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.close_now(0, "");
    }
}

#[async_trait]
impl NetConnection for TcpTlsConnection {
    fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    fn remote_addr(&self) -> SocketAddr {
        self.shared.remote_addr
    }

    fn local_identity(&self) -> &str {
        &self.shared.local_identity
    }

    fn remote_identity(&self) -> &str {
        &self.shared.remote_identity
    }

    fn peer_identity(&self) -> &PeerIdentity {
        &self.shared.peer
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        Some(self.shared.certificate.clone())
    }

    fn alpn_negotiated(&self) -> &str {
        &self.shared.alpn
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        let mut pieces = self.pieces(parts)?;
        match self.shared.core.try_push(&mut pieces) {
            Err(SendError::WouldBlock) => self.unless_stuck(self.shared.core.push(pieces)).await,
            result => result,
        }
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        self.shared.core.try_push(&mut self.pieces(&[message])?)
    }

    async fn flush(&self) -> Result<(), SendError> {
        self.unless_stuck(self.shared.core.flushed()).await
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        self.shared.core.recv().await
    }

    async fn close(&self, code: u64, reason: &str) {
        let core = &self.shared.core;
        if core.close(code, reason) {
            let _close = CloseNowOnDrop { core, code, reason };
            let over = async {
                core.over().await;
                Ok(())
            };
            let _ = self.unless_stuck(over).await; // a peer that makes no progress is abandoned
        }
        core.over().await;
    }

    async fn watch_close(&self) -> CloseReason {
        self.shared.core.over().await
    }
}

/// Closes the connection on drop, also when the future of `close` is cancelled.
struct CloseNowOnDrop<'a> {
    core: &'a Core,
    code: u64,
    reason: &'a str,
}

impl Drop for CloseNowOnDrop<'_> {
    fn drop(&mut self) {
        self.core.close_now(self.code, self.reason);
    }
}

impl fmt::Debug for TcpTlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTlsConnection")
            .field("remote_addr", &self.shared.remote_addr)
            .field("remote_identity", &self.shared.remote_identity)
            .finish_non_exhaustive()
    }
}
