//! `Settings`: the settings of connections. A setter takes a value, or `None` to clear it again.

use crate::ffi::configuration::CipherSuite;
use crate::ffi::holding::Holding;
use crate::ffi::library::{LibraryVersion, has_patch, library_version};
use crate::ffi::raw::TrustedPeers;
use crate::ffi::settings::{CongestionControl, InEffect, NativeSettings};
use crate::{ConfigurationError, Resumption};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Whether streams read from msquic's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum ZeroCopy {
    #[default]
    No,
    /// If the loaded library is known to leave the bytes alone.
    WhereSound,
    /// With any library: the application promises that peers send no overlapping bytes with other
    /// content.
    Trusted,
    /// As with a library that supports one receive at a time only.
    #[cfg(any(test, feature = "testing"))]
    OneByOne,
}

/// The first version of libmsquic that does not overwrite received bytes when the peer sends them
/// again with other content (contract C32). Builds before the release 2.6.0 report that version
/// too.
const KEEPS_RECEIVED: LibraryVersion = LibraryVersion { major: 2, minor: 6, patch: 1, build: 0 };

/// RFC 9000, section 18.2, allows less than 2^14 ms. With 0, msquic's minimum delay would exceed
/// the maximum, which peers reject.
const ACK_DELAYS: RangeInclusive<Duration> =
    Duration::from_nanos(1)..=Duration::from_millis(16_383);

/// msquic allocates 4 KiB of each window in advance, and doubles windows in 32 bits.
const WINDOWS: RangeInclusive<u32> = 1 << 12..=1 << 30;

impl Settings {
    /// Whether streams read received bytes in msquic's memory, instead of copying them. Default:
    /// false. It takes effect with the vendored libmsquic, or 2.6.1 and later, and in the settings
    /// of a configuration, not with [`Connection::set_settings`](crate::Connection::set_settings);
    /// otherwise bytes are copied.
    ///
    /// A [`StreamRecvBuffer`](crate::StreamRecvBuffer) borrows msquic's memory until it and all its
    /// clones and parts are dropped, in any order, on any thread. The peer gets credit for the
    /// bytes of a stream in their order, up to the first buffer that is not dropped. So a buffer
    /// that is kept stops its stream when the stream's window behind it is full, and takes as much
    /// from the window of the connection; copy bytes that are kept for long. The end of the stream
    /// may be reported only when all buffers are dropped, and only then does the peer get credit
    /// for another stream. With an installed libmsquic, which lacks the patch I6180, no more bytes
    /// of a stream are delivered while one of its buffers exists. The limit
    /// [`StreamLimits::receive_buffer`](crate::StreamLimits) does not apply: the windows do. A
    /// stream's memory is at most twice its window, which msquic raises up to twice the window of
    /// the connection.
    ///
    /// It takes up to 17 % less processor time per byte than copying (`benches/receive.rs`). It is
    /// off by default, because a reader that collects buffers until the end of the stream would
    /// wait for ever once the window is full. A [`ReceiveSink`](crate::ReceiveSink) borrows the
    /// bytes in any case and is not affected.
    ///
    /// ```
    /// use msquic_async::Settings;
    ///
    /// let settings = Settings::new().zero_copy_receive(true).stream_receive_window(1024 * 1024);
    /// ```
    #[must_use]
    pub fn zero_copy_receive(mut self, value: impl Into<Option<bool>>) -> Self {
        let is_wanted = value.into().unwrap_or(false);
        self.zero_copy_receive = if is_wanted { ZeroCopy::WhereSound } else { ZeroCopy::No };
        self
    }

    /// Enables [`zero_copy_receive`](Self::zero_copy_receive) with any libmsquic, on the promise of
    /// [`TrustedPeers`].
    #[must_use]
    pub fn zero_copy_receive_from_trusted_peers(mut self, _: TrustedPeers) -> Self {
        self.zero_copy_receive = ZeroCopy::Trusted;
        self
    }

