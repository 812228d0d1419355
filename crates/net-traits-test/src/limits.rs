//! `Limits`: limits and timeouts of a transport under test.

use net_kit::options::{HANDSHAKE, LINGER, MESSAGE, NO_PROGRESS, OPERATION};
use net_kit::progress::Timeouts;
use std::time::Duration;

/// The limits and timeouts of a transport.
///
/// A [`Harness`](crate::Harness) applies them to its transport, and a
/// [`MemoryTransport`](crate::memory::MemoryTransport) has them too.
///
/// ```
/// use net_traits_test::Limits;
///
/// let limits = Limits { max_connections: 2, ..Limits::default() };
/// assert_eq!(limits.max_message_size, 1024 * 1024);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes, in both directions. Default: 1 MiB.
    pub max_message_size: usize,
    /// The longest question or answer of a request, in bytes. Default: 256 KiB.
    pub max_request_size: usize,
    /// How long a handshake may take. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long sending may make no progress. Default: 12 s.
    pub no_progress_timeout: Duration,
    /// How long one `send`, `flush` or `close` may take in total. Default: 10 min.
    pub operation_timeout: Duration,
    /// How long a connection without handles sends what is queued. The in-memory transport queues
    /// nothing. Default: 5 s.
    pub linger: Duration,
    /// How many accepted connections the transport may have at once. Default: 1000.
    pub max_connections: usize,
    /// How many of them may be from one IP address. No behaviour of the suite needs it: a harness may ignore
    /// it. Default: no limit.
    pub max_connections_per_ip: usize,
    /// How many attempts may be in progress at once, until their handshakes are complete; those that wait to
    /// be accepted count. No behaviour of the suite needs it. Default: no limit.
    pub max_handshakes: usize,
    /// How many of them may be from one IP address. No behaviour of the suite needs it. Default: no limit.
    pub max_handshakes_per_ip: usize,
    /// How many accepted connections one identity may have at once; a further one replaces the oldest. Default:
    /// 1000.
    pub max_connections_per_identity: usize,
    /// How many bytes of messages may wait to be received, per connection; a single message may
    /// exceed it. In the in-memory transport they are 256 KiB, with those in flight, whatever this is.
    /// Default: 4 MiB.
    pub receive_queue: usize,
    /// Memory that the received messages of all connections may occupy, in bytes. The in-memory transport
    /// counts messages, questions and handshakes in progress only. Default: 64 MiB.
    pub max_memory: usize,
    /// How long a message may stand still before its last byte has arrived. Default: 30 s.
    pub message_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 1024 * 1024,
            max_request_size: 256 * 1024,
            handshake_timeout: HANDSHAKE,
            no_progress_timeout: NO_PROGRESS,
            operation_timeout: OPERATION,
            linger: LINGER,
            max_connections: 1000,
            max_connections_per_ip: usize::MAX,
            max_handshakes: usize::MAX,
            max_handshakes_per_ip: usize::MAX,
            max_connections_per_identity: 1000,
            receive_queue: 4 * 1024 * 1024,
            max_memory: 64 * 1024 * 1024,
            message_timeout: MESSAGE,
        }
    }
}

impl Limits {
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts::begin(self.no_progress_timeout, self.operation_timeout)
    }
}
