//! `QuinnConfig`: limits and timeouts.

use net_kit::options::{COUNT, REQUESTS, TIMEOUT, keep_alive};
use quinn::{IdleTimeout, TransportConfig};
use std::time::Duration;

/// How much data of one stream the peer may send before it is read, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// How much data of all streams the peer may send before it is read, in bytes.
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;

/// How much data may be sent without an acknowledgement, in bytes.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;

net_kit::transport_options! {
    /// Limits and timeouts of a [`QuinnTransport`](crate::QuinnTransport).
    ///
    /// Beside the queues of a connection, quinn holds up to 4 MiB that the peer has not acknowledged
    /// and up to 8 MiB that are not read.
    ///
    /// ```
    /// use quinn_transport::{QuinnConfig, QuinnTransport};
    /// use std::time::Duration;
    ///
    /// let config = QuinnConfig::new().idle_timeout(Duration::from_secs(60)).send_streams(2);
    /// let transport = QuinnTransport::with_config(config)?;
    /// # Ok::<(), net_traits::ConfigError>(())
    /// ```
    pub struct QuinnConfig {
        /// The longest message, in bytes, in both directions. Default: 64 MiB.
        max_message_size: usize = 64 * 1024 * 1024, 1..=u32::MAX as usize;
        /// How many streams send messages. With one, messages arrive in the order in which they were
        /// queued. With more, each message uses the stream with the shortest queue: a large message
        /// does not delay later ones, but messages arrive in any order. The peer must allow these
        /// streams and one for urgent messages. Default: 1.
        send_streams: usize = 1, 1..=1024;
        /// How many message streams the peer may have open at once. Default: 16.
        max_inbound_streams: u16 = 16, 1..=u16::MAX;
        /// How many unanswered requests the peer may have at once; further ones wait at the peer.
        /// With 0, all of them wait until their deadline. Default: 16.
        max_inbound_requests: u16 = 16, REQUESTS;
        /// How many accepted connections an IPv4 address or IPv6 /64 network may have. Default: 1000.
        max_connections_per_ip: usize = 1_000, COUNT;
        /// How many connection attempts may wait for `accept`; further ones are refused. From half
        /// of [`max_handshakes`](Self::max_handshakes) on, peers prove their address first (Retry,
        /// RFC 9000, section 8.1.2). Default: 256.
        backlog: usize = 256, COUNT;
        /// How long a connection may receive nothing. The smaller value of both peers applies.
        /// Default: 30 s.
        idle_timeout: Duration = Duration::from_secs(30), TIMEOUT;
        /// Interval of keep-alives while nothing else is sent, at most a third of the idle timeout.
        /// Default: 10 s.
        keep_alive_interval: Duration = Duration::from_secs(10), TIMEOUT;
    }
}

impl QuinnConfig {
    pub(crate) fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(RECEIVE_WINDOW.into())
            .send_window(SEND_WINDOW)
            .max_concurrent_uni_streams(self.max_inbound_streams.into())
            .max_concurrent_bidi_streams(self.max_inbound_requests.into())
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(keep_alive(self.keep_alive_interval, self.idle_timeout)));
        transport
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = QuinnConfig::new;
        for (config, option) in [
            (config().max_message_size(1 << 40), "max_message_size"),
            (config().send_streams(1025), "send_streams"),
            (config().max_inbound_streams(0), "max_inbound_streams"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().backlog(0), "backlog"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().keep_alive_interval(Duration::ZERO), "keep_alive_interval"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
    }
}
