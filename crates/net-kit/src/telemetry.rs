//! What operators see: spans and events of `tracing`, and counters of `metrics` with that feature.
//!
//! All transports use the same names, and say which transport it is: spans and events of refused
//! attempts in the field `transport`, counters in the label `transport`.
//!
//! | counter | label | counts |
//! |---|---|---|
//! | `net_connections_opened`, `net_connections_closed` | | connections; closed when the last handle is dropped |
//! | `net_connections_resumed` | | opened connections whose handshake resumed an earlier session |
//! | `net_connections_refused` | `limit` | attempts beyond a [`Limit`] |
//! | `net_connections_revoked` | | connections closed because their peer is no longer trusted |
//! | `net_handshakes_failed` | `direction`, `cause` | attempts that failed: those of peers with a listener (`in`) and the own ones (`out`), by [`cause`] |
//! | `net_messages_sent`, `net_messages_received` | | messages queued, messages delivered |
//! | `net_bytes_sent`, `net_bytes_received` | | their bytes, without headers |
//! | `net_messages_refused` | | announced messages that exceeded the limit |
//!
//! What strangers can cause (refusals, failed handshakes, refused messages) gets at most 20 lines of each
//! kind a second, for all connections of a transport; the field `suppressed` of the next line says how many
//! were left out. Counters count all.
//!
//! The counters are looked up once, when the transport is made: install the recorder before.

use crate::facts::ConnectionFacts;
use crate::quota::Quota;
use net_traits::{ConnectError, Limit, RejectionBy, WithCauses};
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::Span;

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

/// Returns the name of the kind of a failure, for the field and the label `cause`.
pub fn cause(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::InvalidInput(_) => "invalid_input",
        ConnectError::Credential(_) => "credential",
        ConnectError::TimedOut { .. } => "timed_out",
        ConnectError::Refused(_) => "refused",
        ConnectError::NoCommonAlpn { .. } => "no_common_alpn",
        ConnectError::Rejected(rejection) => match rejection.by {
            RejectionBy::Us => "rejected_by_us",
            _ => "rejected_by_peer",
        },
        ConnectError::Closed(_) => "closed",
        _ => "other",
    }
}

/// The events and counters of one transport.
#[derive(Clone)]
pub struct Telemetry {
    transport: &'static str,
    quotas: Arc<Quotas>,
    #[cfg(feature = "metrics")]
    counters: Arc<Counters>,
}

/// Of the lines that strangers can cause.
#[derive(Default)]
struct Quotas {
    refused: Quota,
    handshake_failed: Quota,
    message_refused: Quota,
}

impl Telemetry {
    /// Creates the telemetry of the transport with that name, such as `quic`.
    pub fn new(transport: &'static str) -> Self {
        Self {
            transport,
            quotas: Arc::default(),
            #[cfg(feature = "metrics")]
            counters: Counters::new(transport).into(),
        }
    }

    /// Creates the span of a connection.
    pub fn connection_span(&self, facts: &ConnectionFacts, origin: Origin) -> Span {
        let (transport, remote) = (self.transport, facts.remote_addr());
        let peer = &facts.remote_identity()[..PREFIX];
        let direction = origin.direction();
        tracing::info_span!("connection", peer, %remote, direction, transport)
    }

    /// A connection was established.
    pub fn opened(&self, span: &Span) {
        span.in_scope(|| tracing::debug!("connected"));
        #[cfg(feature = "metrics")]
        self.counters.opened.increment(1);
    }

    /// The handshake of a connection resumed an earlier session.
    pub fn resumed(&self, span: &Span) {
        span.in_scope(|| tracing::debug!("session resumed"));
        #[cfg(feature = "metrics")]
        self.counters.resumed.increment(1);
    }

    /// The last handle of a connection was dropped.
    pub fn closed(&self, span: &Span) {
        span.in_scope(|| tracing::debug!("closed"));
        #[cfg(feature = "metrics")]
        self.counters.closed.increment(1);
    }

    /// A connection attempt exceeded a limit.
    pub fn refused(&self, remote: SocketAddr, limit: Limit) {
        let transport = self.transport;
        if let Some(suppressed) = self.quotas.refused.take() {
            tracing::info!(%remote, ?limit, transport, suppressed, "refused");
        }
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "net_connections_refused",
            "transport" => transport,
            "limit" => format!("{limit:?}")
        )
        .increment(1);
    }

    /// An attempt failed, of a peer at a listener or an own one.
    pub fn handshake_failed(&self, remote: SocketAddr, origin: Origin, error: &ConnectError) {
        let (transport, direction, cause) = (self.transport, origin.direction(), cause(error));
        if let Some(suppressed) = self.quotas.handshake_failed.take() {
            let error = WithCauses(error);
            tracing::debug!(
                %remote, %error, cause, direction, transport, suppressed, "handshake failed"
            );
        }
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "net_handshakes_failed",
            "transport" => transport,
            "direction" => direction,
            "cause" => cause
        )
        .increment(1);
    }

    /// A connection is closed because its peer is no longer trusted.
    pub fn revoked(&self, span: &Span) {
        span.in_scope(|| tracing::info!("revoked: no longer trusted"));
        #[cfg(feature = "metrics")]
        self.counters.revoked.increment(1);
    }

    /// A peer announced a message that exceeds the limit.
    pub fn message_refused(&self, span: &Span) {
        if let Some(suppressed) = self.quotas.message_refused.take() {
            span.in_scope(|| tracing::info!(suppressed, "a received message exceeds the limit"));
        }
        #[cfg(feature = "metrics")]
        self.counters.messages_refused.increment(1);
    }

    /// A message was queued.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only counters"))]
    #[inline]
    pub fn sent(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        {
            self.counters.messages_sent.increment(1);
            self.counters.bytes_sent.increment(bytes as u64);
        }
    }

    /// A message was delivered to the application.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only counters"))]
    #[inline]
    pub fn received(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        {
            self.counters.messages_received.increment(1);
            self.counters.bytes_received.increment(bytes as u64);
        }
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Telemetry").field(&self.transport).finish()
    }
}

/// Defines the counters, each with its name and its description for exporters.
#[cfg(feature = "metrics")]
macro_rules! counters {
    ($($field:ident: $name:literal, $text:literal;)*) => {
        struct Counters {
            $($field: metrics::Counter,)*
        }

        impl Counters {
            fn new(transport: &'static str) -> Self {
                $(metrics::describe_counter!($name, $text);)*
                metrics::describe_counter!("net_handshakes_failed", "Attempts that failed");
                metrics::describe_counter!("net_connections_refused", "Attempts beyond a limit");
                Self { $($field: metrics::counter!($name, "transport" => transport),)* }
            }
        }
    };
}

#[cfg(feature = "metrics")]
counters! {
    opened: "net_connections_opened", "Connections that were established";
    resumed: "net_connections_resumed", "Connections whose handshake resumed an earlier session";
    closed: "net_connections_closed", "Connections whose last handle was dropped";
    revoked: "net_connections_revoked", "Connections closed because their peer is no longer trusted";
    messages_sent: "net_messages_sent", "Messages that were queued";
    bytes_sent: "net_bytes_sent", "Bytes of messages that were queued";
    messages_received: "net_messages_received", "Messages that were delivered";
    bytes_received: "net_bytes_received", "Bytes of messages that were delivered";
    messages_refused: "net_messages_refused", "Announced messages that exceeded the limit";
}
