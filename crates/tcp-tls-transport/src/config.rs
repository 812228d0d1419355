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
    /// Size of the send queue in bytes, including 128 bytes of bookkeeping per message. While it is
    /// full, `send` waits. A single message may exceed it. The system's socket buffer comes on top.
    /// Default: 1 MiB.
    pub send_queue: usize,
    /// Size of the receive queue in bytes, including 128 bytes of bookkeeping per message. While it
    /// is full, the peer is throttled. The message being received comes on top. Default: 4 MiB.
    pub receive_queue: usize,
    /// How many accepted connections all listeners of the transport may have at once, including
    /// handshakes. Further attempts are refused. Default: 10 000.
    pub max_connections: usize,
    /// How many of them one IPv4 address or IPv6 /64 network may have, including handshakes. Keep
    /// it below [`max_handshakes`](Self::max_handshakes), so that one address cannot occupy all
    /// handshakes. Default: 128.
    pub max_connections_per_ip: usize,
    /// How many of them one identity may have. It limits peers that are trusted by their identity; a
    /// peer that is trusted by an endorsing key can make more identities. Default: 16.
    pub max_connections_per_identity: usize,
    /// How many accepted connections may be in their handshake at once. Default: 256.
    pub max_handshakes: usize,
    /// How long a handshake may take. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection may receive nothing. Peers send a keep-alive every 10 s, so a value
    /// below 20 s can end healthy connections. Default: 30 s.
    pub idle_timeout: Duration,
    /// How long sending may make no progress. Once the system's socket holds all data, progress is
    /// not visible; `close` then waits ten times as long for the peer's answer. Default: 12 s.
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
            max_connections_per_identity: 16,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            no_progress_timeout: Duration::from_secs(12),
        }
    }
}
