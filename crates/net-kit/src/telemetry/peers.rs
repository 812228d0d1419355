//! `PoolTelemetry` and `FallbackTelemetry`: events and metrics of the crate `net-peers`.

use super::cause;
use super::vocabulary::{FALLBACK, POOL};
use crate::rate_limit::RateLimit;
#[cfg(feature = "metrics")]
use ::metrics::{counter, gauge};
use net_traits::{CertHash, CloseReason, ConnectError, RecvError, WithCauses};
use std::fmt;
use std::net::SocketAddr;

/// The events and metrics of pools of connections. All pools of a process share the metrics.
#[derive(Debug, Default)]
pub struct PoolTelemetry {
    connected: RateLimit,
    replaced: RateLimit,
    lost: RateLimit,
    stuck: RateLimit,
    dial_failed: RateLimit,
    undelivered: RateLimit,
    receive_failed: RateLimit,
}

impl PoolTelemetry {
    /// Creates the telemetry of a pool.
    pub fn new() -> Self {
        super::describe();
        Self::default()
    }

    /// Reports a connection with a peer that had none.
    pub fn connected(&self, peer: &CertHash) {
        if let Some(suppressed) = self.connected.take() {
            tracing::debug!(target: POOL, peer = short(peer), suppressed, "peer connected");
        }
        #[cfg(feature = "metrics")]
        {
            gauge!("net_pool_peers_connected").increment(1.0);
            counter!("net_pool_changes_total", "change" => "connected").increment(1);
        }
    }

    /// Reports that another connection with a peer is used; `reason` is why an earlier one ended.
    pub fn replaced(&self, peer: &CertHash, reason: Option<&CloseReason>) {
        if let Some(suppressed) = self.replaced.take() {
            let peer = short(peer);
            let reason = reason.map(|reason| tracing::field::display(WithCauses(reason)));
            tracing::debug!(target: POOL, peer, reason, suppressed, "connection replaced");
        }
        #[cfg(feature = "metrics")]
        counter!("net_pool_changes_total", "change" => "replaced").increment(1);
    }

    /// Reports that the last connection with a peer has ended.
    pub fn lost(&self, peer: &CertHash, reason: &CloseReason) {
        if let Some(suppressed) = self.lost.take() {
            let (peer, reason) = (short(peer), WithCauses(reason));
            tracing::debug!(target: POOL, peer, %reason, suppressed, "peer lost");
        }
        #[cfg(feature = "metrics")]
        {
            gauge!("net_pool_peers_connected").decrement(1.0);
            counter!("net_pool_changes_total", "change" => "lost").increment(1);
        }
    }

    /// Reports that a peer takes no data on a connection, and that it is dialled again.
    pub fn stuck(&self, peer: &CertHash) {
        if let Some(suppressed) = self.stuck.take() {
            tracing::debug!(target: POOL, peer = short(peer), suppressed, "connection stuck");
        }
        #[cfg(feature = "metrics")]
        counter!("net_pool_changes_total", "change" => "stuck").increment(1);
    }

    /// Reports the outcome of a dial of the pool.
    pub fn dialled(&self, remote: SocketAddr, outcome: Result<(), &ConnectError>) {
        let (cause, detail) = match outcome {
            Ok(()) => ("connected", ""),
            Err(error) => {
                let (cause, detail) = cause::of_failure(error);
                if let Some(suppressed) = self.dial_failed.take() {
                    let error = WithCauses(error);
                    tracing::debug!(
                        target: POOL, %remote, %error, cause, detail, suppressed, "dial failed"
                    );
                }
                (cause, detail)
            }
        };
        #[cfg(feature = "metrics")]
        counter!("net_pool_dials_total", "cause" => cause, "detail" => detail).increment(1);
        let _ = (cause, detail);
    }

    /// Counts a message that was queued: the pool holds it until it is delivered or reported.
    pub fn held(&self) {
        #[cfg(feature = "metrics")]
        gauge!("net_pool_messages_held").increment(1.0);
    }

    /// Counts a message that was delivered or reported.
    pub fn released(&self) {
        #[cfg(feature = "metrics")]
        gauge!("net_pool_messages_held").decrement(1.0);
    }

    /// Reports a message that was not delivered, or is not known to be. `cause` is one of a few
    /// fixed names.
    pub fn undelivered(&self, peer: &CertHash, cause: &'static str, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.undelivered.take() {
            let peer = short(peer);
            tracing::debug!(target: POOL, peer, %error, cause, suppressed, "message undelivered");
        }
        #[cfg(feature = "metrics")]
        counter!("net_pool_undelivered_total", "cause" => cause).increment(1);
    }

    /// Reports that so many messages of a peer, at least, were not received.
    pub fn receive_failed(&self, peer: &CertHash, error: &RecvError, messages: u64) {
        let cause = cause::of_receive(error);
        if let Some(suppressed) = self.receive_failed.take() {
            let (peer, error) = (short(peer), WithCauses(error));
            tracing::debug!(
                target: POOL, peer, messages, %error, cause, suppressed, "message not received"
            );
        }
        #[cfg(feature = "metrics")]
        counter!("net_pool_unreceived_total", "cause" => cause).increment(messages);
    }
}

/// How a dial over two transports ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackPath {
    /// The primary transport connected during its head start.
    Primary,
    /// The primary transport connected after its head start.
    PrimaryLate,
    /// The secondary transport connected while the primary was still trying.
    SecondaryFirst,
    /// The secondary transport connected after the primary had failed.
    SecondaryOnly,
    /// Both failed.
    Neither,
}

impl FallbackPath {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::PrimaryLate => "primary_late",
            Self::SecondaryFirst => "secondary_first",
            Self::SecondaryOnly => "secondary_only",
            Self::Neither => "neither",
        }
    }
}

/// The events and metrics of transports that fall back to another one.
#[derive(Debug, Default)]
pub struct FallbackTelemetry {
    dialled: RateLimit,
}

impl FallbackTelemetry {
    /// Creates the telemetry of a transport.
    pub fn new() -> Self {
        super::describe();
        Self::default()
    }

    /// Reports the outcome of a dial. The errors are those of the transports that failed.
    pub fn dialled(
        &self,
        remote: SocketAddr,
        path: FallbackPath,
        primary: Option<&ConnectError>,
        secondary: Option<&ConnectError>,
    ) {
        let path = path.name();
        if let Some(suppressed) = self.dialled.take() {
            let [error, secondary_error] = [primary, secondary]
                .map(|failure| failure.map(|error| tracing::field::display(WithCauses(error))));
            tracing::debug!(
                target: FALLBACK, %remote, path, error, secondary_error, suppressed, "dialled"
            );
        }
        #[cfg(feature = "metrics")]
        counter!("net_fallback_dials_total", "path" => path).increment(1);
    }
}

/// Returns the first digits of an identity.
fn short(peer: &CertHash) -> String {
    let mut text = peer.to_string();
    text.truncate(super::PREFIX);
    text
}
