//! `MsQuicTransportConfig`: limits and timeouts.

use crate::stream_pool::STREAM_OP_TIMEOUT;
use std::net::SocketAddr;
use std::time::Duration;

/// Limits and timeouts of a transport.
///
/// ```
/// use msquic_transport::{MsQuicTransport, MsQuicTransportConfig};
/// use std::time::Duration;
///
/// let config = MsQuicTransportConfig::new()
///     .max_message_size(1024 * 1024)
///     .idle_timeout(Duration::from_secs(60));
/// let transport = MsQuicTransport::with_config(config);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsQuicTransportConfig {
    pub(crate) max_sent_message: usize,
    pub(crate) max_received_message: usize,
    pub(crate) send_queue: usize,
    pub(crate) max_send_queue: usize,
    pub(crate) receive_queue: usize,
    pub(crate) send_streams: usize,
    pub(crate) max_inbound_streams: u16,
    pub(crate) max_inbound_requests: u16,
    pub(crate) max_request_size: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: usize,
    pub(crate) max_connections_per_identity: usize,
    pub(crate) max_handshakes: usize,
    pub(crate) backlog: usize,
    pub(crate) stream_op_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) maximum_mtu: u16,
    pub(crate) resumption: bool,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) dial_from_listener: bool,
    pub(crate) share_sockets: bool,
}

const MAX_MESSAGE: usize = 64 * 1024 * 1024;

impl Default for MsQuicTransportConfig {
    fn default() -> Self {
        Self {
            max_sent_message: MAX_MESSAGE,
            max_received_message: MAX_MESSAGE,
            send_queue: 1024 * 1024,
            max_send_queue: 16 * 1024 * 1024,
            receive_queue: 4 * 1024 * 1024,
            send_streams: 1,
            max_inbound_streams: 16,
            max_inbound_requests: 16,
            max_request_size: 1024 * 1024,
            max_connections: 10_000,
            max_connections_per_ip: 1_000,
            max_connections_per_identity: 16,
            max_handshakes: 256,
            backlog: 256,
            stream_op_timeout: STREAM_OP_TIMEOUT,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(10),
            maximum_mtu: 1500,
            resumption: false,
            local_addr: None,
            dial_from_listener: false,
            share_sockets: true,
        }
    }
}

/// Defines setters for the fields of a configuration, with their documentation.
macro_rules! options {
    ($config:ident: $($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl $config {
            /// Creates a configuration with the default values.
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$name = value;
                self
            })*
        }
    };
}

impl MsQuicTransportConfig {
    /// The longest message in each direction, in bytes; at most 4 GiB - 1. Default: 64 MiB.
    #[must_use]
    pub fn max_message_size(self, value: usize) -> Self {
        self.max_sent_message(value).max_received_message(value)
    }
}

options! {
    MsQuicTransportConfig:

    /// The longest message to send, in bytes. Default: 64 MiB.
    max_sent_message: usize;
    /// The longest message to receive, in bytes. Default: 64 MiB.
    max_received_message: usize;
    /// Size of the send queue in bytes, including data sent but not acknowledged. While it is full,
    /// `send` waits. A single message may exceed it. It grows up to
    /// [`max_send_queue`](Self::max_send_queue) if the path can carry more in flight. Default: 1
    /// MiB.
    send_queue: usize;
    /// The upper limit for the growth of [`send_queue`](Self::send_queue). Default: 16 MiB.
    max_send_queue: usize;
    /// Size of the receive queue in bytes, including 128 bytes of bookkeeping per message. While it
    /// is full, the peer is throttled. The message being received on each stream and data that
    /// msquic has not delivered come on top. Default: 4 MiB.
    receive_queue: usize;
    /// How many streams send messages. With one stream, messages arrive in the order in which they
    /// were queued. With more, each message uses the stream with the shortest queue. A large
    /// message then does not delay later ones, but messages arrive in any order. Each stream has
    /// its own [`send_queue`](Self::send_queue). The peer's
    /// [`max_inbound_streams`](Self::max_inbound_streams) must allow these streams and one for
    /// urgent messages; otherwise sending times out. Default: 1.
    send_streams: usize;
    /// How many message streams the peer may have open at once. Default: 16.
    max_inbound_streams: u16;
    /// How many unanswered requests the peer may have at once; further ones wait at the peer.
    /// Default: 16.
    max_inbound_requests: u16;
    /// The longest question or answer, in bytes. Default: 1 MiB.
    max_request_size: usize;
    /// How many accepted connections all listeners of the transport may have at once, including
    /// handshakes. Further attempts are refused. A connection counts until its last handle is
    /// dropped, even if it has ended. Default: 10 000.
    max_connections: usize;
    /// How many of them one IPv4 address or IPv6 /64 network may have. Default: 1000.
    max_connections_per_ip: usize;
    /// How many of them one identity may have. This limits peers whose identities are listed. A
    /// peer that is trusted by an endorsement can create further identities. Default: 16.
    max_connections_per_identity: usize;
    /// How many accepted connections may be in their handshake at once. Default: 256.
    max_handshakes: usize;
    /// How many connection attempts may wait for `accept`; further ones are refused. Default: 256.
    backlog: usize;
    /// How long sending may make no progress. It takes up to a quarter longer to detect. While the
    /// connection makes progress on other streams, a stream has ten times as long for each 1 MiB,
    /// since the whole connection may be slow. Default: [`STREAM_OP_TIMEOUT`], 12 s.
    stream_op_timeout: Duration;
    /// How long a handshake may take. Default: 10 s.
    handshake_timeout: Duration;
    /// How long a connection may receive nothing from the peer; zero means no limit. The smaller
    /// value of both sides applies. Default: 30 s.
    idle_timeout: Duration;
    /// Interval of keep-alives on an idle connection; zero means none. Default: 10 s.
    keep_alive_interval: Duration;
    /// The largest IP packet that path MTU discovery tries, in bytes (RFC 8899): 1248 to 1500. A
    /// connection starts with 1248 and probes upwards. A smaller limit helps if a tunnel silently
    /// drops large packets. Default: 1500.
    maximum_mtu: u16;
    /// Whether reconnecting peers resume their session, as server and as client, see
    /// [`Resumption`](msquic_async::Resumption). Peers are verified as in a full handshake. A
    /// change of a listener's credential and [`revoke`](crate::MsQuicTransport::revoke) invalidate
    /// all tickets of the transport. If libmsquic does not support it, listening and dialling fail
    /// with a typed error. Default: false.
    resumption: bool;
    /// The local address of outgoing connections; port 0 is any port. If the peer's address is of
    /// the other family, the system chooses. Default: the system chooses.
    local_addr: Option<SocketAddr>;
    /// Whether outgoing connections use the port of the transport's first listener that can reach
    /// the peer. Peers behind NATs can then connect by dialling each other at the same time, see
    /// [`Dial`](crate::Dial). Default: false.
    dial_from_listener: bool;
    /// Whether outgoing connections share sockets, so that thousands need only a few file
    /// descriptors per processor, see [`Dial`](crate::Dial). Default: true.
    share_sockets: bool;
}