    /// Resumes sessions with the tickets in this value. It takes effect in the settings of a
    /// configuration only. Default: sessions are not resumed. See [`Resumption`].
    #[must_use]
    pub fn resumption(mut self, value: impl Into<Option<Resumption>>) -> Self {
        self.resumption = value.into();
        self
    }

    /// The cipher suites that this side permits; an attempt whose sides have none in common fails. It takes
    /// effect in the settings of a configuration only. Default: all. Of those that both sides permit, the listener
    /// chooses the first in the order of [`CipherSuite`]; without the vendored library, in msquic's order,
    /// in which AES-256-GCM is first.
    ///
    /// ```
    /// use msquic_async::{CipherSuite, Settings};
    ///
    /// let settings = Settings::new().cipher_suites(vec![CipherSuite::Aes256Gcm]);
    /// ```
    #[must_use]
    pub fn cipher_suites(mut self, value: impl Into<Option<Vec<CipherSuite>>>) -> Self {
        self.cipher_suites = value.into();
        self
    }

    /// Checks the values, as [`Configuration::client`](crate::Configuration::client) does: fails
    /// for values that msquic accepts but cannot work with.
    ///
    /// ```
    /// use msquic_async::Settings;
    ///
    /// assert!(Settings::new().initial_window_packets(0).validate().is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::InvalidSetting`] for the first such value.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        let invalid = |name, value: String, range| {
            Err(ConfigurationError::InvalidSetting { name, value, range })
        };
        if let Some(delay) = self.max_ack_delay.filter(|delay| !ACK_DELAYS.contains(delay)) {
            return invalid("max_ack_delay", format!("{delay:?}"), "1 ms to 16383 ms");
        }
        if self.initial_window_packets == Some(0) {
            return invalid("initial_window_packets", "0".to_owned(), "1 or more");
        }
        if let (Some(minimum), Some(maximum)) = (self.minimum_mtu, self.maximum_mtu)
            && minimum > maximum
        {
            return invalid("minimum_mtu", minimum.to_string(), "at most maximum_mtu");
        }
        if self.cipher_suites.as_ref().is_some_and(Vec::is_empty) {
            return invalid("cipher_suites", "empty".to_owned(), "one or more");
        }
        let windows = [
            ("connection_window", self.connection_window),
            ("stream_receive_window", self.stream_receive_window),
            ("bidi_local_receive_window", self.bidi_local_receive_window),
            ("bidi_remote_receive_window", self.bidi_remote_receive_window),
            ("uni_receive_window", self.uni_receive_window),
            ("stream_receive_buffer", self.stream_receive_buffer),
        ];
        let given = windows.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        if let Some((name, bytes)) = given.into_iter().find(|(_, bytes)| !WINDOWS.contains(bytes)) {
            return invalid(name, format!("{bytes} bytes"), "2^12 to 2^30 bytes");
        }
        let all = self.stream_receive_window.unwrap_or(1 << 16);
        let own = [
            self.bidi_local_receive_window,
            self.bidi_remote_receive_window,
            self.uni_receive_window,
        ];
        let smallest = own.into_iter().map(|window| window.unwrap_or(all)).min().unwrap_or(all);
        match self.stream_receive_buffer {
            Some(bytes) if bytes.next_power_of_two() > smallest.next_power_of_two() => {
                let range = "4 KiB to the smallest window of streams";
                invalid("stream_receive_buffer", format!("{bytes} bytes"), range)
            }
            _ => Ok(()),
        }
    }

    /// How streams hold what they receive, with the library of this process.
    pub(crate) fn holding(&self) -> Holding {
        let keeps_received =
            || has_patch("U5") || library_version().is_ok_and(|version| version >= KEEPS_RECEIVED);
        match self.zero_copy_receive {
            ZeroCopy::No => Holding::No,
            ZeroCopy::WhereSound if !keeps_received() => Holding::No,
            // One receive at a time cannot stall (contract C32, C36).
            ZeroCopy::WhereSound | ZeroCopy::Trusted if !has_patch("I6180") => Holding::OneByOne,
            ZeroCopy::WhereSound | ZeroCopy::Trusted => Holding::Several,
            #[cfg(any(test, feature = "testing"))]
            ZeroCopy::OneByOne => Holding::OneByOne,
        }
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        /// The settings of connections. A setting without a value keeps msquic's default.
        ///
        /// ```
        /// use msquic_async::Settings;
        /// use std::time::Duration;
        ///
        /// let settings = Settings::new()
        ///     .idle_timeout(Duration::from_secs(60))
        ///     .keep_alive_interval(Duration::from_secs(20))
        ///     .peer_uni_streams(16);
        /// ```
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
        pub struct Settings {
            $(pub(crate) $name: Option<$type>,)*
            pub(crate) resumption: Option<Resumption>,
            pub(crate) cipher_suites: Option<Vec<CipherSuite>>,
            pub(crate) zero_copy_receive: ZeroCopy,
        }

        impl Settings {
            /// Creates settings without values: msquic's defaults apply.
            ///
            /// ```
            /// use msquic_async::Settings;
            ///
            /// let settings = Settings::new().datagrams(true);
            /// assert_eq!(settings.datagrams(None), Settings::new());
            /// ```
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: impl Into<Option<$type>>) -> Self {
                self.$name = value.into();
                self
            })*

            /// Returns these settings, with the values of `defaults` where none is set here.
            ///
            /// ```
            /// use msquic_async::Settings;
            ///
            /// let defaults = Settings::new().datagrams(true).ecn(true);
            /// let settings = Settings::new().ecn(false).or(defaults);
            /// assert_eq!(settings, Settings::new().datagrams(true).ecn(false));
            /// ```
            #[must_use]
            pub fn or(self, defaults: Self) -> Self {
                Self {
                    $($name: self.$name.or(defaults.$name),)*
                    resumption: self.resumption.or(defaults.resumption),
                    cipher_suites: self.cipher_suites.or(defaults.cipher_suites),
                    zero_copy_receive: match self.zero_copy_receive {
                        ZeroCopy::No => defaults.zero_copy_receive,
                        given => given,
                    },
                }
            }

            /// The settings that a connection uses.
            pub(crate) fn in_effect(native: &InEffect) -> Self {
                Self { $($name: Some(native.$name()),)* ..Self::default() }
            }

            /// Returns the native form of the settings that libmsquic has.
            pub(crate) fn to_native(&self) -> NativeSettings {
                let mut native = NativeSettings::new();
                $(if let Some(value) = self.$name {
                    native.$name(value);
                })*
                if self.resumption.is_some() {
                    native.resumption();
                }
                native
            }
        }
    };
}

