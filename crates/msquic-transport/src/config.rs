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

/// Setters for the fields of a configuration, each with its documentation.
macro_rules! options {
    ($config:ident: $($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        impl $config {
            /// The defaults.
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
pub(crate) use options;

impl MsQuicTransportConfig {
    /// The longest message in each direction, in bytes; at most 4 GiB - 1, as the header can
    /// say. Default: 64 MiB.
    #[must_use]
    pub fn max_message_size(self, value: usize) -> Self {
        self.max_sent_message(value).max_received_message(value)
    }
}

options! {
    MsQuicTransportConfig:

    /// The longest message that is sent, in bytes. Default: 64 MiB.
    max_sent_message: usize;
    /// The longest message that is received, in bytes. Default: 64 MiB.
    max_received_message: usize;
    /// Bytes that are sent and that the peer's QUIC has not acknowledged; beyond them `send` waits. One
    /// message may exceed it. It grows by itself up to [`max_send_queue`](Self::max_send_queue) when the
    /// path carries more at once. Default: 1 MiB.
    send_queue: usize;
    /// What [`send_queue`](Self::send_queue) grows to at most. Default: 16 MiB.
    max_send_queue: usize;
    /// Bytes of received messages that nobody has asked for yet, with 128 bytes for the administration
    /// of each; beyond them the peer is slowed down. Messages that are being received, one on each
    /// stream, and what msquic has not handed over, come on top. Default: 4 MiB.
    receive_queue: usize;
    /// On how many streams messages are sent. With one, they arrive in the order in which they were
    /// queued. With more, each goes where the least is waiting, so that a large one does not hold up
    /// those behind it, and they arrive in any order. Each has its own
    /// [`send_queue`](Self::send_queue). With one more for urgent messages, they have to be within the peer's
    /// [`max_inbound_streams`](Self::max_inbound_streams), or sending times out. Default: 1.
    send_streams: usize;
    /// How many streams of messages the peer may have open at once. Default: 16.
    max_inbound_streams: u16;
    /// How many requests of the peer may be unanswered at once; it waits with further ones. Default: 16.
    max_inbound_requests: u16;
    /// The longest question and the longest answer, in bytes. Default: 1 MiB.
    max_request_size: usize;
    /// How many connections peers may have at once with all listeners of the transport, handshakes
    /// included. Further ones are refused. A connection counts until its last handle is dropped, even if
    /// it is over. Default: 10 000.
    max_connections: usize;
    /// How many of them may come from one IP address, or from one /64 network of IPv6 addresses.
    /// Default: 1000.
    max_connections_per_ip: usize;
    /// How many of them may be of one identity. It binds peers whose identities are listed; whoever is trusted by an
    /// endorsement can make further identities. Default: 16.
    max_connections_per_identity: usize;
    /// How many peers that were accepted may be in their handshake at once. Default: 256.
    max_handshakes: usize;
    /// How many peers may wait to be accepted; further ones are refused. Default: 256.
    backlog: usize;
    /// How long sending may make no progress; up to a quarter more goes by until that is noticed. While a
    /// connection sends anything, a stream has ten times as long for each 1 MiB, since all of them may be slow.
    /// Default: [`STREAM_OP_TIMEOUT`], 12 s.
    stream_op_timeout: Duration;
    /// How long a handshake may take. Default: 10 s.
    handshake_timeout: Duration;
    /// How long a connection may hear nothing from the peer; zero means for ever. The smaller value
    /// of both sides counts. Default: 30 s.
    idle_timeout: Duration;
    /// How often an idle connection is kept alive; zero means never. Default: 10 s.
    keep_alive_interval: Duration;
    /// The largest IP packet that is tried on a path, in bytes (RFC 8899): 1248 to 1500. A connection begins with 1248
    /// and searches upwards; a smaller limit helps where a tunnel drops large packets silently. Default: 1500.
    maximum_mtu: u16;
    /// Whether peers that connect again resume their session, as server and as client, see
    /// [`Resumption`](msquic_async::Resumption). Peers are judged as in a full handshake. A change of a listener's
    /// credential, and [`revoke`](crate::MsQuicTransport::revoke), end all tickets of the transport. With a libmsquic
    /// that cannot do it, listening and dialling fail with a typed error. Default: false.
    resumption: bool;
    /// The local address of connections that are dialled; port 0 is any port. Where it cannot reach a peer, being of the
    /// other family, the system chooses. Default: the system chooses.
    local_addr: Option<SocketAddr>;
    /// Whether connections leave from the port of the transport's first listener that can reach the peer, if there is one. So
    /// peers behind NATs connect by dialling each other at once, see [`Dial`](crate::Dial). Default: false.
    dial_from_listener: bool;
    /// Whether connections that are dialled share sockets, so that thousands need a few descriptors for each processor; see
    /// [`Dial`](crate::Dial). Default: true.
    share_sockets: bool;
}
