//! What all QUIC transports have: options, and the delay for older peers.

use crate::options::TIMEOUT;
use net_traits::ConfigError;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::timeout;

/// How a sender adapts its speed to the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// CUBIC (RFC 9438): slows down when packets are lost.
    #[default]
    Cubic,
    /// BBR: measures bandwidth and round-trip time. Both libraries call it experimental.
    Bbr,
}

/// The allowed initial round-trip times.
pub const INITIAL_RTT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);

/// The allowed initial congestion windows, in packets. RFC 9002, section 7.2, requires at least
/// two.
pub const INITIAL_WINDOW: RangeInclusive<u32> = 2..=1000;

/// The allowed sizes of IP packets, in bytes: from what QUIC requires over IPv6 (RFC 9000, section
/// 14) to that of jumbo frames.
pub const MTU: RangeInclusive<u16> = 1248..=9000;

/// The bytes of IPv6 and UDP headers in a packet.
pub const HEADERS: u16 = 48;

/// The allowed sizes of receive windows, in bytes.
pub const WINDOW: RangeInclusive<u32> = 4 * 1024..=1024 * 1024 * 1024;

/// More than one datagram and its bookkeeping take, in bytes.
pub const DATAGRAM: usize = 16 * 1024;

/// Checks that the minimum MTU is at most the maximum.
///
/// # Errors
///
/// [`ConfigError`] for `minimum_mtu`.
pub fn check_mtu(minimum: u16, maximum: u16) -> Result<(), ConfigError> {
    if minimum <= maximum {
        return Ok(());
    }
    let allowed = format!("at most maximum_mtu, which is {maximum}");
    Err(ConfigError::new("minimum_mtu", minimum.to_string(), allowed))
}

/// Returns the window of each stream, of at most `stream` bytes: three quarters of the window of
/// the connection in equal parts, and at least 4 KiB.
///
/// Data that the peer has sent and that waits, since a stream pauses or the application does not
/// read a question, takes from the window of the connection. Streams must not take it all: the one
/// that goes on would wait for them, and they for it. A quarter is left since libraries give credit
/// back in parts.
pub fn stream_window(stream: u32, connection: u32, streams: u16, requests: u16) -> u32 {
    let part = connection / 4 * 3 / (u32::from(streams) + u32::from(requests)).max(1);
    stream.min(part.max(*WINDOW.start()))
}

/// Checks that a duration is zero or at least a millisecond: QUIC has no shorter ones.
///
/// # Errors
///
/// [`ConfigError`] for `option`.
pub fn check_idle(option: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() || duration >= *TIMEOUT.start() {
        return Ok(());
    }
    Err(ConfigError::new(option, format!("{duration:?}"), "0, or at least 1ms"))
}

/// Gives a peer of an older version time to read, after everything is acknowledged and before the
/// connection is closed: older versions lose what they have not read. They have no receipts and accept
/// no requests. A peer with either, or that got no messages, needs no time.
///
/// Waits for `delay`, at least three round-trip times of `rtt`, or until the connection has `ended`.
/// Does not wait if `delay` is zero, or the peer needs no time.
///
/// # Cancel safety
///
/// Cancel-safe if `rtt` and `ended` are.
pub async fn let_older_peer_read<T>(
    needs_time: bool,
    delay: Duration,
    rtt: impl Future<Output = Duration>,
    ended: impl Future<Output = T>,
) {
    if needs_time && !delay.is_zero() {
        let _ = timeout(delay.max(rtt.await.saturating_mul(3)), ended).await;
    }
}

