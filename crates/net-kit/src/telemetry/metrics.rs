//! `Metrics`: the metrics of one transport. Those with no label but `transport` or a fixed one are
//! looked up once.

use super::vocabulary::{METRICS, MetricKind, MetricUnit};
use super::{Origin, Sample};
use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram, with_recorder,
};
use net_traits::Limit;
use std::time::Duration;

pub(super) struct Metrics {
    transport: &'static str,
    /// Whether a recorder was installed before the transport was made.
    pub(super) has_recorder: bool,
    pub(super) accept_errors: Counter,
    open: Gauge,
    pub(super) resumed: Counter,
    pub(super) revoked: Counter,
    pub(super) messages_refused: Counter,
    pub(super) messages_undelivered: Counter,
    pub(super) bytes_undelivered: Counter,
    pub(super) sent: Messages,
    pub(super) received: Messages,
    packets_sent: Counter,
    packets_lost: Counter,
    rtt: Histogram,
    queued: Histogram,
}

/// Messages in one direction.
pub(super) struct Messages {
    messages: Counter,
    bytes: Counter,
    /// The sizes of a sample of the messages.
    pub(super) size: Histogram,
}

impl Messages {
    pub(super) fn count(&self, messages: u64, bytes: u64) {
        self.messages.increment(messages);
        self.bytes.increment(bytes);
    }
}

impl Metrics {
    pub(super) fn new(transport: &'static str) -> Self {
        describe();
        let size = |direction: &'static str| histogram!("net_message_bytes", "transport" => transport, "direction" => direction);
        Self {
            transport,
            // The facade has no such function, but its no-op recorder is a type without fields.
            has_recorder: with_recorder(|recorder| size_of_val(recorder) > 0),
            accept_errors: counter!("net_accept_errors_total", "transport" => transport),
            open: gauge!("net_connections_open", "transport" => transport),
            resumed: counter!("net_connections_resumed_total", "transport" => transport),
            revoked: counter!("net_connections_revoked_total", "transport" => transport),
            messages_refused: counter!("net_messages_refused_total", "transport" => transport),
            messages_undelivered: counter!("net_messages_undelivered_total", "transport" => transport),
            bytes_undelivered: counter!("net_bytes_undelivered_total", "transport" => transport),
            sent: Messages {
                messages: counter!("net_messages_sent_total", "transport" => transport),
                bytes: counter!("net_bytes_sent_total", "transport" => transport),
                size: size("out"),
            },
            received: Messages {
                messages: counter!("net_messages_received_total", "transport" => transport),
                bytes: counter!("net_bytes_received_total", "transport" => transport),
                size: size("in"),
            },
            packets_sent: counter!("net_packets_sent_total", "transport" => transport),
            packets_lost: counter!("net_packets_lost_total", "transport" => transport),
            rtt: histogram!("net_rtt_seconds", "transport" => transport),
            queued: histogram!("net_send_queue_bytes", "transport" => transport),
        }
    }

    pub(super) fn opened(&self, origin: Origin) {
        let (transport, direction) = (self.transport, origin.direction());
        self.open.increment(1.0);
        counter!(
            "net_connections_opened_total", "transport" => transport, "direction" => direction
        )
        .increment(1);
    }

    pub(super) fn closed(&self, cause: &'static str, took: Duration) {
        let transport = self.transport;
        self.open.decrement(1.0);
        counter!("net_connections_closed_total", "transport" => transport, "cause" => cause)
            .increment(1);
        histogram!("net_connection_seconds", "transport" => transport, "cause" => cause)
            .record(took);
    }

    pub(super) fn sampled(&self, sample: &Sample, sent: u64, lost: u64) {
        self.packets_sent.increment(sent);
        self.packets_lost.increment(lost);
        if let Some(rtt) = sample.rtt {
            self.rtt.record(rtt);
        }
        self.queued.record(sample.queued as f64);
    }

    pub(super) fn without_protocol(&self, attempts: u64) {
        counter!("net_attempts_without_protocol_total", "transport" => self.transport)
            .increment(attempts);
    }

    pub(super) fn refused(&self, limit: Limit) {
        let (transport, limit) = (self.transport, format!("{limit:?}"));
        counter!("net_connections_refused_total", "transport" => transport, "limit" => limit)
            .increment(1);
    }

    pub(super) fn handshake_took(&self, origin: Origin, took: Duration) {
        let (transport, direction) = (self.transport, origin.direction());
        histogram!("net_handshake_seconds", "transport" => transport, "direction" => direction)
            .record(took);
    }

    pub(super) fn handshake_failed(
        &self,
        direction: &'static str,
        cause: &'static str,
        detail: &'static str,
    ) {
        counter!(
            "net_handshakes_failed_total",
            "transport" => self.transport,
            "direction" => direction,
            "cause" => cause,
            "detail" => detail
        )
        .increment(1);
    }
}

/// Registers the kind, the unit and the description of all metrics with the recorder.
pub(super) fn describe() {
    for metric in METRICS {
        let unit = match metric.unit {
            MetricUnit::Count => Unit::Count,
            MetricUnit::Bytes => Unit::Bytes,
            MetricUnit::Seconds => Unit::Seconds,
        };
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, unit, metric.description),
            MetricKind::Gauge => describe_gauge!(metric.name, unit, metric.description),
            MetricKind::Histogram => describe_histogram!(metric.name, unit, metric.description),
        }
    }
}