settings! {
    /// How long a handshake may receive nothing. An attempt at a listener has the value of the listener's
    /// configuration, also while it waits to be accepted. Default: 10 s. In milliseconds, rounded up.
    handshake_idle_timeout: Duration;
    /// The idle timeout: how long a connection may receive nothing; zero means no limit. The
    /// smaller value of both sides applies. Default: 30 s. In milliseconds, rounded up.
    idle_timeout: Duration;
    /// How long sent data may stay unacknowledged. Default: 16 s. In milliseconds, rounded up.
    disconnect_timeout: Duration;
    /// The interval of keep-alives on an idle connection; zero means none. Default: none. In
    /// milliseconds, rounded up.
    keep_alive_interval: Duration;
    /// The round-trip time that is assumed until it is measured. Default: 333 ms.
    initial_rtt: Duration;
    /// How long an acknowledgement may be delayed, 1 ms to 16383 ms. Default: 25 ms. In
    /// milliseconds, rounded up.
    max_ack_delay: Duration;
    /// How many bytes of a stream the peer may send ahead of the reader, rounded up to a power of
    /// two, 4 KiB to 1 GiB. Default: 64 KiB.
    stream_receive_window: u32;
    /// How many bytes of all streams the peer may send ahead of the readers, 4 KiB to 1 GiB. Default: 16 MiB.
    connection_window: u32;
    /// How many bidirectional streams the peer may have open at once. Default: 0.
    peer_bidi_streams: u16;
    /// How many unidirectional streams the peer may have open at once. Default: 0.
    peer_uni_streams: u16;
    /// The size of IP packets that every path is assumed to carry, in bytes: 1248 to 9000, or to 1500
    /// without the patch N62 and on macOS; a larger value has the effect of that limit. Default: 1248.
    minimum_mtu: u16;
    /// The largest size of IP packets that is tried, in bytes: as `minimum_mtu`. More than 1500 also
    /// needs the permission of the peer. Default: 1500.
    maximum_mtu: u16;
    /// Whether msquic copies sent data and completes a send when it has copied it; otherwise it
    /// completes when the peer has acknowledged it. Default: true.
    send_buffering: bool;
    /// Whether sends are spread over the round-trip time. Default: true.
    pacing: bool;
    /// Whether the peer may change its address. Default: true.
    migration: bool;
    /// Whether datagrams are received (RFC 9221). Default: false.
    datagrams: bool;
    /// As [`stream_receive_window`](Self::stream_receive_window), for bidirectional streams that this
    /// side opens.
    bidi_local_receive_window: u32;
    /// As [`stream_receive_window`](Self::stream_receive_window), for bidirectional streams that the
    /// peer opens.
    bidi_remote_receive_window: u32;
    /// As [`stream_receive_window`](Self::stream_receive_window), for unidirectional streams.
    uni_receive_window: u32;
    /// How many bytes a stream allocates for receiving when it starts, rounded up to a power of
    /// two. Default: 4 KiB.
    stream_receive_buffer: u32;
    /// The congestion control algorithm. Default: CUBIC.
    congestion_control: CongestionControl;
    /// How many packets the congestion window holds at the start. Default: 10.
    initial_window_packets: u32;
    /// After how long without sending the congestion window is reset. Default: 1 s.
    send_idle_timeout: Duration;
    /// Whether slow start ends early when the round-trip time grows (HyStart++, RFC 9406). Takes
    /// effect with the vendored libmsquic (patch N42). Default: false.
    hystart: bool;
    /// Whether explicit congestion notification is used. Default: false.
    ecn: bool;
    /// Whether the fixed bit of packets is greased (RFC 9287). Default: false.
    grease_quic_bit: bool;
    /// After how many bytes the keys are updated (RFC 9001, section 6). Default: 2^38.
    max_bytes_per_key: u64;
    /// How many operations of one connection msquic processes in a row. Default: 16.
    max_operations_per_drain: u8;
    /// How long the search for a larger MTU pauses after it has ended. Default: 10 min.
    mtu_discovery_interval: Duration;
    /// How many probes of one size are sent in that search. Default: 3.
    mtu_discovery_probes: u8;
    /// After how long without traffic the connection ID of the peer is changed. Default: 20 s.
    dest_cid_update_idle_timeout: Duration;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_msquic_cannot_work_with_are_refused() {
        let error = |settings: Settings| settings.validate().unwrap_err().to_string();
        let ms = Duration::from_millis;
        assert_eq!(
            error(Settings::new().max_ack_delay(Duration::ZERO)),
            "the setting max_ack_delay is 0ns, outside of 1 ms to 16383 ms"
        );
        error(Settings::new().max_ack_delay(ms(16_384)));
        assert!(Settings::new().max_ack_delay(ms(16_383)).validate().is_ok());
        let window = (1 << 30) + 1;
        error(Settings::new().connection_window(window));
        error(Settings::new().uni_receive_window(window));
        error(Settings::new().uni_receive_window(4095));
        error(Settings::new().initial_window_packets(0));
        error(Settings::new().cipher_suites(vec![]));
        error(Settings::new().stream_receive_buffer(1 << 20));
        error(Settings::new().minimum_mtu(1400).maximum_mtu(1300));
        let both = Settings::new().stream_receive_buffer(1 << 20).stream_receive_window(1 << 20);
        assert!(both.validate().is_ok());
        assert!(Settings::new().stream_receive_window(window - 1).validate().is_ok());
    }
}
