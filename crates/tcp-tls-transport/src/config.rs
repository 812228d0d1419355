//! `TcpTlsConfig`: limits and timeouts.

use std::time::Duration;

/// Limits and timeouts of a [`TcpTlsTransport`](crate::TcpTlsTransport).
///
/// ```
/// use std::time::Duration;
/// use tcp_tls_transport::{TcpTlsConfig, TcpTlsTransport};
///
/// let config = TcpTlsConfig { idle_timeout: Duration::from_secs(60), ..TcpTlsConfig::default() };
/// let transport = TcpTlsTransport::with_config(config);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTlsConfig {
    /// The longest message, in bytes, in both directions; at most 2^32 - 2. Default: 64 MiB.
    pub max_message_size: usize,
    /// Bytes of messages that are queued, with 128 bytes for the administration of each; beyond them `send` waits. One
    /// message may exceed it. What the system's socket holds comes on top. Default: 1 MiB.
    pub send_queue: usize,
    /// Bytes of received messages that nobody has asked for yet, with 128 bytes for the administration of each; beyond
    /// them the peer is slowed down. The message that is being received comes on top. Default: 4 MiB.
    pub receive_queue: usize,
    /// How many connections peers may have at once with all listeners of the transport, handshakes included. Further
    /// ones are refused. Default: 10 000.
    pub max_connections: usize,
    /// How many of them may come from one IP address, or from one /64 network of IPv6 addresses, those in
    /// their handshake included: fewer than [`max_handshakes`](Self::max_handshakes), or one of them takes all places.
    /// Default: 128.
    pub max_connections_per_ip: usize,
    /// How many peers that were accepted may be in their handshake at once. Default: 256.
    pub max_handshakes: usize,
    /// How long a handshake may take. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection may hear nothing. Peers say every 10 s that they are there, so anything below 20 s ends
    /// connections that are well. Default: 30 s.
    pub idle_timeout: Duration,
    /// How long sending may make no progress. When all was handed to the system's socket its progress is not seen any
    /// more, so `close` then waits ten times as long for the peer's answer. Default: 12 s.
    pub no_progress_timeout: Duration,
}

impl Default for TcpTlsConfig {
    fn default() -> Self {
        Self {
            max_message_size: 64 * 1024 * 1024,
            send_queue: 1024 * 1024,
            receive_queue: 4 * 1024 * 1024,
            max_connections: 10_000,
            max_connections_per_ip: 128,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            no_progress_timeout: Duration::from_secs(12),
        }
    }
}
