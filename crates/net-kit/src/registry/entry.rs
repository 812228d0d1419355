//! `Entry`: what a connection holds of its registry. Received data passes through it to the
//! application.

use super::{Live, Member, Registry, why_withdrawn};
use crate::admission::{self, HandshakeNumber};
use crate::facts::ConnectionFacts;
use crate::frame::Message;
use crate::inbox::Received;
use crate::memory_budget::Share;
use crate::statistics::sum;
use crate::telemetry::ConnectionTelemetry;
use crate::trust_expiry::Expiry;
use crate::violations::Violations;
use bytes::Bytes;
use net_traits::{
    CloseReason, DatagramError, Limit, MessageStatistics, RecvError, RequestError, close_code,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tracing::Span;

/// What a connection holds of its [`Registry`]: its facts and telemetry.
pub struct Entry<M> {
    pub(super) registry: Arc<Registry<M>>,
    pub(super) id: u64,
    /// The number of the handshake of an accepted connection.
    pub(super) handshake: Option<HandshakeNumber>,
    pub(super) facts: ConnectionFacts,
    pub(super) telemetry: Arc<ConnectionTelemetry>,
    pub(super) violations: Violations,
    pub(super) share: Arc<Share>,
    /// The code with which the connection was closed because its peer was no longer trusted.
    pub(super) withdrawn: OnceLock<u64>,
    /// The limit at which what the connection held was dropped.
    pub(super) emptied: OnceLock<Limit>,
    /// When trust ends; `None` if it does not end.
    pub(super) expiry: Option<Expiry>,
    pub(super) handles: AtomicUsize,
    /// The undelivered messages that were counted, and their bytes.
    pub(super) undelivered: Mutex<(u64, u64)>,
}

impl<M: Member> Entry<M> {
    /// Returns what does not change during the connection.
    pub fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    /// Returns the span of the connection.
    pub fn span(&self) -> &Span {
        self.telemetry.span()
    }

    /// Returns the telemetry of the connection. Keep a clone until the connection has ended, and
    /// then call [`closed`](ConnectionTelemetry::closed).
    pub fn telemetry(&self) -> &Arc<ConnectionTelemetry> {
        &self.telemetry
    }

    /// Returns the connection's share of the transport's memory budget.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Returns how many messages were queued and delivered.
    pub fn message_statistics(&self) -> MessageStatistics {
        self.telemetry.messages()
    }

    /// Counts a message that was queued.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.sent_many(1, bytes);
    }

    /// Counts several messages that were queued, and their bytes.
    #[inline]
    pub fn sent_many(&self, messages: usize, bytes: usize) {
        if messages == 0 {
            return;
        }
        self.telemetry.sent(messages, bytes);
    }

    /// Returns whether the peer is trusted: it was not revoked, and its trust has not ended.
    #[inline]
    pub fn is_trusted(&self) -> bool {
        self.withdrawn.get().is_none()
    }

    /// Counts what `recv` returns to the application, and returns it if the peer is trusted. Closes
    /// the connection if the peer has announced too many messages beyond the limit.
    ///
    /// # Errors
    ///
    /// `received`; or [`RecvError::Closed`] with [`REVOKED`](close_code::REVOKED) or
    /// [`TRUST_ENDED`](close_code::TRUST_ENDED) instead of a message, or with the limit at which messages
    /// were dropped instead of the reason of the end.
    #[inline]
    pub fn hand_out(&self, received: Received) -> Received {
        if let Some(reason) = self.why_withdrawn() {
            return Err(match received {
                Err(closed @ RecvError::Closed(_)) => closed,
                _ => RecvError::Closed(reason),
            });
        }
        match &received {
            Ok((message, _)) => {
                self.telemetry.received(1, message.len());
            }
            Err(RecvError::TooLarge { .. }) => {
                self.registry.refused_messages.fetch_add(1, Ordering::Relaxed);
                self.telemetry.message_refused();
                if self.violations.add() {
                    self.close_violator();
                }
            }
            Err(RecvError::Closed(_)) => {
                if let Some(limit) = self.emptied.get() {
                    return Err(RecvError::Closed(admission::close_reason(*limit)));
                }
            }
            Err(_) => {}
        }
        received
    }

    /// Counts and returns what `recv_many` has appended to `messages`, as [`hand_out`](Self::hand_out)
    /// does, and removes it if the peer is not trusted.
    ///
    /// # Errors
    ///
    /// See [`hand_out`](Self::hand_out).
    pub fn hand_out_many(
        &self,
        received: Result<usize, RecvError>,
        messages: &mut Vec<Message>,
    ) -> Result<usize, RecvError> {
        let count = match received {
            Ok(count) => count,
            Err(error) => return self.hand_out(Err(error)).map(|_| 0),
        };
        let first = messages.len() - count;
        if let Some(reason) = self.why_withdrawn() {
            messages.truncate(first);
            return Err(RecvError::Closed(reason));
        }
        let bytes = messages[first..].iter().map(|(message, _)| message.len()).sum();
        self.telemetry.received(count, bytes);
        Ok(count)
    }

    /// Returns a question or an answer for the application, if the peer is trusted.
    ///
    /// # Errors
    ///
    /// `received`; or [`RequestError::Closed`] instead of the question or answer, as in
    /// [`hand_out`](Self::hand_out).
    pub fn hand_out_request<T>(
        &self,
        received: Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        self.if_trusted(received, RequestError::Closed)
    }

    /// Returns a datagram for the application, if the peer is trusted. Call it after the datagram
    /// was taken from the queue.
    ///
    /// # Errors
    ///
    /// `received`; or [`DatagramError::Closed`] instead of the datagram, as in
    /// [`hand_out`](Self::hand_out).
    pub fn hand_out_datagram(
        &self,
        received: Result<Bytes, DatagramError>,
    ) -> Result<Bytes, DatagramError> {
        self.if_trusted(received, DatagramError::Closed)
    }

    fn if_trusted<T, E>(
        &self,
        received: Result<T, E>,
        closed: impl FnOnce(CloseReason) -> E,
    ) -> Result<T, E> {
        match (received, self.why_withdrawn()) {
            (Ok(_), Some(reason)) => Err(closed(reason)),
            (received, _) => received,
        }
    }

    pub(super) fn why_withdrawn(&self) -> Option<CloseReason> {
        let code = *self.withdrawn.get()?;
        Some(CloseReason::Local { code, reason: why_withdrawn(code).to_owned() })
    }

    /// Counts messages, and their bytes, that the peer has not received, at most, now that the connection
    /// has ended. Of several calls the largest number counts.
    pub fn undelivered(&self, (messages, bytes): (u64, u64)) {
        let (messages, bytes) = {
            let counted = &mut *self.undelivered.lock();
            let before = *counted;
            *counted = (before.0.max(messages), before.1.max(bytes));
            (counted.0 - before.0, counted.1 - before.1)
        };
        if messages > 0 {
            self.registry.undelivered_messages.fetch_add(messages, Ordering::Relaxed);
            self.registry.undelivered_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.telemetry.undelivered(messages, bytes);
        }
    }

    fn close_violator(&self) {
        let member = self.registry.state.lock().live.get(&self.id).and_then(Live::upgrade);
        if let Some(member) = member {
            let code = close_code::TOO_MANY_VIOLATIONS;
            member.abort(code, close_code::name(code).unwrap_or_default());
        }
    }
}

impl<M> Drop for Entry<M> {
    fn drop(&mut self) {
        let idle = {
            let state = &mut *self.registry.state.lock();
            state.live.remove(&self.id);
            state.past = sum(state.past, self.telemetry.messages());
            if let Some(handshake) = self.handshake
                && let Some(of_peer) = state.accepted.get_mut(&self.facts.peer().hash)
            {
                of_peer.remove(&handshake);
                if of_peer.is_empty() {
                    state.accepted.remove(&self.facts.peer().hash);
                }
            }
            if let Some(expiry) = self.expiry {
                state.trust_expiry.remove(self.id, expiry);
            }
            state.live.is_empty().then(|| std::mem::take(&mut state.tasks))
        };
        drop(idle); // the next connection starts the tasks again
    }
}