/// Adds the options of QUIC to a configuration that another macro of this crate defines.
///
/// The defaults of the windows differ between transports, so they are arguments.
///
/// ```
/// use net_kit::options::COUNT;
/// use net_traits::ConfigError;
///
/// net_kit::quic_options! {
///     options: stream_receive_window = 64 * 1024, "64 KiB",
///         connection_receive_window = 1024 * 1024, "1 MiB";
///     /// Options of an example.
///     pub struct Config {
///         /// Default: 10.
///         peers: usize = 10, COUNT;
///     }
/// }
///
/// impl Config {
///     /// Checks the values.
///     pub fn validate(&self) -> Result<(), ConfigError> {
///         self.check_ranges()
///     }
/// }
///
/// assert_eq!(Config::new().keep_alive(), Some(std::time::Duration::from_secs(10)));
/// let config = Config::new().minimum_mtu(1400).maximum_mtu(1300);
/// assert_eq!(config.validate().unwrap_err().option, "minimum_mtu");
/// assert_eq!(Config::new().maximum_mtu(9001).validate().unwrap_err().option, "maximum_mtu");
/// ```
#[macro_export]
macro_rules! quic_options {
    (
        $then:ident: stream_receive_window = $stream:expr, $stream_text:literal,
            connection_receive_window = $connection:expr, $connection_text:literal;
        $(#[$about:meta])* pub struct $config:ident { $($own:tt)* }
    ) => {
        $crate::$then! {
            $(#[$about])*
            pub struct $config {
                $($own)*
                /// How many accepted connections one IPv4 address or IPv6 /64 network may have,
                /// including handshakes. Default: 1000.
                max_connections_per_ip: usize = 1_000, $crate::options::COUNT;
                /// How many connection attempts may wait for `accept`; further ones are refused.
                /// From half of [`max_handshakes`](Self::max_handshakes) on, peers prove their
                /// address first (Retry, RFC 9000, section 8.1.2). Default: 256.
                backlog: usize = 256, $crate::options::COUNT;
                /// How many streams send messages. With one stream, messages arrive in the order in
                /// which they were queued. With more, each message uses the stream with the
                /// shortest queue: a large message does not delay later ones, but messages arrive
                /// in any order. Each stream has its own send queue. The peer's
                /// [`max_inbound_streams`](Self::max_inbound_streams) must allow these streams and
                /// two more, for urgent messages and for receipts; otherwise sending times out.
                /// Default: 1.
                send_streams: usize = 1, 1..=1024;
                /// How many message streams the peer may have open at once. Default: 16.
                max_inbound_streams: u16 = 16, 1..=u16::MAX;
                /// How many unanswered requests the peer may have at once; further ones wait at the
                /// peer. With 0, all of them wait until their deadline. Default: 16.
                max_inbound_requests: u16 = 16, $crate::options::REQUESTS;
                /// How long a connection may receive nothing from the peer; zero means no limit. The smaller
                /// value of both sides applies, and the side that has it sends enough keep-alives. Default:
                /// 30 s.
                idle_timeout: ::std::time::Duration = ::std::time::Duration::from_secs(30),
                    ::std::time::Duration::ZERO..=*$crate::options::TIMEOUT.end();
                /// Interval of keep-alives on an idle connection; zero means none. At most a third of
                /// [`idle_timeout`](Self::idle_timeout) is used. Default: 10 s.
                keep_alive_interval: ::std::time::Duration = ::std::time::Duration::from_secs(10),
                    ::std::time::Duration::ZERO..=*$crate::options::TIMEOUT.end();
                /// Size of the queue of datagrams that wait to be sent, and of the one of those that were not
                /// received, in bytes, with some bytes of bookkeeping for each, see
                /// [`NetDatagrams`](::net_traits::NetDatagrams). At the limit, sending is an error, and the
                /// oldest received one is dropped. With 0 there are no datagrams. Default: 64 KiB.
                datagram_queue: usize = 64 * 1024, 0..=*$crate::options::QUEUE.end();
                /// How long a `close` waits, after everything is acknowledged, for a peer that accepts
                /// no requests. Such a peer may be of an older version, which loses what it has not
                /// read when the connection is closed. At least three round-trip times, unless it is
                /// zero, and at most as long as sending may make no progress. Default: 100 ms.
                older_peer_delay: ::std::time::Duration = ::std::time::Duration::from_millis(100),
                    ::std::time::Duration::ZERO..=*$crate::options::TIMEOUT.end();
                /// How connections adapt their speed to the path. Default:
                /// [`CongestionControl::Cubic`]($crate::quic::CongestionControl).
                congestion_control: $crate::quic::CongestionControl =
                    $crate::quic::CongestionControl::Cubic;
                /// The round-trip time that is assumed until it is measured: 1 ms to 10 s. A
                /// handshake packet that is not answered is repeated after about three times as
                /// long. Default: 333 ms (RFC 9002, section 6.2.2).
                initial_rtt: ::std::time::Duration = ::std::time::Duration::from_millis(333),
                    $crate::quic::INITIAL_RTT;
                /// The congestion window of a new connection, in full packets of the least MTU: 2
                /// to 1000. A larger one helps short exchanges over long paths, and causes loss on
                /// narrow ones. Default: 10 (RFC 9002, section 7.2).
                initial_window_packets: u32 = 10, $crate::quic::INITIAL_WINDOW;
                /// The size of IP packets that every path is assumed to carry, in bytes: 1248 to
                /// 9000. A connection starts with it. An unpatched libmsquic, and any on macOS, has a
                /// limit of 1500. Default: 1248 (RFC 9000, section 14).
                minimum_mtu: u16 = 1248, $crate::quic::MTU;
                /// The largest IP packet that path MTU discovery tries, in bytes (RFC 8899): 1248
                /// to 9000. A smaller limit helps if a tunnel silently drops large packets. More than 1500
                /// helps on networks with jumbo frames and on loopback, if both peers permit it. An
                /// unpatched libmsquic, and any on macOS, has a limit of 1500. Default: 1500.
                maximum_mtu: u16 = 1500, $crate::quic::MTU;
                /// How many bytes of a stream the peer may send ahead of this side's reads: 4 KiB
                /// to 1 GiB. It bounds the throughput of a stream: one window per round trip. At
                /// most three quarters of
                /// [`connection_receive_window`](Self::connection_receive_window), divided by
                /// [`max_inbound_streams`](Self::max_inbound_streams) and
                /// [`max_inbound_requests`](Self::max_inbound_requests) together, is used: the rest
                /// is for streams that go on while the others wait. The answers to requests of this
                /// side are not counted: read them, or raise the window of the connection.
                #[doc = concat!("Default: ", $stream_text, ".")]
                stream_receive_window: u32 = $stream, $crate::quic::WINDOW;
                /// How many bytes of all streams of a connection the peer may send ahead of this
                /// side's reads: 4 KiB to 1 GiB. It bounds the memory that a peer can occupy, and
                /// the throughput of all streams: one window per round trip. With less than 6 KiB for each stream
                /// of the peer ([`max_inbound_streams`](Self::max_inbound_streams) and
                /// [`max_inbound_requests`](Self::max_inbound_requests)), streams that wait can
                /// block the other ones.
                #[doc = concat!("Default: ", $connection_text, ".")]
                connection_receive_window: u32 = $connection, $crate::quic::WINDOW;
            }
            check |config: &$config| {
                $crate::quic::check_idle("idle_timeout", config.idle_timeout)?;
                $crate::quic::check_idle("keep_alive_interval", config.keep_alive_interval)?;
                $crate::quic::check_mtu(config.minimum_mtu, config.maximum_mtu)
            }
        }

        impl $config {
            /// Returns how often an idle connection is kept alive.
            pub(crate) fn keep_alive(&self) -> Option<::std::time::Duration> {
                let interval =
                    $crate::options::keep_alive(self.keep_alive_interval, self.idle_timeout);
                Some(interval).filter(|interval| !interval.is_zero())
            }
        }

        impl $config {
            /// Returns the window of each stream of the peer.
            #[allow(dead_code, reason = "a configuration may use no windows")]
            pub(crate) fn stream_window(&self) -> u32 {
                $crate::quic::stream_window(
                    self.stream_receive_window,
                    self.connection_receive_window,
                    self.max_inbound_streams,
                    self.max_inbound_requests,
                )
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::{Instant, sleep};

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn only_older_peers_get_time_to_read() {
        let waits = async |needs_time, delay, rtt, ended: Duration| {
            let start = Instant::now();
            let ended =
                async { if ended.is_zero() { pending().await } else { sleep(ended).await } };
            let_older_peer_read(needs_time, delay, ready(rtt), ended).await;
            start.elapsed()
        };
        let never = Duration::ZERO;
        assert_eq!(waits(true, 100 * MS, 33 * MS, never).await, 100 * MS);
        assert_eq!(waits(true, 100 * MS, 40 * MS, never).await, 120 * MS);
        assert_eq!(waits(true, 100 * MS, 40 * MS, 7 * MS).await, 7 * MS, "the peer closes");
        assert_eq!(waits(true, Duration::ZERO, 40 * MS, never).await, Duration::ZERO);
        assert_eq!(waits(false, 100 * MS, 40 * MS, never).await, Duration::ZERO);
    }

    #[test]
    fn streams_that_wait_leave_a_quarter_of_the_window() {
        const MIB: u32 = 1024 * 1024;
        assert_eq!(stream_window(MIB, 64 * MIB, 16, 16), MIB);
        assert_eq!(stream_window(MIB, 16 * MIB, 16, 16), 384 * 1024);
        assert_eq!(stream_window(MIB, 16 * MIB, 12, 0), MIB);
        assert_eq!(stream_window(MIB, 4096, u16::MAX, u16::MAX), 4096);
        assert_eq!(stream_window(MIB, 4096, 0, 0), 4096);
    }

    #[test]
    fn the_minimum_mtu_is_at_most_the_maximum() {
        assert!(check_mtu(1300, 1300).is_ok());
        let error = check_mtu(1301, 1300).unwrap_err();
        assert_eq!(
            error.to_string(),
            "minimum_mtu is 1301: set it to at most maximum_mtu, which is 1300"
        );
    }
}
