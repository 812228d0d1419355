//! `MsQuicTransportConfig`: limits and timeouts.

use msquic_async::{ConfigurationError, ExecutionProfile, Settings};
use net_kit::options::{NO_PROGRESS, QUEUE, TIMEOUT, check_memory};
use net_kit::progress::Timeouts;
use net_kit::quic::CongestionControl;
use net_traits::ConfigError;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long sending may make no progress, unless
/// [configured](crate::MsQuicTransportConfig::stream_op_timeout) otherwise.
pub const STREAM_OP_TIMEOUT: Duration = NO_PROGRESS;

net_kit::quic_options! {
    common_options: stream_receive_window = 512 * 1024, "512 KiB; msquic gets a power of two, and doubles it while reading \
            keeps up, as far as the window of the connection has room",
        connection_receive_window = 32 * 1024 * 1024, "32 MiB";
    /// Limits and timeouts of a transport.
    ///
    /// An accepted connection counts until it has ended, even if handles of it are held.
    ///
    /// ```
    /// use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
    /// use std::time::Duration;
    ///
    /// let config = MsQuicTransportConfig::new()
    ///     .max_message_size(1024 * 1024)
    ///     .idle_timeout(Duration::from_secs(60));
    /// let transport = MsQuicTransport::with_config(config)?;
    /// # Ok::<(), net_traits::ConfigError>(())
    /// ```
    pub struct MsQuicTransportConfig {
        /// The longest message to send, in bytes. Default: 64 MiB.
        max_sent_message: usize = DEFAULT_MESSAGE, MESSAGE;
        /// The longest message to receive, in bytes. Default: 64 MiB.
        max_received_message: usize = DEFAULT_MESSAGE, MESSAGE;
        /// Size of the send queue in bytes, including data sent but not acknowledged. While it is full,
        /// `send` waits. A single message may exceed it. It grows up to
        /// [`max_send_queue`](Self::max_send_queue) if the path can carry more in flight. Default: 1
        /// MiB.
        send_queue: usize = 1024 * 1024, QUEUE;
        /// The upper limit for the growth of [`send_queue`](Self::send_queue). Default: 16 MiB.
        max_send_queue: usize = 16 * 1024 * 1024, QUEUE;
        /// How long sending may make no progress. It takes up to a quarter longer to detect. While the
        /// connection makes progress on other streams, a stream has ten times as long for each 1 MiB,
        /// since the whole connection may be slow. Default: [`STREAM_OP_TIMEOUT`], 12 s.
        stream_op_timeout: Duration = STREAM_OP_TIMEOUT, TIMEOUT;
        /// How long sent data may stay unacknowledged before the connection ends with
        /// [`CloseReason::TimedOut`](net_traits::CloseReason::TimedOut): 1 ms to 10 min. Default: 16 s (msquic).
        disconnect_timeout: Duration = Duration::from_secs(16), DISCONNECT;
        /// Whether packets are spread over the round-trip time instead of being sent in bursts (RFC
        /// 9002, section 7.7). Default: true (msquic).
        pacing: bool = true;
        /// Whether routers may signal congestion by marks instead of loss (ECN, RFC 9000, section 13.4). Paths that
        /// do not carry the marks are recognized. Default: false (msquic).
        ecn: bool = false;
        /// How msquic's threads serve the connections of this transport. Default:
        /// [`ExecutionProfile::LowLatency`]. The processors, and how long threads poll, are chosen for the whole
        /// process, see [`set_processors`](crate::set_processors) and [`set_busy_polling`](crate::set_busy_polling).
        execution_profile: ExecutionProfile = ExecutionProfile::LowLatency;
        /// Settings of msquic that have no option here. **A setting here takes precedence** over
        /// the option with the same meaning and over the value that the transport would choose.
        /// Three cannot be set, since the delivery of messages depends on them: `send_buffering`,
        /// `zero_copy_receive`, and `resumption`, which is an option. What is set here is not adapted to
        /// other options: keep-alives to an idle timeout, or windows to each other. Default: none.
        ///
        /// ```
        /// use msquic_transport::{MsQuicTransportConfig, Settings};
        ///
        /// use std::time::Duration;
        ///
        /// let settings = Settings::new()
        ///     .hystart(true)
        ///     .idle_timeout(Duration::from_secs(7)) // whatever the option `idle_timeout` is
        ///     .keep_alive_interval(Duration::from_secs(2));
        /// let config = MsQuicTransportConfig::new().quic(settings);
        /// ```
        quic: Settings = Settings::new();
        /// Whether reconnecting peers resume their session, as server and as client, see
        /// [`Resumption`](msquic_async::Resumption). Peers are verified as in a full handshake. A
        /// change of a listener's credential and [`revoke`](crate::MsQuicTransport::revoke) invalidate
        /// all tickets of the transport. If libmsquic does not support it, listening and dialling fail
        /// with a typed error. Default: false.
        resumption: bool = false;
        /// The local address of outgoing connections; port 0 is any port. If the peer's address is of
        /// the other family, the system chooses. Default: the system chooses.
        local_addr: Option<SocketAddr> = None;
        /// Whether outgoing connections use the port of the transport's first listener that can reach
        /// the peer. Peers behind NATs can then connect by dialling each other at the same time, see
        /// [`Dial`](crate::Dial). Default: false.
        dial_from_listener: bool = false;
        /// Whether outgoing connections share sockets, so that thousands need only a few file
        /// descriptors per processor, see [`Dial`](crate::Dial). Default: true.
        share_sockets: bool = true;
    }
}

const DEFAULT_MESSAGE: usize = 64 * 1024 * 1024;

