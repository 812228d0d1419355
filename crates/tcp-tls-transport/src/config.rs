//! `TcpTlsConfig`: limits and timeouts.

use crate::record::MAX_MESSAGE;
use net_kit::options::{COUNT, QUEUE, TIMEOUT};
use net_traits::ConfigError;
use std::time::Duration;

net_kit::options! {
    /// Limits and timeouts of a [`TcpTlsTransport`](crate::TcpTlsTransport).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
    ///
    /// let config = TcpTlsConfig::new().idle_timeout(Duration::from_secs(60));
    /// let transport = TcpTlsTransport::with_config(config)?;
    /// # Ok::<(), net_traits::ConfigError>(())
    /// ```
    pub struct TcpTlsConfig {
        /// The longest message, in bytes, in both directions; at most 2^32 - 2. Default: 64 MiB.
        max_message_size: usize = 64 * 1024 * 1024, 1..=MAX_MESSAGE;
        /// The longest question or answer of a request, in bytes. Up to 16 questions of the peer are
        /// in memory at once. Default: 1 MiB.
        max_request_size: usize = 1024 * 1024, 1..=MAX_MESSAGE;
        /// Size of the send queue in bytes, including 128 bytes of bookkeeping per message. While it is
        /// full, `send` waits. A single message may exceed it. The system's socket buffer comes on top.
        /// Default: 1 MiB.
        send_queue: usize = 1024 * 1024, QUEUE;
        /// Size of the receive queue in bytes, including 128 bytes of bookkeeping per message. While it
        /// is full, the peer is throttled. The message being received comes on top. Default: 4 MiB.
        receive_queue: usize = 4 * 1024 * 1024, QUEUE;
        /// How many accepted connections all listeners of the transport may have at once, including
        /// handshakes. Further attempts are refused. Default: 10 000.
        max_connections: usize = 10_000, COUNT;
        /// How many of them one IPv4 address or IPv6 /64 network may have, including handshakes. Keep
        /// it below [`max_handshakes`](Self::max_handshakes), so that one address cannot occupy all
        /// handshakes. Default: 128.
        max_connections_per_ip: usize = 128, COUNT;
        /// How many of them one identity may have. It limits peers that are trusted by their identity; a
        /// peer that is trusted by an endorsing key can make more identities. Default: 16.
        max_connections_per_identity: usize = 16, COUNT;
        /// How many accepted connections may be in their handshake at once. Default: 256.
        max_handshakes: usize = 256, COUNT;
        /// How long a handshake may take. Default: 10 s.
        handshake_timeout: Duration = Duration::from_secs(10), TIMEOUT;
        /// How long a connection may receive nothing. Peers send a keep-alive every 10 s, so a value
        /// below 20 s can end healthy connections. Default: 30 s.
        idle_timeout: Duration = Duration::from_secs(30), TIMEOUT;
        /// How long sending may make no progress. Once the system's socket holds all data, progress is
        /// not visible; `close` then waits ten times as long for the peer's answer. Default: 12 s.
        no_progress_timeout: Duration = Duration::from_secs(12), TIMEOUT;
    }
}

impl TcpTlsConfig {
    /// Checks the values of all options, as [`with_config`](crate::TcpTlsTransport::with_config)
    /// does.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = TcpTlsConfig::new;
        let second = Duration::from_secs(1);
        for (config, option) in [
            (config().max_message_size(1 << 40), "max_message_size"),
            (config().max_request_size(0), "max_request_size"),
            (config().send_queue(0), "send_queue"),
            (config().receive_queue(usize::MAX), "receive_queue"),
            (config().max_connections(0), "max_connections"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().max_connections_per_identity(0), "max_connections_per_identity"),
            (config().max_handshakes(0), "max_handshakes"),
            (config().handshake_timeout(second / 1_000_000_000), "handshake_timeout"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().no_progress_timeout(Duration::ZERO), "no_progress_timeout"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
    }
}
