//! The native form of [`Settings`](crate::Settings).

use crate::Settings;
use crate::settings::CongestionControl;
use msquic::ffi;
use std::mem;
use std::time::Duration;

/// Fills the native structure: what is `None` keeps libmsquic's default.
pub(super) fn to_native(settings: &Settings) -> ffi::QUIC_SETTINGS {
    // SAFETY: the structure consists of integers only, for which zero is valid (C10).
    let mut native: ffi::QUIC_SETTINGS = unsafe { mem::zeroed() };
    // SAFETY: as above, for the bit set that says which fields count.
    let mut is_set = unsafe { native.__bindgen_anon_1.IsSet };

    macro_rules! set {
        ($($option:ident => $field:ident, $setter:ident, $convert:expr;)*) => {
            $(if let Some(value) = settings.$option {
                native.$field = $convert(value);
                is_set.$setter(1);
            })*
        };
    }
    set! {
        handshake_idle_timeout => HandshakeIdleTimeoutMs, set_HandshakeIdleTimeoutMs, millis_u64;
        idle_timeout => IdleTimeoutMs, set_IdleTimeoutMs, millis_u64;
        disconnect_timeout => DisconnectTimeoutMs, set_DisconnectTimeoutMs, millis_u32;
        keep_alive_interval => KeepAliveIntervalMs, set_KeepAliveIntervalMs, millis_u32;
        initial_rtt => InitialRttMs, set_InitialRttMs, millis_u32;
        max_ack_delay => MaxAckDelayMs, set_MaxAckDelayMs, millis_u32;
        stream_receive_window => StreamRecvWindowDefault, set_StreamRecvWindowDefault, power_of_two;
        connection_window => ConnFlowControlWindow, set_ConnFlowControlWindow, |bytes: u32| bytes;
        peer_bidi_streams => PeerBidiStreamCount, set_PeerBidiStreamCount, |count: u16| count;
        peer_uni_streams => PeerUnidiStreamCount, set_PeerUnidiStreamCount, |count: u16| count;
        minimum_mtu => MinimumMtu, set_MinimumMtu, |bytes: u16| bytes;
        maximum_mtu => MaximumMtu, set_MaximumMtu, |bytes: u16| bytes;
        bidi_local_receive_window => StreamRecvWindowBidiLocalDefault,
            set_StreamRecvWindowBidiLocalDefault, power_of_two;
        bidi_remote_receive_window => StreamRecvWindowBidiRemoteDefault,
            set_StreamRecvWindowBidiRemoteDefault, power_of_two;
        uni_receive_window => StreamRecvWindowUnidiDefault,
            set_StreamRecvWindowUnidiDefault, power_of_two;
        stream_receive_buffer => StreamRecvBufferDefault, set_StreamRecvBufferDefault, power_of_two;
        congestion_control => CongestionControlAlgorithm, set_CongestionControlAlgorithm, algorithm;
        initial_window_packets => InitialWindowPackets, set_InitialWindowPackets, |count: u32| count;
        send_idle_timeout => SendIdleTimeoutMs, set_SendIdleTimeoutMs, millis_u32;
        max_bytes_per_key => MaxBytesPerKey, set_MaxBytesPerKey, |bytes: u64| bytes;
        tls_client_send_buffer => TlsClientMaxSendBuffer, set_TlsClientMaxSendBuffer, |bytes: u32| bytes;
        tls_server_send_buffer => TlsServerMaxSendBuffer, set_TlsServerMaxSendBuffer, |bytes: u32| bytes;
        max_worker_queue_delay => MaxWorkerQueueDelayUs, set_MaxWorkerQueueDelayUs, micros_u32;
        max_stateless_operations => MaxStatelessOperations, set_MaxStatelessOperations, |count: u32| count;
        max_binding_stateless_operations => MaxBindingStatelessOperations,
            set_MaxBindingStatelessOperations, |count: u16| count;
        stateless_operation_expiration => StatelessOperationExpirationMs,
            set_StatelessOperationExpirationMs, millis_u16;
        max_operations_per_drain => MaxOperationsPerDrain, set_MaxOperationsPerDrain, |count: u8| count;
        mtu_discovery_interval => MtuDiscoverySearchCompleteTimeoutUs,
            set_MtuDiscoverySearchCompleteTimeoutUs, micros_u64;
        mtu_discovery_probes => MtuDiscoveryMissingProbeCount,
            set_MtuDiscoveryMissingProbeCount, |count: u8| count;
        dest_cid_update_idle_timeout => DestCidUpdateIdleTimeoutMs,
            set_DestCidUpdateIdleTimeoutMs, millis_u32;
    }
    macro_rules! set_flag {
        ($($option:ident => $value:ident, $setter:ident;)*) => {
            $(if let Some(value) = settings.$option {
                native.$value(value.into());
                is_set.$setter(1);
            })*
        };
    }
    set_flag! {
        send_buffering => set_SendBufferingEnabled, set_SendBufferingEnabled;
        pacing => set_PacingEnabled, set_PacingEnabled;
        migration => set_MigrationEnabled, set_MigrationEnabled;
        datagrams => set_DatagramReceiveEnabled, set_DatagramReceiveEnabled;
        ecn => set_EcnEnabled, set_EcnEnabled;
        grease_quic_bit => set_GreaseQuicBitEnabled, set_GreaseQuicBitEnabled;
    }
    if settings.resumption.is_some() {
        // Never 0-RTT, on either side (C31).
        let level = ffi::QUIC_SERVER_RESUMPTION_LEVEL_QUIC_SERVER_RESUME_ONLY;
        native.set_ServerResumptionLevel(level as u8);
        is_set.set_ServerResumptionLevel(1);
    }
    if let Some(value) = settings.hystart {
        // SAFETY: as above, for the second set of flags.
        unsafe { native.__bindgen_anon_2.__bindgen_anon_1.set_HyStartEnabled(value.into()) };
        is_set.set_HyStartEnabled(1);
    }
    native.__bindgen_anon_1.IsSet = is_set;
    native
}

