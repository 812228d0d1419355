//! Telemetry: spans and events of `tracing`, and counters of `metrics` with that feature.

use net_traits::{CertHash, Limit};
use std::net::SocketAddr;
use tracing::Span;

/// How many hexadecimal digits of an identity are shown.
const PREFIX: usize = 8;

/// The span of a connection.
pub(crate) fn connection_span(peer: &CertHash, remote: SocketAddr, is_inbound: bool) -> Span {
    let peer = &peer.to_string()[..PREFIX];
    let direction = if is_inbound { "in" } else { "out" };
    tracing::info_span!("connection", peer, %remote, direction)
}

pub(crate) fn opened(span: &Span) {
    span.in_scope(|| tracing::debug!("connected"));
    count("msquic_transport_connections_opened", 1);
}

pub(crate) fn closed(span: &Span) {
    span.in_scope(|| tracing::debug!("closed"));
    count("msquic_transport_connections_closed", 1);
}

pub(crate) fn refused(remote: SocketAddr, limit: Limit) {
    tracing::info!(%remote, ?limit, "refused");
    #[cfg(feature = "metrics")]
    metrics::counter!("msquic_transport_connections_refused", "limit" => format!("{limit:?}"))
        .increment(1);
}

pub(crate) fn revoked(span: &Span) {
    span.in_scope(|| tracing::info!("revoked: no longer trusted"));
    count("msquic_transport_connections_revoked", 1);
}

pub(crate) fn message_refused(span: &Span) {
    span.in_scope(|| tracing::info!("a received message exceeds the limit"));
    count("msquic_transport_messages_refused", 1);
}

pub(crate) fn message_sent(size: usize) {
    count("msquic_transport_messages_sent", 1);
    count("msquic_transport_bytes_sent", size as u64);
}

pub(crate) fn message_received(size: usize) {
    count("msquic_transport_messages_received", 1);
    count("msquic_transport_bytes_received", size as u64);
}

#[cfg(feature = "metrics")]
fn count(name: &'static str, by: u64) {
    metrics::counter!(name).increment(by);
}

#[cfg(not(feature = "metrics"))]
fn count(_: &'static str, _: u64) {}
