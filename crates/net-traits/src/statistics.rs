//! What a transport counts, and the limits that it applies to peers.

use crate::close_code;
use std::ops::Add;

/// A limit on what peers may open.
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
    /// The memory that all peers occupy. Beyond it, the connection that occupies most is ended.
    Memory,
    /// How long too little of an unfinished message may arrive.
    MessageTimeout,
    /// Attempts that wait for `accept` at a listener of `msquic-transport`.
    Backlog,
}

impl Limit {
    /// Returns the code with which a connection beyond the limit is closed.
    ///
    /// Most transports cannot send it before the handshake is complete: the peer then gets
    /// [`ConnectError::Refused`](crate::ConnectError::Refused).
    pub const fn code(self) -> u64 {
        match self {
            Self::Connections => close_code::TOO_MANY_CONNECTIONS,
            Self::PerIp => close_code::TOO_MANY_PER_IP,
            Self::PerIdentity => close_code::TOO_MANY_PER_IDENTITY,
            Self::Handshakes | Self::Backlog => close_code::TOO_MANY_HANDSHAKES,
            Self::HandshakeTimeout => close_code::HANDSHAKE_TIMEOUT,
            Self::Memory => close_code::TOO_MUCH_MEMORY,
            Self::MessageTimeout => close_code::MESSAGE_TIMEOUT,
        }
    }

    /// Returns the limit whose connections are closed with `code`.
    ///
    /// ```
    /// use net_traits::{Limit, close_code};
    ///
    /// assert_eq!(Limit::of_code(close_code::TOO_MUCH_MEMORY), Some(Limit::Memory));
    /// assert_eq!(Limit::of_code(close_code::SHUTDOWN), None);
    /// ```
    pub fn of_code(code: u64) -> Option<Self> {
        let all = [
            Self::Connections,
            Self::PerIp,
            Self::PerIdentity,
            Self::Handshakes,
            Self::HandshakeTimeout,
            Self::Memory,
            Self::MessageTimeout,
        ];
        all.into_iter().find(|limit| limit.code() == code)
    }
}

macro_rules! sums {
    ($name:ident: $($field:ident),*) => {
        impl Add for $name {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                Self { $($field: self.$field + other.$field),* }
            }
        }
    };
}

/// What a transport has counted so far. Statistics of several transports can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TransportStatistics {
    /// Open connections. Those that have ended do not count, even while the application holds
    /// handles.
    pub connections: usize,
    /// Handshakes in progress with peers that connect to a listener.
    pub handshakes: usize,
    /// Messages of all connections.
    pub messages: MessageStatistics,
    /// Attempts refused because of [`Limit::Connections`].
    pub refused_connections: u64,
    /// Attempts refused because of [`Limit::PerIp`].
    pub refused_per_ip: u64,
    /// Connections that a newer one of the same peer replaced because of [`Limit::PerIdentity`].
    pub refused_per_identity: u64,
    /// Attempts refused because of [`Limit::Handshakes`], and stalled handshakes evicted by newer
    /// ones.
    pub refused_handshakes: u64,
    /// Attempts refused because of [`Limit::HandshakeTimeout`].
    pub refused_handshake_timeout: u64,
    /// Connections ended because of [`Limit::Memory`].
    pub refused_memory: u64,
    /// Connections ended because of [`Limit::MessageTimeout`].
    pub refused_message_timeout: u64,
    /// Attempts refused because of [`Limit::Backlog`].
    pub refused_backlog: u64,
    /// Announced messages that exceeded the limit.
    pub refused_messages: u64,
    /// Messages that the peer had not confirmed, at most, when their connection ended. Over TCP and with
    /// quinn, which see no confirmations, those that were not written when the peer or the network ended it.
    pub undelivered_messages: u64,
    /// Their bytes.
    pub undelivered_bytes: u64,
    /// Bytes that peers occupy: received messages, questions and datagrams that the application has not taken,
    /// complete or not, answers that are read, and handshakes in progress.
    pub held_bytes: usize,
}

sums!(TransportStatistics: connections, handshakes, messages, refused_connections, refused_per_ip,
    refused_per_identity, refused_handshakes, refused_handshake_timeout, refused_memory, refused_message_timeout,
    refused_backlog, refused_messages, undelivered_messages, undelivered_bytes, held_bytes);

/// Messages that were queued and delivered. Bytes are those of the messages, without headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub struct MessageStatistics {
    pub messages_sent: u64,
    pub bytes_sent: u64,
    pub messages_received: u64,
    pub bytes_received: u64,
}

sums!(MessageStatistics: messages_sent, bytes_sent, messages_received, bytes_received);
