//! `NativeSettings`: the native form of [`Settings`](crate::Settings).

use msquic::ffi;
use std::mem;
use std::time::Duration;

/// The congestion control algorithm.
///
/// ```
/// use msquic_async::{CongestionControl, Settings};
///
/// let settings = Settings::new().congestion_control(CongestionControl::Bbr);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CongestionControl {
    /// CUBIC (RFC 9438), the default.
    Cubic,
    /// BBR.
    Bbr,
}

/// Settings with values; the others keep libmsquic's defaults.
pub(crate) struct NativeSettings(ffi::QUIC_SETTINGS);

/// The settings of a connection, with libmsquic's values for those that were not set (C45).
pub(crate) struct InEffect(ffi::QUIC_SETTINGS);

macro_rules! setters {
    ($($name:ident: $type:ty => $field:ident, $is_set:ident, $convert:ident;)*) => {
        impl NativeSettings {
            $(pub(crate) fn $name(&mut self, value: $type) {
                self.0.$field = $convert::to_native(value);
                // SAFETY: C10: plain integers.
                unsafe { self.0.__bindgen_anon_1.IsSet.$is_set(1) };
            })*
        }

        impl InEffect {
            $(pub(crate) fn $name(&self) -> $type {
                $convert::from_native(self.0.$field)
            })*
        }
    };
}

setters! {
    handshake_idle_timeout: Duration => HandshakeIdleTimeoutMs, set_HandshakeIdleTimeoutMs, Millis;
    idle_timeout: Duration => IdleTimeoutMs, set_IdleTimeoutMs, Millis;
    disconnect_timeout: Duration => DisconnectTimeoutMs, set_DisconnectTimeoutMs, Millis;
    keep_alive_interval: Duration => KeepAliveIntervalMs, set_KeepAliveIntervalMs, Millis;
    initial_rtt: Duration => InitialRttMs, set_InitialRttMs, Millis;
    max_ack_delay: Duration => MaxAckDelayMs, set_MaxAckDelayMs, Millis;
    stream_receive_window: u32 => StreamRecvWindowDefault, set_StreamRecvWindowDefault, PowerOfTwo;
    connection_window: u32 => ConnFlowControlWindow, set_ConnFlowControlWindow, Same;
    peer_bidi_streams: u16 => PeerBidiStreamCount, set_PeerBidiStreamCount, Same;
    peer_uni_streams: u16 => PeerUnidiStreamCount, set_PeerUnidiStreamCount, Same;
    minimum_mtu: u16 => MinimumMtu, set_MinimumMtu, Same;
    maximum_mtu: u16 => MaximumMtu, set_MaximumMtu, Same;
    bidi_local_receive_window: u32 => StreamRecvWindowBidiLocalDefault,
        set_StreamRecvWindowBidiLocalDefault, PowerOfTwo;
    bidi_remote_receive_window: u32 => StreamRecvWindowBidiRemoteDefault,
        set_StreamRecvWindowBidiRemoteDefault, PowerOfTwo;
    uni_receive_window: u32 => StreamRecvWindowUnidiDefault,
        set_StreamRecvWindowUnidiDefault, PowerOfTwo;
    stream_receive_buffer: u32 => StreamRecvBufferDefault, set_StreamRecvBufferDefault, PowerOfTwo;
    congestion_control: CongestionControl => CongestionControlAlgorithm,
        set_CongestionControlAlgorithm, Algorithm;
    initial_window_packets: u32 => InitialWindowPackets, set_InitialWindowPackets, Same;
    send_idle_timeout: Duration => SendIdleTimeoutMs, set_SendIdleTimeoutMs, Millis;
    max_bytes_per_key: u64 => MaxBytesPerKey, set_MaxBytesPerKey, Same;
    max_operations_per_drain: u8 => MaxOperationsPerDrain, set_MaxOperationsPerDrain, Same;
    mtu_discovery_interval: Duration => MtuDiscoverySearchCompleteTimeoutUs,
        set_MtuDiscoverySearchCompleteTimeoutUs, Micros;
    mtu_discovery_probes: u8 => MtuDiscoveryMissingProbeCount,
        set_MtuDiscoveryMissingProbeCount, Same;
    dest_cid_update_idle_timeout: Duration => DestCidUpdateIdleTimeoutMs,
        set_DestCidUpdateIdleTimeoutMs, Millis;
}

macro_rules! flags {
    ($($name:ident => $get:ident, $set:ident, $is_set:ident;)*) => {
        impl NativeSettings {
            $(pub(crate) fn $name(&mut self, value: bool) {
                self.0.$set(value.into());
                // SAFETY: C10: plain integers.
                unsafe { self.0.__bindgen_anon_1.IsSet.$is_set(1) };
            })*
        }

        impl InEffect {
            $(pub(crate) fn $name(&self) -> bool {
                self.0.$get() != 0
            })*
        }
    };
}

flags! {
    send_buffering => SendBufferingEnabled, set_SendBufferingEnabled, set_SendBufferingEnabled;
    pacing => PacingEnabled, set_PacingEnabled, set_PacingEnabled;
    migration => MigrationEnabled, set_MigrationEnabled, set_MigrationEnabled;
    datagrams => DatagramReceiveEnabled, set_DatagramReceiveEnabled, set_DatagramReceiveEnabled;
    ecn => EcnEnabled, set_EcnEnabled, set_EcnEnabled;
    grease_quic_bit => GreaseQuicBitEnabled, set_GreaseQuicBitEnabled, set_GreaseQuicBitEnabled;
}

impl NativeSettings {
    pub(crate) fn new() -> Self {
        // SAFETY: the structure consists of integers only, for which zero is valid (C10).
        Self(unsafe { mem::zeroed() })
    }

