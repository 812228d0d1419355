//! How much memory the streams and datagrams of a connection may take.

/// How many bytes each stream may hold in memory.
///
/// ```
/// use msquic_async::StreamLimits;
///
/// let limits = StreamLimits { receive_buffer: 4 * 1024 * 1024, ..StreamLimits::default() };
/// assert_eq!(limits.send_buffer, 1024 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes written and not yet completed; a single larger write may exceed it. Default: 1 MiB.
    pub send_buffer: usize,
    /// What [`send_buffer`](Self::send_buffer) grows to by itself when the path carries more at once, so
    /// that long and fast paths are filled. Default: 16 MiB.
    pub max_send_buffer: usize,
    /// Bytes received and not yet read. msquic holds up to the
    /// [stream's window](crate::Settings::stream_receive_window) besides. Default: 256 KiB.
    pub receive_buffer: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            send_buffer: 1024 * 1024,
            max_send_buffer: 16 * 1024 * 1024,
            receive_buffer: 256 * 1024,
        }
    }
}

/// How many datagrams a connection may hold in memory.
///
/// Each datagram counts with its bytes and 256 bytes of bookkeeping, so that empty ones are limited too.
///
/// ```
/// use msquic_async::DatagramLimits;
///
/// let limits = DatagramLimits { send_queue: 64 * 1024, ..DatagramLimits::default() };
/// assert_eq!(limits.receive_queue, 256 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramLimits {
    /// Bytes that wait to be put into packets; beyond them sending waits or fails. One datagram may
    /// exceed it. Default: 256 KiB.
    pub send_queue: usize,
    /// Datagrams in packets that are neither acknowledged nor lost yet; beyond them sending waits or
    /// fails. One is always allowed. Default: 16,384.
    pub in_flight: usize,
    /// Bytes received and not yet asked for; beyond them the oldest datagram is dropped. Default:
    /// 256 KiB.
    pub receive_queue: usize,
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self { send_queue: 256 * 1024, in_flight: 16 * 1024, receive_queue: 256 * 1024 }
    }
}