/// Lets streams offer bytes while others are held (C36).
pub(super) fn receive_several(native: &mut ffi::QUIC_SETTINGS) {
    // SAFETY: C10: plain integers.
    unsafe {
        native.__bindgen_anon_2.__bindgen_anon_1.set_StreamMultiReceiveEnabled(1);
        native.__bindgen_anon_1.IsSet.set_StreamMultiReceiveEnabled(1);
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

fn millis_u32(time: Duration) -> u32 {
    u32::try_from(millis_u64(time)).unwrap_or(u32::MAX)
}

/// libmsquic takes stream windows that are powers of two only (C10).
fn power_of_two(bytes: u32) -> u32 {
    bytes.checked_next_power_of_two().unwrap_or(1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_set_and_flags_can_be_cleared() {
        // SAFETY: plain integers.
        let flags =
            |settings: &Settings| unsafe { to_native(settings).__bindgen_anon_1.IsSetFlags };
        assert_eq!(flags(&Settings::default()), 0);
        let off = Settings::new().send_buffering(false);
        assert_eq!(flags(&off).count_ones(), 1);
        assert_eq!(to_native(&off).SendBufferingEnabled(), 0);
        assert_eq!(to_native(&Settings::new().send_buffering(true)).SendBufferingEnabled(), 1);
        assert_eq!(flags(&off.send_buffering(None)), 0);
    }

    #[test]
    fn times_are_rounded_up_and_windows_to_powers_of_two() {
        let settings = Settings::new()
            .idle_timeout(Duration::from_micros(1))
            .keep_alive_interval(Duration::MAX)
            .stream_receive_window(100_000);
        let native = to_native(&settings);
        assert_eq!(native.IdleTimeoutMs, 1);
        assert_eq!(native.KeepAliveIntervalMs, u32::MAX);
        assert_eq!(native.StreamRecvWindowDefault, 131_072);
    }
}
