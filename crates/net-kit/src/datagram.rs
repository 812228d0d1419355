//! Datagrams on the wire, and their counters.

use bytes::{BufMut, Bytes, BytesMut};
use net_traits::DatagramStatistics;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first byte of a datagram of the application. Other values are reserved for transports, which
/// ignore datagrams of unknown kinds.
pub const APPLICATION: u8 = 0;

/// The length of the header, in bytes.
pub const HEADER: usize = 1;

/// Puts the header in front of a datagram of the application.
pub fn encode(datagram: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + datagram.len());
    bytes.put_u8(APPLICATION);
    bytes.extend_from_slice(datagram);
    bytes.freeze()
}

/// Returns a datagram of the application without its header; `None` for other kinds.
pub fn decode(mut bytes: Bytes) -> Option<Bytes> {
    (bytes.first() == Some(&APPLICATION)).then(|| bytes.split_off(HEADER))
}

/// Counts the datagrams of a connection.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    /// Counts a datagram that was queued.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a datagram that the application received.
    pub fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts, including the datagrams that `arrived`.
    pub fn statistics(&self, arrived: u64) -> DatagramStatistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DatagramStatistics::new(count(&self.sent), arrived, count(&self.received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_datagrams_of_the_application_are_decoded() {
        assert_eq!(&encode(b"ab")[..], [0, b'a', b'b']);
        assert_eq!(decode(encode(b"ab")), Some(Bytes::from_static(b"ab")));
        assert_eq!(decode(encode(b"")), Some(Bytes::new()));
        assert_eq!(decode(Bytes::from_static(&[1, 2])), None);
        assert_eq!(decode(Bytes::new()), None);
    }
}
