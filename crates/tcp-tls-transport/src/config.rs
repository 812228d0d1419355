//! `TcpTlsConfig`: limits and timeouts.

use crate::record::MAX_MESSAGE;
use net_kit::options::{COUNT, TIMEOUT};
use std::time::Duration;

net_kit::transport_options! {
    /// Limits and timeouts of a [`TcpTlsTransport`](crate::TcpTlsTransport).
    ///
    /// A peer may have 16 unanswered requests at once. Once the socket of the system has all data,
    /// the progress of the peer is not visible.
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
        /// How many accepted connections one IPv4 address or IPv6 /64 network may have, including
        /// handshakes. Default: 128.
        max_connections_per_ip: usize = 128, COUNT;
        /// How long a connection may receive nothing. Each side sends a keep-alive every 10 s, or
        /// three times in its own idle timeout if that is more often. The peer does not know this
        /// side's timeout: use the same value on both sides, or at least 20 s. Default: 30 s.
        idle_timeout: Duration = Duration::from_secs(30), TIMEOUT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = TcpTlsConfig::new;
        for (config, option) in [
            (config().max_message_size(1 << 40), "max_message_size"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().max_message_size(0), "max_message_size"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().idle_timeout(Duration::ZERO), "idle_timeout"),
            (config().idle_timeout(Duration::from_nanos(1)), "idle_timeout"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
    }
}