    pub(super) fn get(&self) -> &ffi::QUIC_SETTINGS {
        &self.0
    }

    /// Enables resumption, without 0-RTT on either side (C31).
    pub(crate) fn resumption(&mut self) {
        let level = ffi::QUIC_SERVER_RESUMPTION_LEVEL_QUIC_SERVER_RESUME_ONLY;
        self.0.set_ServerResumptionLevel(level as u8);
        // SAFETY: C10: plain integers.
        unsafe { self.0.__bindgen_anon_1.IsSet.set_ServerResumptionLevel(1) };
    }

    pub(crate) fn hystart(&mut self, value: bool) {
        // SAFETY: C10: plain integers.
        unsafe {
            self.0.__bindgen_anon_2.__bindgen_anon_1.set_HyStartEnabled(value.into());
            self.0.__bindgen_anon_1.IsSet.set_HyStartEnabled(1);
        }
    }

    /// Makes streams offer bytes while others are held (C36).
    pub(super) fn receive_several(&mut self) {
        // SAFETY: C10: plain integers.
        unsafe {
            self.0.__bindgen_anon_2.__bindgen_anon_1.set_StreamMultiReceiveEnabled(1);
            self.0.__bindgen_anon_1.IsSet.set_StreamMultiReceiveEnabled(1);
        }
    }
}

impl InEffect {
    /// Calls `fill` to write the settings.
    pub(super) fn read<E>(
        fill: impl FnOnce(&mut ffi::QUIC_SETTINGS) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let NativeSettings(mut native) = NativeSettings::new();
        fill(&mut native)?;
        Ok(Self(native))
    }

    pub(crate) fn hystart(&self) -> bool {
        // SAFETY: C10: plain integers.
        unsafe { self.0.__bindgen_anon_2.__bindgen_anon_1.HyStartEnabled() != 0 }
    }
}

/// Converts a value to and from its form in `QUIC_SETTINGS`.
trait Convert<T, N> {
    fn to_native(value: T) -> N;
    fn from_native(native: N) -> T;
}

struct Same;

impl<T> Convert<T, T> for Same {
    fn to_native(value: T) -> T {
        value
    }

    fn from_native(native: T) -> T {
        native
    }
}

/// An unsigned integer of the structure.
trait Integer: TryFrom<u64> + Into<u64> {
    const MAX: Self;
}

macro_rules! integers {
    ($($integer:ty),*) => {
        $(impl Integer for $integer {
            const MAX: Self = Self::MAX;
        })*
    };
}

integers!(u32, u64);

/// Times in units of `NANOS`, rounded up so that a short time does not become "off".
struct Unit<const NANOS: u64>;

type Micros = Unit<1_000>;
type Millis = Unit<1_000_000>;

impl<const NANOS: u64, N: Integer> Convert<Duration, N> for Unit<NANOS> {
    fn to_native(time: Duration) -> N {
        let units = u64::try_from(time.as_nanos().div_ceil(NANOS.into())).unwrap_or(u64::MAX);
        N::try_from(units).unwrap_or(N::MAX)
    }

    fn from_native(native: N) -> Duration {
        Duration::from_nanos(native.into().saturating_mul(NANOS))
    }
}

/// Bytes of a stream window, which libmsquic requires to be a power of two (C10).
struct PowerOfTwo;

impl Convert<u32, u32> for PowerOfTwo {
    fn to_native(bytes: u32) -> u32 {
        bytes.checked_next_power_of_two().unwrap_or(1 << 31)
    }

    fn from_native(native: u32) -> u32 {
        native
    }
}

struct Algorithm;

const BBR: u16 =
    ffi::QUIC_CONGESTION_CONTROL_ALGORITHM_QUIC_CONGESTION_CONTROL_ALGORITHM_BBR as u16;
const CUBIC: u16 =
    ffi::QUIC_CONGESTION_CONTROL_ALGORITHM_QUIC_CONGESTION_CONTROL_ALGORITHM_CUBIC as u16;

impl Convert<CongestionControl, u16> for Algorithm {
    fn to_native(algorithm: CongestionControl) -> u16 {
        match algorithm {
            CongestionControl::Cubic => CUBIC,
            CongestionControl::Bbr => BBR,
        }
    }

    fn from_native(native: u16) -> CongestionControl {
        if native == BBR { CongestionControl::Bbr } else { CongestionControl::Cubic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn native(settings: &Settings) -> ffi::QUIC_SETTINGS {
        *settings.to_native().get()
    }

    #[test]
    fn only_what_is_given_is_set_and_flags_can_be_cleared() {
        // SAFETY: plain integers.
        let flags = |settings: &Settings| unsafe { native(settings).__bindgen_anon_1.IsSetFlags };
        assert_eq!(flags(&Settings::default()), 0);
        let off = Settings::new().send_buffering(false);
        assert_eq!(flags(&off).count_ones(), 1);
        assert_eq!(native(&off).SendBufferingEnabled(), 0);
        assert_eq!(native(&Settings::new().send_buffering(true)).SendBufferingEnabled(), 1);
        assert_eq!(flags(&off.send_buffering(None)), 0);
    }

    #[test]
    fn times_are_rounded_up_and_windows_to_powers_of_two() {
        let settings = Settings::new()
            .idle_timeout(Duration::from_micros(1))
            .keep_alive_interval(Duration::MAX)
            .stream_receive_window(100_000);
        let native = native(&settings);
        assert_eq!(native.IdleTimeoutMs, 1);
        assert_eq!(native.KeepAliveIntervalMs, u32::MAX);
        assert_eq!(native.StreamRecvWindowDefault, 131_072);
    }
}
