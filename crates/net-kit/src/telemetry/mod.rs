//! Telemetry for operators: spans and events of `tracing`, and, with the feature `metrics`, metrics
//! of the facade of that name.
//!
//! All transports use the same names, which `docs/observability.md` lists: [`EVENTS`] and
//! [`METRICS`]. Events and spans have a target that begins with `net::`, and metrics the label
//! `transport`. No label names a peer.
//!
//! Each attempt, of a peer at a listener (`in`) or of this side (`out`), has one outcome: a
//! connection, a refusal by a [`Limit`], or a failed handshake; see [`Attempt`]. A connection is
//! reported once as open and once as closed, see [`ConnectionTelemetry`].
//!
//! Events that peers can cause are limited to 20 of each kind per second and transport, also those
//! of connections, since a peer can reconnect all the time. The field `suppressed` of the next
//! event says how many were left out. Metrics count all.
//!
//! Subscribers and recorders are called in tasks of the application, and on msquic's threads when
//! one of its connections ends: they must not block. Install the recorder before the transport is
//! created, since the metrics are looked up then.

mod attempt;
mod cause;
mod connection;
#[cfg(feature = "metrics")]
mod metrics;
mod peers;
#[cfg(test)]
pub(crate) mod tests;
mod vocabulary;

pub use attempt::Attempt;
pub use connection::{ConnectionTelemetry, Sample};
pub use peers::{FallbackPath, FallbackTelemetry, PoolTelemetry};
pub use vocabulary::{EVENTS, Event, METRICS, Metric, MetricKind, MetricUnit};

use crate::rate_limit::RateLimit;
use net_traits::Limit;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use vocabulary::{CONNECTION, HANDSHAKE, LIMIT};

/// How many hexadecimal digits of an identity are shown.
const PREFIX: usize = 8;

/// Which side opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This side.
    Dialled,
    /// The peer.
    Accepted,
}

impl Origin {
    fn direction(self) -> &'static str {
        match self {
            Self::Dialled => "out",
            Self::Accepted => "in",
        }
    }
}

/// The events and metrics of one transport.
#[derive(Clone)]
pub struct Telemetry {
    transport: &'static str,
    rate_limits: Arc<RateLimits>,
    #[cfg(feature = "metrics")]
    metrics: Arc<metrics::Metrics>,
}

/// Rate limits of events that peers can cause.
#[derive(Default)]
struct RateLimits {
    cannot_accept: RateLimit,
    refused: RateLimit,
    kept: RateLimit,
    handshake_failed: RateLimit,
    message_refused: RateLimit,
    connected: RateLimit,
    session_resumed: RateLimit,
    closing: RateLimit,
    closed: RateLimit,
    undelivered: RateLimit,
    revoked: RateLimit,
}

impl Telemetry {
    /// Creates the telemetry of the transport with that name, such as `quic`.
    pub fn new(transport: &'static str) -> Self {
        Self {
            transport,
            rate_limits: Arc::default(),
            #[cfg(feature = "metrics")]
            metrics: metrics::Metrics::new(transport).into(),
        }
    }

    /// Begins an attempt. `remote` is `None` if it is not known yet.
    pub fn attempt(&self, remote: impl Into<Option<SocketAddr>>, origin: Origin) -> Attempt {
        Attempt::new(self.clone(), remote.into(), origin)
    }

    /// Returns whether a recorder was installed before the transport was made.
    pub fn has_recorder(&self) -> bool {
        #[cfg(feature = "metrics")]
        return self.metrics.has_recorder;
        #[cfg(not(feature = "metrics"))]
        false
    }

    /// Counts attempts that found no listener with one of their protocols, where the listeners are not told.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only a metric"))]
    pub fn without_protocol(&self, attempts: u64) {
        #[cfg(feature = "metrics")]
        self.metrics.without_protocol(attempts);
    }

    /// Reports that the system did not let a listener accept.
    pub(crate) fn cannot_accept(&self, error: &io::Error) {
        let transport = self.transport;
        if let Some(suppressed) = self.rate_limits.cannot_accept.take() {
            tracing::warn!(target: LIMIT, %error, transport, suppressed, "a listener cannot accept");
        }
        #[cfg(feature = "metrics")]
        self.metrics.accept_errors.increment(1);
    }

