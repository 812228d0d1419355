//! `TcpTlsConnection`: messages over one TCP connection.

use crate::config::TcpTlsConfig;
use crate::core::Core;
use crate::driver;
use crate::handshake::Secured;
use crate::record::{self, MAX_MESSAGE};
use crate::requests::Accepted;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_kit::admission::Place;
use net_kit::guard::OnDrop;
use net_kit::handshake::Handshake;
use net_kit::progress::{Stuck, unless_stuck};
use net_kit::registry::{Entry, Member, Registry};
use net_kit::telemetry::Origin;
use net_traits::{
    CloseReason, MessageStatistics, NetConnection, NetQuestion, NetRequests, RecvError,
    RequestError, SendError, request_code,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A connection of [`TcpTlsTransport`](crate::TcpTlsTransport).
#[derive(Clone)]
pub struct TcpTlsConnection {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    core: Arc<Core>,
    entry: Entry<Self>,
}

impl TcpTlsConnection {
    /// Wraps a connection after its handshake and starts the task that drives it. `place` is that
    /// of an accepted connection.
    pub(crate) fn start(
        Secured { stream, facts, has_requests }: Secured,
        handshake: Handshake,
        (config, registry): (&Arc<TcpTlsConfig>, &Arc<Registry<Shared>>),
        revocations: u64,
        place: Option<Place>,
    ) -> Self {
        let core = Core::new(config.clone(), has_requests);
        let origin = if place.is_some() { Origin::Accepted } else { Origin::Dialled };
        let make = |entry| Shared { core: core.clone(), entry };
        let shared = registry.register(facts, origin, revocations, make);
        tokio::spawn(driver::drive(core, stream, handshake, place));
        Self { shared }
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { shared }
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

    /// Returns the size of a message and the pieces to be written.
    fn pieces(&self, parts: &[Bytes]) -> Result<(usize, Vec<Bytes>), SendError> {
        let size = parts.iter().map(Bytes::len).sum();
        let limit = self.shared.core.config.max_message_size.min(MAX_MESSAGE);
        let pieces = record::message(parts).filter(|_| size <= limit);
        Ok((size, pieces.ok_or(SendError::TooLarge { size, limit })?))
    }

    /// Waits for `operation` as long as the socket makes progress.
    async fn unless_stuck<T>(&self, operation: impl Future<Output = T>) -> Result<T, SendError> {
        let Core { config, outbox, .. } = &*self.shared.core;
        let stuck = unless_stuck(config.no_progress_timeout, || outbox.look(), operation).await;
        stuck.map_err(|Stuck(after)| SendError::TimedOut { after })
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
        self.core.close_now(code, reason);
    }

    async fn close(self: Arc<Self>, code: u64, reason: &str) {
        TcpTlsConnection { shared: self }.close(code, reason).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.core.close_now(0, "");
    }
}

#[async_trait]
impl NetConnection for TcpTlsConnection {
    net_kit::facts_getters!(shared.entry.facts());

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        let (size, mut pieces) = self.pieces(parts)?;
        let outbox = &self.shared.core.outbox;
        match outbox.try_push(&mut pieces) {
            Err(SendError::WouldBlock) => self.unless_stuck(outbox.push(pieces)).await??,
            result => result?,
        }
        self.shared.entry.sent(size);
        Ok(())
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let (size, mut pieces) = self.pieces(&[message])?;
        self.shared.core.outbox.try_push(&mut pieces)?;
        self.shared.entry.sent(size);
        Ok(())
    }

    async fn flush(&self) -> Result<(), SendError> {
        self.unless_stuck(self.shared.core.outbox.flushed()).await?
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let received = self.shared.core.recv().await;
        self.shared.entry.received(&received);
        received
    }

    async fn close(&self, code: u64, reason: &str) {
        let core = &self.shared.core;
        if core.close(code, reason) {
            let _close = OnDrop(|| core.close_now(code, reason)); // also when it is cancelled
            let _ = self.unless_stuck(core.over()).await; // without progress, the peer is abandoned
        }
        core.over().await;
    }

    fn abort(&self, code: u64, reason: &str) {
        self.shared.core.close_now(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        self.shared.core.over().await
    }
}

#[async_trait]
impl NetRequests for TcpTlsConnection {
    type Question = TcpTlsQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let core = &self.shared.core;
        let requests = core.requests.as_ref().ok_or(RequestError::Unsupported)?;
        let (size, limit) = (question.len(), core.config.max_request_size);
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        tokio::select! {
            biased;
            reason = core.over() => Err(RequestError::Closed(reason)),
            answer = timeout(deadline, requests.ask(&core.outbox, question)) => {
                answer.unwrap_or(Err(RequestError::TimedOut { after: deadline }))
            }
        }
    }

    async fn accept_request(&self) -> Result<TcpTlsQuestion, RequestError> {
        let core = &self.shared.core;
        let requests = core.requests.as_ref().ok_or(RequestError::Unsupported)?;
        tokio::select! {
            biased;
            reason = core.over() => Err(RequestError::Closed(reason)),
            accepted = requests.accept() => {
                Ok(TcpTlsQuestion { accepted, is_answering: false, is_ended: false, connection: self.clone() })
            }
        }
    }
}

/// A question of the peer, see [`NetQuestion`].
pub struct TcpTlsQuestion {
    accepted: Accepted,
    /// The answer is about to be queued.
    is_answering: bool,
    is_ended: bool,
    connection: TcpTlsConnection,
}

impl TcpTlsQuestion {
    /// Ends the question with a code, unless it has ended. Without room in the send queue the asker
    /// waits until its deadline.
    fn end(&mut self, code: u64) {
        let (core, id) = (&self.connection.shared.core, self.accepted.id);
        let is_open = core.requests.as_ref().is_some_and(|requests| requests.finish(id));
        if !std::mem::replace(&mut self.is_ended, true) && (is_open || self.is_answering) {
            let _ = core.outbox.try_push(&mut record::refusal(id, code));
        }
    }
}

#[async_trait]
impl NetQuestion for TcpTlsQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        if let Some(reason) = self.connection.watch_close().now_or_never() {
            return Err(RequestError::Closed(reason));
        }
        match self.accepted.asker.has_changed() {
            Ok(_) => Ok(self.accepted.question.clone()),
            Err(_) => Err(RequestError::Canceled),
        }
    }

    async fn answer(mut self, answer: Bytes) -> Result<(), RequestError> {
        let connection = self.connection.clone();
        let (core, id) = (&connection.shared.core, self.accepted.id);
        let (size, limit) = (answer.len(), core.config.max_request_size);
        if size > limit {
            self.end(request_code::TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        if let Some(reason) = connection.watch_close().now_or_never() {
            return Err(RequestError::Closed(reason));
        }
        // Its place is free before the asker learns the answer and asks again.
        if !core.requests.as_ref().is_some_and(|requests| requests.finish(id)) {
            return Err(RequestError::Canceled);
        }
        self.is_answering = true;
        let written = async {
            core.outbox.push(record::answer(id, answer)).await?;
            self.is_ended = true;
            core.outbox.flushed().await
        };
        let written = connection.unless_stuck(written).await.and_then(|written| written);
        written.map_err(record::request_error)
    }

    fn refuse(mut self, code: u64) {
        self.end(code);
    }

    async fn canceled(&self) {
        let mut asker = self.accepted.asker.clone();
        tokio::select! {
            () = async { while asker.changed().await.is_ok() {} } => {}
            _ = self.connection.watch_close() => {}
        }
    }
}

impl Drop for TcpTlsQuestion {
    fn drop(&mut self) {
        self.end(request_code::NO_ANSWER); // does nothing after an answer
    }
}

impl fmt::Debug for TcpTlsQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTlsQuestion").field("id", &self.accepted.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for TcpTlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.entry.facts().debug("TcpTlsConnection", f)
    }
}
