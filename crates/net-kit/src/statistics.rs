//! What a transport counts: refused attempts, open connections, messages.

use net_traits::close_code;
use std::sync::atomic::{AtomicU64, Ordering};

/// The limit that a peer exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Connections of peers, in total.
    Connections,
    /// Connections from one IP address, or from one /64 network of IPv6 addresses.
    PerIp,
    /// Connections of one identity.
    PerIdentity,
    /// Handshakes in progress.
    Handshakes,
    /// The duration of a handshake.
    HandshakeTimeout,
}

impl Limit {
    /// Returns the code with which a connection beyond the limit is closed.
    ///
    /// Before the handshake is complete most transports cannot send it: the peer then sees a
    /// refusal without a code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Connections => close_code::TOO_MANY_CONNECTIONS,
            Self::PerIp => close_code::TOO_MANY_PER_IP,
            Self::PerIdentity => close_code::TOO_MANY_PER_IDENTITY,
            Self::Handshakes => close_code::TOO_MANY_HANDSHAKES,
            Self::HandshakeTimeout => close_code::HANDSHAKE_TIMEOUT,
        }
    }
}

/// What a transport did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TransportStatistics {
    /// Connections that are open, or whose handles are still held.
    pub connections: usize,
    /// Handshakes of peers with a listener that are in progress.
    pub handshakes: usize,
    /// Messages of all connections.
    pub messages: MessageStatistics,
    /// Attempts refused because of [`Limit::Connections`].
    pub refused_connections: u64,
    /// Attempts refused because of [`Limit::PerIp`].
    pub refused_per_ip: u64,
    /// Attempts refused because of [`Limit::PerIdentity`].
    pub refused_per_identity: u64,
    /// Attempts refused because of [`Limit::Handshakes`].
    pub refused_handshakes: u64,
    /// Attempts refused because of [`Limit::HandshakeTimeout`].
    pub refused_handshake_timeout: u64,
    /// Announced messages that exceeded the limit.
    pub refused_messages: u64,
}

/// Messages that were queued and delivered. Bytes are those of the messages, without headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct MessageStatistics {
    pub messages_sent: u64,
    pub bytes_sent: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
}

/// [`MessageStatistics`] that many tasks count, without a lock.
#[derive(Debug, Default)]
pub struct MessageCounters {
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl MessageCounters {
    /// Counts a message that was queued.
    pub fn sent(&self, bytes: usize) {
        self.messages_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a message that was delivered to the application.
    pub fn received(&self, bytes: usize) {
        self.messages_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the counts so far.
    pub fn read(&self) -> MessageStatistics {
        MessageStatistics {
            messages_sent: self.messages_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            messages_received: self.messages_received.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
        }
    }
}