    /// Returns whether a recorder or a subscriber wants [`Sample`]s.
    pub(crate) fn wants_samples(&self) -> bool {
        self.has_recorder() || tracing::enabled!(target: CONNECTION, tracing::Level::TRACE)
    }

    /// Reports that a limit ended an attempt or a connection.
    pub(crate) fn refused(&self, remote: SocketAddr, limit: Limit) {
        let transport = self.transport;
        if let Some(suppressed) = self.rate_limits.refused.take() {
            tracing::info!(target: LIMIT, %remote, ?limit, transport, suppressed, "refused");
        }
        #[cfg(feature = "metrics")]
        self.metrics.refused(limit);
    }

    /// Reports that so many connections that have ended still occupy memory, more than may be open.
    pub(crate) fn kept(&self, connections: usize) {
        let transport = self.transport;
        if let Some(suppressed) = self.rate_limits.kept.take() {
            tracing::warn!(target: LIMIT, connections, transport, suppressed, "ended connections occupy memory");
        }
    }

    fn handshake_failed(
        &self,
        remote: Option<SocketAddr>,
        origin: Origin,
        error: &dyn fmt::Display,
        (cause, detail): (&'static str, &'static str),
    ) {
        let (transport, direction) = (self.transport, origin.direction());
        if let Some(suppressed) = self.rate_limits.handshake_failed.take() {
            let remote = remote.map(tracing::field::display);
            tracing::debug!(
                target: HANDSHAKE,
                remote,
                %error,
                cause,
                detail,
                direction,
                transport,
                suppressed,
                "handshake failed"
            );
        }
        #[cfg(feature = "metrics")]
        self.metrics.handshake_failed(direction, cause, detail);
    }
}

/// Metrics without events.
#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, clippy::unused_self, reason = "only metrics")
)]
impl Telemetry {
    fn handshake_took(&self, origin: Origin, took: Duration) {
        #[cfg(feature = "metrics")]
        self.metrics.handshake_took(origin, took);
    }

    fn opened(&self, origin: Origin) {
        #[cfg(feature = "metrics")]
        self.metrics.opened(origin);
    }

    /// Counts a sample, and the packets that were sent and lost since the one before.
    fn sampled(&self, sample: &Sample, sent: u64, lost: u64) {
        #[cfg(feature = "metrics")]
        self.metrics.sampled(sample, sent, lost);
    }

    fn resumed(&self) {
        #[cfg(feature = "metrics")]
        self.metrics.resumed.increment(1);
    }

    fn message_refused(&self) {
        #[cfg(feature = "metrics")]
        self.metrics.messages_refused.increment(1);
    }

    fn revoked(&self) {
        #[cfg(feature = "metrics")]
        self.metrics.revoked.increment(1);
    }

    fn closed(&self, cause: &'static str, took: Duration) {
        #[cfg(feature = "metrics")]
        self.metrics.closed(cause, took);
    }

    fn undelivered(&self, messages: u64, bytes: u64) {
        #[cfg(feature = "metrics")]
        {
            self.metrics.messages_undelivered.increment(messages);
            self.metrics.bytes_undelivered.increment(bytes);
        }
    }

    /// Records the size of a message that was queued.
    fn sent(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.metrics.sent.size.record(bytes as f64);
    }

    /// Records the size of a message that was delivered.
    fn received(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.metrics.received.size.record(bytes as f64);
    }

    #[cfg(feature = "metrics")]
    fn messages(&self, counts: &net_traits::MessageStatistics) {
        self.metrics.sent.count(counts.messages_sent, counts.bytes_sent);
        self.metrics.received.count(counts.messages_received, counts.bytes_received);
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Telemetry").field(&self.transport).finish()
    }
}

/// Registers the kind, the unit and the description of all metrics with the recorder.
fn describe() {
    #[cfg(feature = "metrics")]
    metrics::describe();
}