/// The range that msquic accepts.
const DISCONNECT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);

/// The lengths that a frame header can represent.
const MESSAGE: RangeInclusive<usize> = 1..=u32::MAX as usize;

impl MsQuicTransportConfig {
    /// The longest message in each direction, in bytes; at most 4 GiB - 1. Default: 64 MiB.
    #[must_use]
    pub fn max_message_size(self, value: usize) -> Self {
        self.max_sent_message(value).max_received_message(value)
    }

    /// Begins an operation that waits for the peer.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts::begin(self.stream_op_timeout, self.operation_timeout)
    }

    /// Checks the values of all options, as [`with_config`](crate::MsQuicTransport::with_config) does.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        check_memory(self.max_memory, self.max_received_message)?;
        let quic = self.quic.clone();
        if quic.send_buffering(None).zero_copy_receive(None).resumption(None) != self.quic {
            let value = "send_buffering, zero_copy_receive or resumption";
            return Err(ConfigError::new("quic", value, "other settings"));
        }
        self.settings().validate().map_err(|error| match error {
            ConfigurationError::InvalidSetting { name, value, range } => {
                ConfigError::new("quic", format!("{name} {value}"), range)
            }
            error => ConfigError::new("quic", error.to_string(), "other settings"),
        })
    }

    /// Returns the settings of msquic, without resumption.
    pub(crate) fn settings(&self) -> Settings {
        let named = Settings::new()
            .handshake_idle_timeout(self.handshake_timeout)
            .idle_timeout(self.idle_timeout)
            .keep_alive_interval(self.keep_alive().unwrap_or_default())
            .disconnect_timeout(self.disconnect_timeout)
            .peer_uni_streams(self.max_inbound_streams)
            .peer_bidi_streams(self.max_inbound_requests)
            .congestion_control(match self.congestion_control {
                CongestionControl::Bbr => msquic_async::CongestionControl::Bbr,
                _ => msquic_async::CongestionControl::Cubic,
            })
            .initial_rtt(self.initial_rtt)
            .initial_window_packets(self.initial_window_packets)
            .minimum_mtu(self.minimum_mtu)
            .maximum_mtu(self.maximum_mtu)
            .stream_receive_window(1 << self.stream_window().ilog2())
            .connection_window(self.connection_receive_window)
            .pacing(self.pacing)
            .datagrams(self.datagram_queue > 0)
            .ecn(self.ecn)
            // The stream's own queue is sufficient as a buffer and avoids a copy.
            .send_buffering(false);
        self.quic.clone().or(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msquic_async::Resumption;

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = MsQuicTransportConfig::new;
        let nanosecond = Duration::from_nanos(1);
        for (config, option) in [
            (config().max_message_size(1 << 40), "max_sent_message"),
            (config().max_received_message(0), "max_received_message"),
            (config().send_queue(0), "send_queue"),
            (config().max_send_queue(0), "max_send_queue"),
            (config().receive_queue(usize::MAX), "receive_queue"),
            (config().max_unfinished(0), "max_unfinished"),
            (config().max_memory(128 * 1024 * 1024 - 1), "max_memory"),
            (config().message_timeout(nanosecond), "message_timeout"),
            (config().send_streams(0), "send_streams"),
            (config().send_streams(usize::MAX), "send_streams"),
            (config().max_received_message(1 << 40), "max_received_message"),
            (config().receive_queue(0), "receive_queue"),
            (config().handshake_timeout(Duration::MAX), "handshake_timeout"),
            (config().stream_op_timeout(nanosecond), "stream_op_timeout"),
            (config().keep_alive_interval(Duration::MAX), "keep_alive_interval"),
            (config().maximum_mtu(u16::MAX), "maximum_mtu"),
            (config().max_inbound_streams(0), "max_inbound_streams"),
            (config().max_request_size(1 << 40), "max_request_size"),
            (config().max_connections(0), "max_connections"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().max_connections_per_identity(0), "max_connections_per_identity"),
            (config().max_handshakes(0), "max_handshakes"),
            (config().max_handshakes_per_ip(0), "max_handshakes_per_ip"),
            (config().backlog(0), "backlog"),
            (config().handshake_timeout(nanosecond), "handshake_timeout"),
            (config().stream_op_timeout(Duration::MAX), "stream_op_timeout"),
            (config().operation_timeout(nanosecond), "operation_timeout"),
            (config().linger(Duration::MAX), "linger"),
            (config().idle_timeout(nanosecond), "idle_timeout"),
            (config().idle_timeout(Duration::MAX), "idle_timeout"),
            (config().keep_alive_interval(nanosecond), "keep_alive_interval"),
            (config().maximum_mtu(1000), "maximum_mtu"),
            (config().minimum_mtu(1400).maximum_mtu(1300), "minimum_mtu"),
            (config().initial_rtt(nanosecond), "initial_rtt"),
            (config().initial_window_packets(0), "initial_window_packets"),
            (config().stream_receive_window(0), "stream_receive_window"),
            (config().connection_receive_window(u32::MAX), "connection_receive_window"),
            (config().disconnect_timeout(Duration::from_secs(601)), "disconnect_timeout"),
            (config().quic(Settings::new().send_buffering(true)), "quic"),
            (config().quic(Settings::new().zero_copy_receive(true)), "quic"),
            (config().quic(Settings::new().resumption(Resumption::new())), "quic"),
            (config().quic(Settings::new().initial_window_packets(0)), "quic"),
            (config().maximum_mtu(1300).quic(Settings::new().minimum_mtu(1400)), "quic"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
        assert_eq!(config().idle_timeout(Duration::ZERO).validate(), Ok(()));
    }
}
