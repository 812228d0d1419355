//! `NativeSettings`: the native form of [`Settings`](crate::Settings).

use msquic::ffi;
use std::convert::identity;
use std::mem;
use std::time::Duration;

/// How fast a sender grows.
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

/// Settings, of which those that were given count; the others keep libmsquic's defaults.
pub(crate) struct NativeSettings(ffi::QUIC_SETTINGS);

macro_rules! setters {
    ($($name:ident: $type:ty => $field:ident, $is_set:ident, $convert:expr;)*) => {
        impl NativeSettings {
            $(pub(crate) fn $name(&mut self, value: $type) {
                self.0.$field = $convert(value);
                // SAFETY: C10: plain integers.
                unsafe { self.0.__bindgen_anon_1.IsSet.$is_set(1) };
            })*
        }
    };
}

setters! {
    handshake_idle_timeout: Duration => HandshakeIdleTimeoutMs, set_HandshakeIdleTimeoutMs, millis_u64;
    idle_timeout: Duration => IdleTimeoutMs, set_IdleTimeoutMs, millis_u64;
    disconnect_timeout: Duration => DisconnectTimeoutMs, set_DisconnectTimeoutMs, millis_u32;
    keep_alive_interval: Duration => KeepAliveIntervalMs, set_KeepAliveIntervalMs, millis_u32;
    initial_rtt: Duration => InitialRttMs, set_InitialRttMs, millis_u32;
    max_ack_delay: Duration => MaxAckDelayMs, set_MaxAckDelayMs, millis_u32;
    stream_receive_window: u32 => StreamRecvWindowDefault, set_StreamRecvWindowDefault, power_of_two;
    connection_window: u32 => ConnFlowControlWindow, set_ConnFlowControlWindow, identity;
    peer_bidi_streams: u16 => PeerBidiStreamCount, set_PeerBidiStreamCount, identity;
    peer_uni_streams: u16 => PeerUnidiStreamCount, set_PeerUnidiStreamCount, identity;
    minimum_mtu: u16 => MinimumMtu, set_MinimumMtu, identity;
    maximum_mtu: u16 => MaximumMtu, set_MaximumMtu, identity;
    bidi_local_receive_window: u32 => StreamRecvWindowBidiLocalDefault,
        set_StreamRecvWindowBidiLocalDefault, power_of_two;
    bidi_remote_receive_window: u32 => StreamRecvWindowBidiRemoteDefault,
        set_StreamRecvWindowBidiRemoteDefault, power_of_two;
    uni_receive_window: u32 => StreamRecvWindowUnidiDefault,
        set_StreamRecvWindowUnidiDefault, power_of_two;
    stream_receive_buffer: u32 => StreamRecvBufferDefault, set_StreamRecvBufferDefault, power_of_two;
    congestion_control: CongestionControl => CongestionControlAlgorithm,
        set_CongestionControlAlgorithm, algorithm;
    initial_window_packets: u32 => InitialWindowPackets, set_InitialWindowPackets, identity;
    send_idle_timeout: Duration => SendIdleTimeoutMs, set_SendIdleTimeoutMs, millis_u32;
    max_bytes_per_key: u64 => MaxBytesPerKey, set_MaxBytesPerKey, identity;
    tls_client_send_buffer: u32 => TlsClientMaxSendBuffer, set_TlsClientMaxSendBuffer, identity;
    tls_server_send_buffer: u32 => TlsServerMaxSendBuffer, set_TlsServerMaxSendBuffer, identity;
    max_worker_queue_delay: Duration => MaxWorkerQueueDelayUs, set_MaxWorkerQueueDelayUs, micros_u32;
    max_stateless_operations: u32 => MaxStatelessOperations, set_MaxStatelessOperations, identity;
    max_binding_stateless_operations: u16 => MaxBindingStatelessOperations,
        set_MaxBindingStatelessOperations, identity;
    stateless_operation_expiration: Duration => StatelessOperationExpirationMs,
        set_StatelessOperationExpirationMs, millis_u16;
    max_operations_per_drain: u8 => MaxOperationsPerDrain, set_MaxOperationsPerDrain, identity;
    mtu_discovery_interval: Duration => MtuDiscoverySearchCompleteTimeoutUs,
        set_MtuDiscoverySearchCompleteTimeoutUs, micros_u64;
    mtu_discovery_probes: u8 => MtuDiscoveryMissingProbeCount,
        set_MtuDiscoveryMissingProbeCount, identity;
    dest_cid_update_idle_timeout: Duration => DestCidUpdateIdleTimeoutMs,
        set_DestCidUpdateIdleTimeoutMs, millis_u32;
}

macro_rules! flags {
    ($($name:ident => $value:ident, $is_set:ident;)*) => {
        impl NativeSettings {
            $(pub(crate) fn $name(&mut self, value: bool) {
                self.0.$value(value.into());
                // SAFETY: C10: plain integers.
                unsafe { self.0.__bindgen_anon_1.IsSet.$is_set(1) };
            })*
        }
    };
}

flags! {
    send_buffering => set_SendBufferingEnabled, set_SendBufferingEnabled;
    pacing => set_PacingEnabled, set_PacingEnabled;
    migration => set_MigrationEnabled, set_MigrationEnabled;
    datagrams => set_DatagramReceiveEnabled, set_DatagramReceiveEnabled;
    ecn => set_EcnEnabled, set_EcnEnabled;
    grease_quic_bit => set_GreaseQuicBitEnabled, set_GreaseQuicBitEnabled;
}

impl NativeSettings {
    pub(crate) fn new() -> Self {
        // SAFETY: the structure consists of integers only, for which zero is valid (C10).
        Self(unsafe { mem::zeroed() })
    }

    pub(super) fn get(&self) -> &ffi::QUIC_SETTINGS {
        &self.0
    }

    /// Sessions are resumed, without 0-RTT on either side (C31).
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

    /// Lets streams offer bytes while others are held (C36).
    pub(super) fn receive_several(&mut self) {
        // SAFETY: C10: plain integers.
        unsafe {
            self.0.__bindgen_anon_2.__bindgen_anon_1.set_StreamMultiReceiveEnabled(1);
            self.0.__bindgen_anon_1.IsSet.set_StreamMultiReceiveEnabled(1);
        }
    }
}

/// Whole milliseconds, rounded up so that a short time does not become "off".
fn millis_u64(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn micros_u64(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn micros_u32(time: Duration) -> u32 {
    u32::try_from(micros_u64(time)).unwrap_or(u32::MAX)
}

fn millis_u16(time: Duration) -> u16 {
    u16::try_from(millis_u64(time)).unwrap_or(u16::MAX)
}

fn millis_u32(time: Duration) -> u32 {
    u32::try_from(millis_u64(time)).unwrap_or(u32::MAX)
}

/// libmsquic takes stream windows that are powers of two only (C10).
fn power_of_two(bytes: u32) -> u32 {
    bytes.checked_next_power_of_two().unwrap_or(1 << 31)
}

fn algorithm(algorithm: CongestionControl) -> u16 {
    (match algorithm {
        CongestionControl::Cubic => {
            ffi::QUIC_CONGESTION_CONTROL_ALGORITHM_QUIC_CONGESTION_CONTROL_ALGORITHM_CUBIC
        }
        CongestionControl::Bbr => {
            ffi::QUIC_CONGESTION_CONTROL_ALGORITHM_QUIC_CONGESTION_CONTROL_ALGORITHM_BBR
        }
    }) as u16
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
