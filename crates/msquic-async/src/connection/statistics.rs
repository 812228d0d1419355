//! `ConnectionStatistics`: what msquic measures and what this crate counts.

use crate::buffer::DatagramCounts;
use crate::ffi::calls::NativeStatistics;
use crate::stream::StreamType;
use msquic::ffi;
use std::mem::offset_of;
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

impl ConnectionStatistics {
    /// Returns what msquic measured.
    pub(super) fn measured(statistics: &NativeStatistics) -> Self {
        let NativeStatistics { quic: native, length, bytes_in_flight } = statistics;
        let micros = |micros: u32| Duration::from_micros(micros.into());
        let sampled = |rtt: u32| (rtt != 0 && rtt != u32::MAX).then(|| micros(rtt));
        let fills = |offset: usize| *length > offset;
        Self {
            rtt: micros(native.Rtt),
            min_rtt: sampled(native.MinRtt),
            max_rtt: sampled(native.MaxRtt),
            rtt_variance: fills(offset_of!(ffi::QUIC_STATISTICS_V2, RttVariance))
                .then(|| micros(native.RttVariance)),
            congestion_window: native.SendCongestionWindow,
            bytes_in_flight: *bytes_in_flight,
            path_mtu: native.SendPathMtu,
            sent_packets: native.SendTotalPackets,
            sent_bytes: native.SendTotalBytes,
            sent_stream_bytes: native.SendTotalStreamBytes,
            ack_eliciting_packets: native.SendRetransmittablePackets,
            lost_packets: native
                .SendSuspectedLostPackets
                .saturating_sub(native.SendSpuriousLostPackets),
            spurious_lost_packets: native.SendSpuriousLostPackets,
            congestion_events: native.SendCongestionCount,
            persistent_congestion_events: native.SendPersistentCongestionCount,
            ecn_congestion_events: fills(offset_of!(
                ffi::QUIC_STATISTICS_V2,
                SendEcnCongestionCount
            ))
            .then_some(native.SendEcnCongestionCount),
            ecn_capable: native.EcnCapable() != 0,
            received_packets: native.RecvTotalPackets,
            received_bytes: native.RecvTotalBytes,
            received_stream_bytes: native.RecvTotalStreamBytes,
            reordered_packets: native.RecvReorderedPackets,
            duplicate_packets: native.RecvDuplicatePackets,
            dropped_packets: native.RecvDroppedPackets,
            undecryptable_packets: native.RecvDecryptionFailures,
            key_updates: native.KeyUpdateCount,
            address_validated_by_retry: native.StatelessRetry() != 0,
            ..Self::default()
        }
    }
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
