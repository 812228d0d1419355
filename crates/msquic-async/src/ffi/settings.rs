//! The native form of [`Settings`](crate::Settings).

use crate::Settings;
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
    }
    native.__bindgen_anon_1.IsSet = is_set;
    native
}

/// Whole milliseconds, rounded up so that a short time does not become "off".
fn millis_u64(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
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
