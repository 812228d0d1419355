//! `ConnectionTelemetry`: reports the events and metrics of one connection.

use super::vocabulary::{CONNECTION, LIMIT};
use super::{Origin, PREFIX, Telemetry, cause};
use crate::facts::ConnectionFacts;
use crate::rate_limit::RateLimit;
use crate::statistics::{MessageCounters, since};
use net_traits::{CloseReason, MessageStatistics};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::Span;

/// After how many messages in one direction the counts of a connection are added to the metrics:
/// calling the recorder for each message would cost more than the counters of the connection.
const PUBLISH_INTERVAL: u64 = 64;

/// Whether one of `count` messages after the first `before` is the first of a
/// [`PUBLISH_INTERVAL`].
fn is_sampled(before: u64, count: usize) -> bool {
    before.next_multiple_of(PUBLISH_INTERVAL) < before + count as u64
}

/// A measurement of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// The smoothed round-trip time, if it is known.
    pub rtt: Option<Duration>,
    /// The packets sent since the connection began; 0 if it is not known.
    pub packets_sent: u64,
    /// How many of these packets were lost.
    pub packets_lost: u64,
    /// The bytes in the send queues.
    pub queued: u64,
}

/// The span, the counters and the end of one connection.
///
/// It outlives the handles: the transport keeps it until the connection has ended, and then calls
/// [`closed`](Self::closed). If it is dropped before, the connection counts as abandoned.
pub struct ConnectionTelemetry {
    telemetry: Telemetry,
    span: Span,
    since: Instant,
    messages: MessageCounters,
    /// The counts that were added to the metrics.
    #[cfg(feature = "metrics")]
    published: MessageCounters,
    /// The packets that were sent and lost until the last sample.
    packets: [AtomicU64; 2],
    has_ended: AtomicBool,
}

impl ConnectionTelemetry {
    /// Reports that a connection was established.
    pub(crate) fn opened(telemetry: Telemetry, facts: &ConnectionFacts, origin: Origin) -> Self {
        let (transport, remote) = (telemetry.transport, facts.remote_addr());
        let peer = &facts.remote_identity()[..PREFIX];
        let direction = origin.direction();
        let span = tracing::info_span!(
            target: CONNECTION, "connection", peer, %remote, direction, transport
        );
        telemetry.opened(origin);
        let this = Self {
            telemetry,
            span,
            since: Instant::now(),
            messages: MessageCounters::default(),
            #[cfg(feature = "metrics")]
            published: MessageCounters::default(),
            packets: Default::default(),
            has_ended: AtomicBool::new(false),
        };
        this.emit(&this.telemetry.rate_limits.connected, |suppressed| {
            tracing::debug!(target: CONNECTION, suppressed, "connected");
        });
        this
    }

    /// Calls `event` inside the span with how many events of its kind were suppressed before,
    /// unless this one is suppressed too.
    fn emit(&self, limit: &RateLimit, event: impl FnOnce(u64)) {
        if let Some(suppressed) = limit.take() {
            self.span.in_scope(|| event(suppressed));
        }
    }

    /// Returns the span of the connection.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Returns how many messages were queued and delivered.
    pub fn messages(&self) -> MessageStatistics {
        self.messages.read()
    }

    /// Reports that the handshake resumed an earlier session.
    pub fn resumed(&self) {
        self.emit(&self.telemetry.rate_limits.session_resumed, |suppressed| {
            tracing::debug!(target: CONNECTION, suppressed, "session resumed");
        });
        self.telemetry.resumed();
    }

    /// Reports that this side begins to close.
    pub fn closing(&self, code: u64, reason: &str) {
        self.emit(&self.telemetry.rate_limits.closing, |suppressed| {
            tracing::debug!(target: CONNECTION, code, reason, suppressed, "closing");
        });
    }

