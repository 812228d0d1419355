//! The vocabulary: every metric and every event, as data.
//!
//! `docs/observability.md` shows these tables, and a test compares them. A test of this crate
//! compares them with what is emitted.

use std::fmt;

/// A metric of the facade `metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it changes.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: MetricUnit,
    /// The names of its labels. The values of each are a small fixed set.
    pub labels: &'static [&'static str],
    /// What it measures.
    pub description: &'static str,
}

/// How a metric changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MetricKind {
    /// A count that only increases.
    Counter,
    /// A number that increases and decreases.
    Gauge,
    /// A distribution of values.
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MetricUnit {
    /// A dimensionless count.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl fmt::Display for MetricUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        })
    }
}

/// An event or a span of `tracing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Event {
    /// Its target.
    pub target: &'static str,
    /// Its level, in capital letters.
    pub level: &'static str,
    /// Its message, or the name of the span.
    pub message: &'static str,
    /// The names of its fields.
    pub fields: &'static [&'static str],
    /// What happened.
    pub description: &'static str,
}

/// The target of what happens to established connections.
pub(super) const CONNECTION: &str = "net::connection";
/// The target of connection attempts.
pub(super) const HANDSHAKE: &str = "net::handshake";
/// The target of dials over two transports.
pub(super) const FALLBACK: &str = "net::fallback";
/// The target of limits that peers reached.
pub(super) const LIMIT: &str = "net::limit";

/// The target of pools of connections.
pub(super) const POOL: &str = "net::pool";

macro_rules! metrics {
    ($($name:literal $kind:ident $unit:ident $labels:tt $description:literal;)*) => {
        /// All metrics, by name.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: MetricUnit::$unit,
            labels: &$labels,
            description: $description,
        },)*];
    };
}

metrics! {
    "net_accept_errors_total" Counter Count ["transport"] "Errors of the system when a listener accepted, such as too many open files; it goes on after a pause";
    "net_attempts_without_protocol_total" Counter Count ["transport"] "Attempts at listeners of this process that share no protocol with the peer, which msquic refuses";
    "net_bytes_received_total" Counter Bytes ["transport"] "Bytes of messages delivered to the application, without headers";
    "net_bytes_sent_total" Counter Bytes ["transport"] "Bytes of messages queued, without headers";
    "net_bytes_undelivered_total" Counter Bytes ["transport"] "Bytes of the messages of `net_messages_undelivered_total`";
    "net_connection_seconds" Histogram Seconds ["transport", "cause"] "How long connections were open, by why they ended";
    "net_connections_closed_total" Counter Count ["transport", "cause"] "Connections that ended, by why";
    "net_connections_open" Gauge Count ["transport"] "Connections that are open; the handles of ended ones do not count";
    "net_connections_opened_total" Counter Count ["transport", "direction"] "Connections that were established";
    "net_connections_refused_total" Counter Count ["transport", "limit"] "Attempts and connections that a limit ended";
    "net_connections_resumed_total" Counter Count ["transport"] "Connections whose handshake resumed an earlier session";
    "net_connections_revoked_total" Counter Count ["transport"] "Connections closed because their peer is no longer trusted";
    "net_fallback_dials_total" Counter Count ["path"] "Dials of a transport that falls back, by what connected";
    "net_handshake_seconds" Histogram Seconds ["transport", "direction"] "How long successful handshakes took";
    "net_handshakes_failed_total" Counter Count ["transport", "direction", "cause", "detail"] "Attempts that failed, by why";
    "net_message_bytes" Histogram Bytes ["transport", "direction"] "Size of every 64th message; of one in a batch (`send_many`, `recv_many`), the mean of the batch";
    "net_messages_received_total" Counter Count ["transport"] "Messages delivered to the application";
    "net_messages_refused_total" Counter Count ["transport"] "Announced messages that exceeded the limit";
    "net_messages_sent_total" Counter Count ["transport"] "Messages queued";
    "net_messages_undelivered_total" Counter Count ["transport"] "Messages that the peer had not confirmed, at most, when their connection ended";
    "net_packets_lost_total" Counter Count ["transport"] "QUIC packets that were lost, until the last sample of each connection";
    "net_packets_sent_total" Counter Count ["transport"] "QUIC packets that were sent, until the last sample of each connection";
    "net_pool_changes_total" Counter Count ["change"] "Changes of the connections of pools: `connected`, `replaced`, `stuck`, `lost`";
    "net_pool_dials_total" Counter Count ["cause", "detail"] "Dials of pools: `connected`, or why they failed";
    "net_pool_messages_held" Gauge Count [] "Messages that pools hold: queued, or not known to be delivered";
    "net_pool_peers_connected" Gauge Count [] "Peers with which pools have a connection";
    "net_pool_undelivered_total" Counter Count ["cause"] "Messages that were reported as undelivered, by why";
    "net_pool_unreceived_total" Counter Count ["cause"] "Messages of peers that pools did not receive, at least, by why: `too_large`, `truncated`, `reset`, or why their connection ended";
    "net_rtt_seconds" Histogram Seconds ["transport"] "Smoothed round-trip times: a sample of each connection about every 10 s";
    "net_send_queue_bytes" Histogram Bytes ["transport"] "Bytes in the send queues of a connection: a sample of each about every 10 s";
}

