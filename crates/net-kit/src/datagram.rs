//! Datagrams on the wire, the queue of received ones, and their counters.

use bytes::{BufMut, Bytes, BytesMut};
use net_traits::DatagramStatistics;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

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

/// What a datagram in a queue costs besides its bytes.
const ENTRY_COST: usize = 32;

/// Datagrams that arrived and that the application has not received. At the limit, the oldest ones are
/// dropped.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    datagrams: VecDeque<Bytes>,
    cost: usize,
    arrived: u64,
}

impl Queue {
    /// Creates a queue for `limit` bytes, with 32 bytes of bookkeeping for each datagram, or for a single
    /// larger datagram.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), changed: Notify::new() }
    }

    /// Adds a copy: a received datagram may be a part of a larger block of memory.
    pub fn push(&self, datagram: &[u8]) {
        let datagram = Bytes::copy_from_slice(datagram);
        {
            let state = &mut *self.state.lock();
            state.arrived += 1;
            state.cost += datagram.len() + ENTRY_COST;
            state.datagrams.push_back(datagram);
            while state.cost > self.limit && state.datagrams.len() > 1 {
                state.pop();
            }
        }
        self.changed.notify_one();
    }

    /// Waits for the next datagram.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn recv(&self) -> Bytes {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let (next, has_more) = {
                let state = &mut *self.state.lock();
                (state.pop(), !state.datagrams.is_empty())
            };
            if let Some(datagram) = next {
                if has_more {
                    self.changed.notify_one(); // for the next task that waits
                }
                return datagram;
            }
            changed.await;
        }
    }

    /// Drops all datagrams.
    pub fn clear(&self) {
        let state = &mut *self.state.lock();
        state.datagrams.clear();
        state.cost = 0;
    }

    /// Returns how many datagrams arrived.
    pub fn arrived(&self) -> u64 {
        self.state.lock().arrived
    }
}

impl State {
    fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        self.cost -= datagram.len() + ENTRY_COST;
        Some(datagram)
    }
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

    #[tokio::test]
    async fn the_newest_datagrams_are_kept() {
        let queue = Queue::new(1000);
        for number in 0..100_u8 {
            queue.push(&[number; 68]); // of which ten fit
        }
        assert_eq!(queue.arrived(), 100);
        let next = tokio::join!(queue.recv(), queue.recv());
        assert_eq!((next.0[0], next.1[0]), (90, 91));
        queue.push(&[7; 5000]);
        assert_eq!(queue.recv().await.len(), 5000, "a large one fits alone");
        let (waiting, ()) = tokio::join!(queue.recv(), async { queue.push(b"late") });
        assert_eq!(waiting, "late");
        queue.push(b"dropped");
        queue.clear();
        queue.push(b"");
        assert_eq!(queue.recv().await, "");
    }

    #[test]
    fn only_datagrams_of_the_application_are_decoded() {
        assert_eq!(&encode(b"ab")[..], [0, b'a', b'b']);
        assert_eq!(decode(encode(b"ab")), Some(Bytes::from_static(b"ab")));
        assert_eq!(decode(encode(b"")), Some(Bytes::new()));
        assert_eq!(decode(Bytes::from_static(&[1, 2])), None);
        assert_eq!(decode(Bytes::new()), None);
    }
}