    /// Reports the end of the connection. Further calls do nothing.
    pub fn closed(&self, reason: &CloseReason) {
        let (code, text) = match reason {
            CloseReason::Local { code, reason } | CloseReason::Peer { code, reason } => {
                (Some(*code), reason.clone())
            }
            reason => (None, net_traits::WithCauses(reason).to_string()),
        };
        self.end(cause::of_close(reason), code, &text);
    }

    /// Reports that the end is not known, because the runtime of the connection was shut down.
    pub fn abandoned(&self) {
        self.end(cause::ABANDONED, None, "");
    }

    fn end(&self, cause: &'static str, code: Option<u64>, reason: &str) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (took, messages) = (self.since.elapsed(), self.messages.read());
        self.emit(&self.telemetry.rate_limits.closed, |suppressed| {
            tracing::debug!(
                target: CONNECTION,
                cause,
                code,
                reason,
                seconds = took.as_secs_f64(),
                messages_sent = messages.messages_sent,
                bytes_sent = messages.bytes_sent,
                messages_received = messages.messages_received,
                bytes_received = messages.bytes_received,
                suppressed,
                "closed"
            );
        });
        self.publish();
        self.telemetry.closed(cause, took);
    }

    /// Reports that the connection has ended before the peer confirmed all messages.
    pub(crate) fn undelivered(&self, messages: u64, bytes: u64) {
        self.emit(&self.telemetry.rate_limits.undelivered, |suppressed| {
            tracing::debug!(
                target: CONNECTION, messages, bytes, suppressed, "messages undelivered"
            );
        });
        self.telemetry.undelivered(messages, bytes);
    }

    /// Reports that the connection is closed because its peer is no longer trusted.
    pub(crate) fn revoked(&self) {
        self.emit(&self.telemetry.rate_limits.revoked, |suppressed| {
            tracing::info!(target: CONNECTION, suppressed, "revoked: no longer trusted");
        });
        self.telemetry.revoked();
    }

    /// Counts messages that were queued.
    #[inline]
    pub(crate) fn sent(&self, messages: usize, bytes: usize) {
        if is_sampled(self.messages.sent_many(messages, bytes), messages) {
            self.publish();
            self.telemetry.sent(bytes / messages);
        }
    }

    /// Counts messages that were delivered to the application.
    #[inline]
    pub(crate) fn received(&self, messages: usize, bytes: usize) {
        if is_sampled(self.messages.received_many(messages, bytes), messages) {
            self.publish();
            self.telemetry.received(bytes / messages);
        }
    }

    /// Adds what was counted since the last call to the metrics.
    #[cold]
    pub(crate) fn publish(&self) {
        #[cfg(feature = "metrics")]
        self.telemetry.messages(&self.messages.since(&self.published));
    }

    /// Reports a measurement of the connection.
    pub(crate) fn sampled(&self, sample: &Sample) {
        let Sample { rtt, packets_sent, packets_lost, queued } = *sample;
        self.span.in_scope(|| {
            let rtt = rtt.map(|rtt| rtt.as_secs_f64());
            tracing::trace!(target: CONNECTION, rtt, packets_sent, packets_lost, queued, "sample");
        });
        let [sent, lost] = &self.packets;
        // The number of lost packets decreases when a packet that was declared lost is
        // acknowledged.
        self.telemetry.sampled(sample, since(sent, packets_sent), since(lost, packets_lost));
    }

    /// Reports that the peer announced a message that exceeds the limit.
    pub(crate) fn message_refused(&self) {
        self.emit(&self.telemetry.rate_limits.message_refused, |suppressed| {
            tracing::info!(target: LIMIT, suppressed, "a received message exceeds the limit");
        });
        self.telemetry.message_refused();
    }
}

impl Drop for ConnectionTelemetry {
    fn drop(&mut self) {
        self.abandoned();
        self.publish(); // messages that were received after the end
    }
}

impl fmt::Debug for ConnectionTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionTelemetry").field("span", &self.span).finish_non_exhaustive()
    }
}