macro_rules! events {
    ($($target:ident $level:ident $message:literal $fields:tt $description:literal;)*) => {
        /// All events and spans, by target.
        pub const EVENTS: &[Event] = &[$(Event {
            target: $target,
            level: stringify!($level),
            message: $message,
            fields: &$fields,
            description: $description,
        },)*];
    };
}

events! {
    CONNECTION DEBUG "closed" ["cause", "code", "reason", "seconds", "messages_sent", "bytes_sent", "messages_received", "bytes_received", "suppressed"] "A connection has ended. `code` is there if an application or a limit closed it";
    CONNECTION DEBUG "closing" ["code", "reason", "suppressed"] "This side began to close and delivers what is queued";
    CONNECTION DEBUG "connected" ["suppressed"] "A connection was established";
    CONNECTION INFO "connection" ["peer", "remote", "direction", "transport"] "The span of a connection, around its events";
    CONNECTION DEBUG "messages undelivered" ["messages", "bytes", "suppressed"] "So many messages were not confirmed, at most, when the connection ended";
    CONNECTION INFO "revoked: no longer trusted" ["suppressed"] "The connection is closed because its peer is no longer trusted";
    CONNECTION TRACE "sample" ["rtt", "packets_sent", "packets_lost", "queued"] "A connection was measured, about every 10 s: the smoothed round-trip time in seconds, packets since the begin, bytes in the send queues";
    CONNECTION DEBUG "session resumed" ["suppressed"] "The handshake resumed an earlier session";
    FALLBACK DEBUG "dialled" ["remote", "path", "error", "secondary_error", "suppressed"] "A dial over two transports has ended; `error` is why the primary one failed";
    HANDSHAKE DEBUG "handshake failed" ["remote", "error", "cause", "detail", "direction", "transport", "suppressed"] "An attempt failed, of a peer at a listener (`in`) or an own one (`out`)";
    LIMIT WARN "a listener cannot accept" ["error", "transport", "suppressed"] "The system has no room for another connection, for instance too many open files; the listener goes on after a pause";
    LIMIT INFO "a received message exceeds the limit" ["suppressed"] "A peer announced a message beyond the limit";
    LIMIT WARN "ended connections occupy memory" ["connections", "transport", "suppressed"] "quinn keeps more connections that have ended than may be open; those that end now count for their addresses for two minutes";
    LIMIT INFO "refused" ["remote", "limit", "transport", "suppressed"] "A limit ended an attempt or a connection";
    POOL DEBUG "connection replaced" ["peer", "reason", "suppressed"] "Another connection with a peer is used; `reason` is why one before it ended";
    POOL DEBUG "connection stuck" ["peer", "suppressed"] "A peer takes no data on a connection, and another one is dialled";
    POOL DEBUG "dial failed" ["remote", "error", "cause", "detail", "suppressed"] "A dial of a pool failed";
    POOL DEBUG "message not received" ["peer", "messages", "error", "cause", "suppressed"] "So many messages of a peer, at least, were not received";
    POOL DEBUG "message undelivered" ["peer", "error", "cause", "suppressed"] "A message was not delivered, or is not known to be";
    POOL DEBUG "peer connected" ["peer", "suppressed"] "There is a connection with a peer that had none";
    POOL DEBUG "peer lost" ["peer", "reason", "suppressed"] "The last connection with a peer has ended";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_without_duplicates() {
        assert!(METRICS.is_sorted_by(|one, next| one.name < next.name));
        let key = |it: &Event| (it.target, it.message);
        assert!(EVENTS.is_sorted_by(|one, next| key(one) < key(next)));
    }

    #[test]
    fn no_label_names_a_peer() {
        let known = ["transport", "direction", "cause", "detail", "limit", "path", "change"];
        let labels = METRICS.iter().flat_map(|metric| metric.labels);
        assert!(labels.into_iter().all(|label| known.contains(label)));
    }
}
