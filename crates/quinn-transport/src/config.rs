//! `QuinnConfig`: limits and timeouts.

use net_kit::admission::ConnectionLimits;
use net_kit::options::{COUNT, QUEUE, TIMEOUT};
use net_traits::ConfigError;
use quinn::{IdleTimeout, TransportConfig};
use std::time::Duration;

/// The longest message that a frame can carry, in bytes.
const MAX_MESSAGE: usize = u32::MAX as usize;

/// How much data of one stream the peer may send before it is read, in bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// How much data of all streams the peer may send before it is read, in bytes.
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;

/// How much data may be sent without an acknowledgement, in bytes.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;

net_kit::options! {
    /// Limits and timeouts of a [`QuinnTransport`](crate::QuinnTransport).
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
        max_message_size: usize = 64 * 1024 * 1024, 1..=MAX_MESSAGE;
        /// Size of the send queue of each stream in bytes, including 128 bytes of bookkeeping per
        /// message. While it is full, `send` waits. A single message may exceed it. Up to 4 MiB that
        /// the peer has not acknowledged come on top. Default: 1 MiB.
        send_queue: usize = 1024 * 1024, QUEUE;
        /// Size of the receive queue in bytes, including 128 bytes of bookkeeping per message. While
        /// it is full, streams are not read, so QUIC's flow control throttles the peer. The message
        /// being received on each stream and up to 8 MiB that quinn holds come on top. Default: 4
        /// MiB.
        receive_queue: usize = 4 * 1024 * 1024, QUEUE;
        /// How many streams send messages. With one, messages arrive in the order in which they were
        /// queued. With more, each message uses the stream with the shortest queue: a large message
        /// does not delay later ones, but messages arrive in any order. The peer must allow these
        /// streams and one for urgent messages. Default: 1.
        send_streams: usize = 1, 1..=1024;
        /// How many message streams the peer may have open at once. Default: 16.
        max_inbound_streams: u16 = 16, 1..=u16::MAX;
        /// How many unanswered requests the peer may have at once; further ones wait at the peer.
        /// Default: 16.
        max_inbound_requests: u16 = 16, 1..=u16::MAX;
        /// The longest question or answer, in bytes. Default: 1 MiB.
        max_request_size: usize = 1024 * 1024, 1..=MAX_MESSAGE;
        /// How many accepted connections all listeners of the transport may have at once, including
        /// handshakes. Further attempts are refused. Default: 10 000.
        max_connections: usize = 10_000, COUNT;
        /// How many of them one IPv4 address or IPv6 /64 network may have. Default: 1000.
        max_connections_per_ip: usize = 1_000, COUNT;
        /// How many of them one identity may have. It limits peers that are trusted by their
        /// identity; a peer that is trusted by an endorsing key can make more identities. Default:
        /// 16.
        max_connections_per_identity: usize = 16, COUNT;
        /// How many accepted connections may be in their handshake at once. From half of that on,
        /// peers prove their address first (Retry, RFC 9000, section 8.1.2). Default: 256.
        max_handshakes: usize = 256, COUNT;
        /// How many connection attempts may wait for `accept`; further ones are refused. Default:
        /// 256.
        backlog: usize = 256, COUNT;
        /// How long sending may make no progress. While the peer takes other data, an operation has
        /// ten times as long. Default: 12 s.
        no_progress_timeout: Duration = Duration::from_secs(12), TIMEOUT;
        /// How long a handshake may take. Default: 10 s.
        handshake_timeout: Duration = Duration::from_secs(10), TIMEOUT;
        /// How long a connection may receive nothing. The smaller value of both peers applies.
        /// Default: 30 s.
        idle_timeout: Duration = Duration::from_secs(30), TIMEOUT;
        /// Interval of keep-alives while nothing else is sent. Default: 10 s.
        keep_alive_interval: Duration = Duration::from_secs(10), TIMEOUT;
    }
}

impl QuinnConfig {
    /// Checks the values of all options, as [`with_config`](crate::QuinnTransport::with_config)
    /// does.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()
    }

    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.max_connections,
            per_ip: self.max_connections_per_ip,
            per_identity: self.max_connections_per_identity,
            handshakes: self.max_handshakes,
        }
    }

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
            .keep_alive_interval(Some(self.keep_alive_interval));
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
            (config().send_queue(0), "send_queue"),
            (config().receive_queue(usize::MAX), "receive_queue"),
            (config().send_streams(1025), "send_streams"),
            (config().max_inbound_streams(0), "max_inbound_streams"),
            (config().max_inbound_requests(0), "max_inbound_requests"),
            (config().max_request_size(0), "max_request_size"),
            (config().max_connections(0), "max_connections"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().max_connections_per_identity(0), "max_connections_per_identity"),
            (config().max_handshakes(0), "max_handshakes"),
            (config().backlog(0), "backlog"),
            (config().no_progress_timeout(Duration::ZERO), "no_progress_timeout"),
            (config().handshake_timeout(Duration::from_nanos(1)), "handshake_timeout"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().keep_alive_interval(Duration::ZERO), "keep_alive_interval"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
    }
}
