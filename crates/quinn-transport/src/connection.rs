//! `QuinnConnection`: messages over one QUIC connection.

use crate::config::QuinnConfig;
use crate::core::Core;
use crate::lane::Lane;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use net_kit::admission::Place;
use net_kit::facts::ConnectionFacts;
use net_kit::frame;
use net_kit::guard::OnDrop;
use net_kit::handshake::Handshake;
use net_kit::progress::{Stuck, unless_stuck};
use net_kit::registry::{Entry, Member, Registry};
use net_kit::telemetry::Origin;
use net_traits::{CloseReason, MessageStatistics, NetConnection, RecvError, SendError};
use quinn::Connection;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A connection of [`QuinnTransport`](crate::QuinnTransport).
#[derive(Clone)]
pub struct QuinnConnection {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    entry: Entry<Self>,
}

impl QuinnConnection {
    /// Wraps a connection after its handshake and starts its task. `place` is that of an accepted
    /// connection.
    pub(crate) fn start(
        (connection, facts): (Connection, ConnectionFacts),
        handshake: Handshake,
        (config, registry): (&Arc<QuinnConfig>, &Arc<Registry<Shared>>),
        revocations: u64,
        place: Option<Place>,
    ) -> Self {
        let core = Core::new(config.clone(), connection);
        let origin = if place.is_some() { Origin::Accepted } else { Origin::Dialled };
        let make = |entry| Shared { core: core.clone(), entry };
        let shared = registry.register(facts, origin, revocations, make);
        tokio::spawn(core.drive(handshake, place));
        Self { shared }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.shared.core
    }

    /// Returns how many messages were queued and delivered.
    pub fn message_statistics(&self) -> MessageStatistics {
        self.shared.entry.message_statistics()
    }

    /// Returns the span of the connection's events. Instrument tasks that work for the connection
    /// with it.
    pub fn span(&self) -> &tracing::Span {
        self.shared.entry.span()
    }

    /// Sends one message ahead of all queued messages and of the message in progress.
    ///
    /// Urgent messages use their own stream with a higher priority and keep their order among
    /// themselves. A peer with a full receive queue receives neither urgent nor other messages.
    /// Otherwise see [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or none of it.
    pub async fn send_urgent(&self, message: Bytes) -> Result<(), SendError> {
        self.queue(&[message], &self.shared.core.urgent).await
    }

    async fn queue(&self, parts: &[Bytes], lane: &Lane) -> Result<(), SendError> {
        let (size, mut pieces) = self.pieces(parts)?;
        match lane.try_push(&mut pieces) {
            Err(SendError::WouldBlock) => {
                let progress = self.shared.core.progress([lane].into_iter());
                self.unless_stuck(progress, lane.outbox.push(pieces)).await??;
            }
            result => result?,
        }
        self.shared.entry.sent(size);
        Ok(())
    }

    /// Returns the size of a message and the pieces to be written.
    fn pieces(&self, parts: &[Bytes]) -> Result<(usize, Vec<Bytes>), SendError> {
        let size = parts.iter().map(Bytes::len).sum();
        let limit = self.shared.core.config.max_message_size;
        let pieces = frame::encode(parts).filter(|_| size <= limit);
        Ok((size, pieces.ok_or(SendError::TooLarge { size, limit })?))
    }

    /// Waits for `operation` as long as the peer takes data.
    async fn unless_stuck<T>(
        &self,
        progress: impl net_kit::progress::Progress,
        operation: impl Future<Output = T>,
    ) -> Result<T, SendError> {
        let limit = self.shared.core.config.no_progress_timeout;
        let stuck = unless_stuck(limit, progress, operation).await;
        stuck.map_err(|Stuck(after)| SendError::TimedOut { after })
    }
}

impl From<Arc<Shared>> for QuinnConnection {
    fn from(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Member for Shared {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn is_over(&self) -> bool {
        self.core.is_over()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.core.abort(code, reason);
    }

    async fn close(self: Arc<Self>, code: u64, reason: &str) {
        QuinnConnection { shared: self }.close(code, reason).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.abort(0, "");
    }
}

#[async_trait]
impl NetConnection for QuinnConnection {
    net_kit::facts_getters!(except addresses shared.entry.facts());

    fn local_addr(&self) -> SocketAddr {
        self.shared.entry.facts().local_addr()
    }

    fn remote_addr(&self) -> SocketAddr {
        self.shared.core.connection.remote_address() // the peer may have migrated
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        self.queue(parts, self.shared.core.lane()).await
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let (size, mut pieces) = self.pieces(&[message])?;
        self.shared.core.lane().try_push(&mut pieces)?;
        self.shared.entry.sent(size);
        Ok(())
    }

    async fn flush(&self) -> Result<(), SendError> {
        let core = &self.shared.core;
        let flushed = try_join_all(core.all_lanes().map(Lane::flushed));
        self.unless_stuck(core.progress(core.all_lanes()), flushed).await?.map(drop)
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let received = self.shared.core.recv().await;
        self.shared.entry.received(&received);
        received
    }

    async fn close(&self, code: u64, reason: &str) {
        let core = &self.shared.core;
        if core.close(code, reason) {
            let _close = OnDrop(|| core.abort(code, reason)); // also when it is cancelled
            // Without progress, the peer is abandoned.
            let _ = self.unless_stuck(core.progress(core.all_lanes()), core.over()).await;
        }
        core.over().await;
    }

    fn abort(&self, code: u64, reason: &str) {
        self.shared.core.abort(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        self.shared.core.over().await
    }
}

impl fmt::Debug for QuinnConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.entry.facts().debug("QuinnConnection", f)
    }
}
