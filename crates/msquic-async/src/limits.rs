//! `StreamLimits` and `DatagramLimits`: the memory that streams and datagrams of a connection may
//! take.

/// How many bytes each stream may hold in memory.
///
/// ```
/// use msquic_async::StreamLimits;
///
/// let limits = StreamLimits::new().receive_buffer(4 * 1024 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    pub(crate) send_buffer: usize,
    pub(crate) max_send_buffer: usize,
    pub(crate) receive_buffer: usize,
}

impl StreamLimits {
    /// Creates limits with the default values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes may be written and not yet completed; a single larger write may exceed it.
    /// Default: 1 MiB.
    #[must_use]
    pub fn send_buffer(mut self, value: usize) -> Self {
        self.send_buffer = value;
        self
    }

    /// Sets the maximum in bytes to which [`send_buffer`](Self::send_buffer) grows when the path
    /// can have more data in flight, so that long and fast paths are fully used. Default: 16 MiB.
    #[must_use]
    pub fn max_send_buffer(mut self, value: usize) -> Self {
        self.max_send_buffer = value;
        self
    }

    /// Sets how many bytes may be received and not yet read. msquic holds up to the
    /// [stream's window](crate::Settings::stream_receive_window) in addition. Default: 256 KiB.
    #[must_use]
    pub fn receive_buffer(mut self, value: usize) -> Self {
        self.receive_buffer = value;
        self
    }
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
/// Each datagram is counted with its bytes and 256 bytes of bookkeeping, so that empty ones are
/// limited too.
///
/// ```
/// use msquic_async::DatagramLimits;
///
/// let limits = DatagramLimits::new().send_queue(64 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramLimits {
    pub(crate) send_queue: usize,
    pub(crate) in_flight: usize,
    pub(crate) receive_queue: usize,
}

impl DatagramLimits {
    /// Creates limits with the default values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes may wait to be put into packets; beyond them sending waits or fails. One
    /// datagram may exceed it. Default: 256 KiB.
    #[must_use]
    pub fn send_queue(mut self, value: usize) -> Self {
        self.send_queue = value;
        self
    }

    /// Sets how many datagrams may be in packets that are neither acknowledged nor lost yet; beyond them
    /// sending waits or fails. One is always allowed. Default: 16,384.
    #[must_use]
    pub fn in_flight(mut self, value: usize) -> Self {
        self.in_flight = value;
        self
    }

    /// Sets how many bytes may be received and not yet read by the application; beyond them the
    /// oldest datagram is dropped. Default: 256 KiB.
    #[must_use]
    pub fn receive_queue(mut self, value: usize) -> Self {
        self.receive_queue = value;
        self
    }
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self { send_queue: 256 * 1024, in_flight: 16 * 1024, receive_queue: 256 * 1024 }
    }
}
