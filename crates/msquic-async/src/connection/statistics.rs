//! `ConnectionStatistics`: what msquic measures and what this crate counts.

use crate::buffer::DatagramCounts;
use crate::stream::StreamType;
use std::time::Duration;

/// Measurements of a connection since its start.
///
/// Measurements of the path start again when the path changes. `None` means that nothing was measured yet, or
/// that the library is too old to report it.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let statistics = connection.statistics().await?;
/// let lost = statistics.lost_packets as f64 / statistics.sent_packets as f64;
/// println!("{:.1} % lost, {:?} round trip", lost * 100.0, statistics.rtt);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// The smoothed round-trip time (RFC 9002); msquic's initial estimate before the first sample.
    pub rtt: Duration,
    /// The shortest round-trip time seen; `None` before the first sample.
    pub min_rtt: Option<Duration>,
    /// The longest round-trip time seen; `None` before the first sample.
    pub max_rtt: Option<Duration>,
    /// The variation of the round-trip time (RFC 9002, section 5.3); `None` with libmsquic before 2.5.
    pub rtt_variance: Option<Duration>,
    /// The congestion window, in bytes.
    pub congestion_window: u32,
    /// Bytes sent that are neither acknowledged nor lost; `None` with libmsquic before 2.6.
    pub bytes_in_flight: Option<u32>,
    /// The largest UDP payload that the path carries, in bytes.
    pub path_mtu: u16,
    /// QUIC packets sent.
    pub sent_packets: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Bytes of stream data sent.
    pub sent_stream_bytes: u64,
    /// Packets sent that the peer has to acknowledge.
    pub ack_eliciting_packets: u64,
    /// Packets that were lost, without those that were declared lost and acknowledged later.
    pub lost_packets: u64,
    /// Packets that were declared lost and acknowledged later.
    pub spurious_lost_packets: u64,
    /// How often the congestion window was reduced.
    pub congestion_events: u32,
    /// How often it was reduced to its minimum (RFC 9002, section 7.6).
    pub persistent_congestion_events: u32,
    /// How often it was reduced because of ECN; `None` with libmsquic before 2.2.
    pub ecn_congestion_events: Option<u32>,
    /// Whether the path carries ECN marks (RFC 9000, section 13.4).
    pub ecn_capable: bool,
    /// QUIC packets received.
    pub received_packets: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// Bytes of stream data received.
    pub received_stream_bytes: u64,
    /// Packets received after one with a higher number.
    pub reordered_packets: u64,
    /// Packets received more than once.
    pub duplicate_packets: u64,
    /// Packets that were received and discarded.
    pub dropped_packets: u64,
    /// Packets that could not be decrypted.
    pub undecryptable_packets: u64,
    /// How often the keys were updated (RFC 9001, section 6).
    pub key_updates: u32,
    /// Whether the client had to validate its address with a Retry packet, see
    /// [`require_address_validation`](crate::require_address_validation).
    pub address_validated_by_retry: bool,
    /// Whether the handshake resumed the session of an earlier connection, see [`Resumption`](crate::Resumption).
    pub resumed: bool,
    /// How many streams this side opened.
    pub opened_streams: StreamCounts,
    /// How many streams the peer opened.
    pub inbound_streams: StreamCounts,
    /// How many datagrams were sent and received.
    pub datagrams: DatagramCounts,
}

/// How many streams were opened since the start of a connection, by type.
///
/// ```
/// use msquic_async::StreamCounts;
///
/// assert_eq!(StreamCounts::default().bidirectional, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamCounts {
    /// Bidirectional streams.
    pub bidirectional: u64,
    /// Unidirectional streams.
    pub unidirectional: u64,
}

impl StreamCounts {
    pub(crate) fn add(&mut self, stream_type: StreamType) {
        match stream_type {
            StreamType::Bidirectional => self.bidirectional += 1,
            StreamType::Unidirectional => self.unidirectional += 1,
        }
    }
}
