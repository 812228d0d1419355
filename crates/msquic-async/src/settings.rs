//! `Settings`: the knobs of connections.

use std::time::Duration;

/// The knobs of connections. What is not set keeps msquic's default.
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
    pub(crate) handshake_idle_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) disconnect_timeout: Option<Duration>,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) initial_rtt: Option<Duration>,
    pub(crate) max_ack_delay: Option<Duration>,
    pub(crate) stream_receive_window: Option<u32>,
    pub(crate) connection_window: Option<u32>,
    pub(crate) peer_bidi_streams: Option<u16>,
    pub(crate) peer_uni_streams: Option<u16>,
    pub(crate) minimum_mtu: Option<u16>,
    pub(crate) maximum_mtu: Option<u16>,
    pub(crate) send_buffering: Option<bool>,
    pub(crate) pacing: Option<bool>,
    pub(crate) migration: Option<bool>,
    pub(crate) datagrams: Option<bool>,
}

macro_rules! knobs {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl Settings {
            /// All of msquic's defaults.
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$name = Some(value);
                self
            })*
        }
    };
}

knobs! {
    /// How long a handshake may get no answer. Default: 10 s. In milliseconds, rounded up.
    handshake_idle_timeout: Duration;
    /// How long a connection may hear nothing; zero means for ever. The smaller value of both
    /// sides counts. Default: 30 s. In milliseconds, rounded up.
    idle_timeout: Duration;
    /// How long sent data may stay unacknowledged. Default: 16 s. In milliseconds, rounded up.
    disconnect_timeout: Duration;
    /// How often an idle connection is kept alive; zero means never. Default: never. In
    /// milliseconds, rounded up.
    keep_alive_interval: Duration;
    /// What the round-trip time is taken for until it is measured. Default: 333 ms.
    initial_rtt: Duration;
    /// How long an acknowledgement may be held back. Default: 25 ms.
    max_ack_delay: Duration;
    /// How many bytes of a stream the peer may send ahead of the reader, rounded up to a power of
    /// two. Default: 64 KiB.
    stream_receive_window: u32;
    /// How many bytes of all streams the peer may send ahead of the readers. Default: 16 MiB.
    connection_window: u32;
    /// How many bidirectional streams the peer may have open at once. Default: 0.
    peer_bidi_streams: u16;
    /// How many unidirectional streams the peer may have open at once. Default: 0.
    peer_uni_streams: u16;
    /// The smallest size of UDP payloads that the path is taken to carry, in bytes. Default: 1248.
    minimum_mtu: u16;
    /// The largest size of UDP payloads that is tried, in bytes. Default: 1500.
    maximum_mtu: u16;
    /// Whether msquic copies what is sent, and completes a send then; otherwise it completes when
    /// the peer has acknowledged. Default: true.
    send_buffering: bool;
    /// Whether sends are spread over the round-trip time. Default: true.
    pacing: bool;
    /// Whether the peer may change its address. Default: true.
    migration: bool;
    /// Whether datagrams are received (RFC 9221). Default: false.
    datagrams: bool;
}
