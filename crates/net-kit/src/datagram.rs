//! Datagrams on the wire, the queue of received ones, and their counters.

use crate::coop;
use crate::memory_budget::Share;
use bytes::{BufMut, Bytes, BytesMut};
use net_traits::DatagramStatistics;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
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

/// What a datagram in a queue costs besides its bytes: its place in a queue that has doubled, and what the
/// allocator adds to a small block.
const ENTRY_COST: usize = 128;

/// An empty queue with room for more datagrams frees its memory.
const KEPT_ENTRIES: usize = 32;

/// Datagrams that arrived and that the application has not received. At the limit, the oldest ones are
/// dropped.
///
/// They are charged to the connection's share of the memory budget. While little of that is left, the
/// limit is lower, as that of the [`Inbox`](crate::inbox): datagrams end no connection.
#[derive(Debug)]
pub struct Queue {
    limit: usize,
    share: Arc<Share>,
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
    /// Creates a queue for `limit` bytes, with 128 bytes of bookkeeping for each datagram, or for a single
    /// larger datagram.
    pub fn new(limit: usize, share: &Arc<Share>) -> Self {
        Self { limit, share: share.clone(), state: Mutex::default(), changed: Notify::new() }
    }

    /// Adds a copy: a received datagram may be a part of a larger block of memory.
    pub fn push(&self, datagram: &[u8]) {
        let datagram = Bytes::copy_from_slice(datagram);
        {
            let state = &mut *self.state.lock();
            let before = state.cost;
            state.arrived += 1;
            state.cost += datagram.len() + ENTRY_COST;
            state.datagrams.push_back(datagram);
            let room = self.share.room(self.limit);
            while state.cost > room && state.datagrams.len() > 1 {
                state.pop();
            }
            self.share.store(before, state.cost);
        }
        self.changed.notify_one();
    }

    /// Waits for the next datagram of the application, or for the end of the connection. What has arrived
    /// precedes the end.
    ///
    /// # Errors
    ///
    /// What `end` returns.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn recv_until<E>(&self, end: impl Future<Output = E>) -> Result<Bytes, E> {
        let mut end = pin!(end);
        loop {
            coop::spend().await;
            tokio::select! {
                biased;
                received = self.recv() => if let Some(datagram) = decode(received) {
                    return Ok(datagram);
                },
                ended = &mut end => return Err(ended),
            }
        }
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
                let before = state.cost;
                let next = state.pop();
                self.share.store(before, state.cost);
                (next, !state.datagrams.is_empty())
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
        state.datagrams = VecDeque::new();
        self.share.store(std::mem::take(&mut state.cost), 0);
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
        if self.datagrams.is_empty() && self.datagrams.capacity() > KEPT_ENTRIES {
            self.datagrams = VecDeque::new();
        }
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
    use crate::memory_budget::{MemoryBudget, MemoryLimits};

    #[tokio::test]
    async fn the_newest_datagrams_are_kept() {
        let queue = Queue::new(2000, &Share::unlimited().into());
        for number in 0..100_u8 {
            queue.push(&[number; 72]); // of which ten fit
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

    #[tokio::test]
    async fn what_is_not_received_is_charged_and_takes_a_part_of_the_free_memory() {
        const TOTAL: usize = 1024 * 1024;
        let limits = MemoryLimits { total: TOTAL, ..MemoryLimits::NONE };
        let budget = Arc::new(MemoryBudget::new(limits).on_excess(|| panic!("it is not exceeded")));
        let shares: Vec<_> = (0..100).map(|_| Arc::new(Share::new(&budget))).collect();
        let queues: Vec<_> = shares.iter().map(|share| Queue::new(TOTAL, share)).collect();
        let fill = |queue: &Queue| (0..2000).for_each(|_| queue.push(&encode(&[7; 1000])));
        fill(&queues[0]);
        let charged = budget.used();
        assert!((TOTAL / 20..=TOTAL / 16).contains(&charged), "{charged} of {TOTAL}");
        queues[1..].iter().for_each(fill);
        assert!(budget.used() > TOTAL / 2, "{} of {TOTAL}", budget.used());
        for queue in &queues {
            let received = queue.recv_until(std::future::ready(())).await;
            assert_eq!(received.expect("one always fits").len(), 1000);
            while queue.recv_until(std::future::ready(())).await.is_ok() {}
            assert!(queue.state.lock().datagrams.capacity() <= KEPT_ENTRIES);
        }
        assert_eq!(budget.used(), 0);
        fill(&queues[0]);
        queues[0].clear();
        assert_eq!(budget.used(), 0);
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
