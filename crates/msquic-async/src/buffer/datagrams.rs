//! `Datagrams`: the datagrams of a connection that wait to be sent, are in flight, or were
//! received.
//!
//! A datagram to be sent is *queued* until msquic has put it into a packet, and *in flight* until it
//! is acknowledged, lost or cancelled. Received ones wait in a queue; when it is full, the oldest is
//! dropped and counted, since newer data is worth more to applications that use datagrams.
//!
//! Queues are bounded by the memory that their datagrams hold, which is more than their bytes: empty ones
//! count too. In flight a datagram holds no bytes, so these are bounded in number.

use crate::DatagramLimits;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use tokio::sync::oneshot;

/// The outcome of a datagram.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::DatagramOutcome;
///
/// match connection.send_datagram_tracked(&"position 4 2".into())?.await {
///     DatagramOutcome::Acknowledged => println!("it arrived"),
///     outcome => println!("it did not: {outcome:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatagramOutcome {
    /// The peer has acknowledged it.
    Acknowledged,
    /// It was sent and is considered lost.
    Lost,
    /// It was not sent, because the path no longer carries packets of its size or the connection ended.
    Canceled,
}

/// The state of a datagram; see `QUIC_DATAGRAM_SEND_STATE`. All but `Sent` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatagramSendState {
    Sent,
    Acknowledged,
    Lost,
    Canceled,
}

/// How many datagrams a connection has sent and received since its start, by outcome.
///
/// ```
/// use msquic_async::DatagramCounts;
///
/// assert_eq!(DatagramCounts::default().acknowledged, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Datagrams that were put into packets.
    pub sent: u64,
    /// Datagrams that the peer acknowledged.
    pub acknowledged: u64,
    /// Datagrams that were sent and are considered lost.
    pub lost: u64,
    /// Datagrams that were queued and not sent, because the path no longer carries packets of their size or the
    /// connection ended.
    pub canceled: u64,
    /// Datagrams that arrived, including the dropped ones.
    pub received: u64,
    /// Datagrams that arrived and were dropped because the receive queue was full.
    pub dropped: u64,
}

/// Why a datagram was not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Denied,
    TooBig { size: usize, max: usize },
    Full,
}

/// The datagrams of a connection. Pure.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) limits: DatagramLimits,
    /// The largest datagram that fits into a packet now; `None` while the peer accepts none.
    max_size: Option<usize>,
    next_id: usize,
    /// The cost of the datagrams that are not yet in a packet, see [`cost`].
    queued_cost: usize,
    queued: usize,
    /// The datagrams that are queued or in flight.
    sent: HashMap<usize, Sent>,
    received: VecDeque<Bytes>,
    received_cost: usize,
    pub(crate) counts: DatagramCounts,
}

#[derive(Debug)]
struct Sent {
    size: usize,
    /// Not yet in a packet.
    is_queued: bool,
    outcome: Option<oneshot::Sender<DatagramOutcome>>,
}

impl Datagrams {
    pub(crate) fn set_max_size(&mut self, max_size: Option<usize>) {
        self.max_size = max_size;
    }

    pub(crate) fn max_size(&self) -> Option<usize> {
        self.max_size
    }

    /// Admits a datagram of `size` bytes and returns its number.
    pub(crate) fn admit(
        &mut self,
        size: usize,
        outcome: Option<oneshot::Sender<DatagramOutcome>>,
    ) -> Result<usize, Refused> {
        let max = self.max_size.ok_or(Refused::Denied)?;
        if size > max {
            return Err(Refused::TooBig { size, max });
        }
        if !self.has_room() {
            return Err(Refused::Full);
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.queued_cost += cost(size);
        self.queued += 1;
        self.sent.insert(self.next_id, Sent { size, is_queued: true, outcome });
        Ok(self.next_id)
    }

    /// Whether another datagram may be queued.
    fn has_room(&self) -> bool {
        let in_flight = self.sent.len() - self.queued;
        (self.queued == 0 || self.queued_cost < self.limits.send_queue)
            && in_flight < self.limits.in_flight.max(1)
    }

    /// Records the state of a datagram. Returns whether another one may be queued, and the outcome
    /// to report.
    pub(crate) fn on_state(
        &mut self,
        id: usize,
        state: DatagramSendState,
    ) -> (bool, Option<(oneshot::Sender<DatagramOutcome>, DatagramOutcome)>) {
        let Some(sent) = self.sent.get_mut(&id) else { return (false, None) };
        if std::mem::replace(&mut sent.is_queued, false) {
            self.queued_cost -= cost(sent.size);
            self.queued -= 1;
        }
        let (count, outcome) = match state {
            DatagramSendState::Sent => (&mut self.counts.sent, None),
            DatagramSendState::Acknowledged => {
                (&mut self.counts.acknowledged, Some(DatagramOutcome::Acknowledged))
            }
            DatagramSendState::Lost => (&mut self.counts.lost, Some(DatagramOutcome::Lost)),
            DatagramSendState::Canceled => {
                (&mut self.counts.canceled, Some(DatagramOutcome::Canceled))
            }
        };
        *count += 1;
        let Some(outcome) = outcome else { return (self.has_room(), None) };
        let sender = self.sent.remove(&id).and_then(|sent| sent.outcome);
        (self.has_room(), sender.map(|sender| (sender, outcome)))
    }

    /// Queues a received datagram; returns those that were dropped for it.
    #[must_use]
    pub(crate) fn on_received(&mut self, datagram: Bytes) -> Vec<Bytes> {
        self.counts.received += 1;
        self.received_cost += cost(datagram.len());
        self.received.push_back(datagram);
        let mut dropped = Vec::new();
        while self.received_cost > self.limits.receive_queue && self.received.len() > 1 {
            if let Some(oldest) = self.received.pop_front() {
                self.received_cost -= cost(oldest.len());
                self.counts.dropped += 1;
                dropped.push(oldest);
            }
        }
        dropped
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.received.pop_front()?;
        self.received_cost -= cost(datagram.len());
        Some(datagram)
    }
}

/// The memory that a datagram of `size` bytes is counted with.
const fn cost(size: usize) -> usize {
    size + OVERHEAD
}

/// The most memory that a datagram takes besides its bytes: an entry of `sent`, twice as large while the map
/// grows; the native buffer and msquic's request; or `Bytes` in a queue that has grown, and the overhead of the
/// allocator.
const OVERHEAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(limit: usize) -> Datagrams {
        let limits = DatagramLimits::new().send_queue(limit).receive_queue(limit);
        Datagrams { limits, max_size: Some(100), ..Datagrams::default() }
    }

    #[test]
    fn sending_is_bounded_by_what_waits_not_by_what_is_in_flight() {
        let mut datagrams = datagrams(cost(150));
        let first = datagrams.admit(100, None).unwrap();
        datagrams.admit(100, None).unwrap();
        assert_eq!(datagrams.admit(1, None), Err(Refused::Full));
        assert!(datagrams.on_state(first, DatagramSendState::Sent).0);
        datagrams.admit(1, None).unwrap();
        assert!(!datagrams.on_state(first, DatagramSendState::Acknowledged).0);
        assert_eq!(datagrams.sent.len(), 2);
        assert_eq!(datagrams.admit(101, None), Err(Refused::TooBig { size: 101, max: 100 }));
        datagrams.set_max_size(None);
        assert_eq!(datagrams.admit(1, None), Err(Refused::Denied));
    }

    #[test]
    fn each_outcome_is_told_once() {
        let mut datagrams = datagrams(10_000);
        for (state, expected) in [
            (DatagramSendState::Acknowledged, DatagramOutcome::Acknowledged),
            (DatagramSendState::Lost, DatagramOutcome::Lost),
            (DatagramSendState::Canceled, DatagramOutcome::Canceled),
        ] {
            let (sender, _receiver) = oneshot::channel();
            let id = datagrams.admit(10, Some(sender)).unwrap();
            let (_, outcome) = datagrams.on_state(id, state);
            assert_eq!(outcome.map(|(_, outcome)| outcome), Some(expected));
            assert!(datagrams.on_state(id, state).1.is_none());
        }
        assert_eq!((datagrams.queued_cost, datagrams.queued, datagrams.sent.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mut datagrams = datagrams(3 * cost(1));
        for letter in [b"a", b"b", b"c", b"d", b"e"] {
            drop(datagrams.on_received(Bytes::from_static(letter)));
        }
        assert_eq!((datagrams.counts.received, datagrams.counts.dropped), (5, 2));
        let rest = std::iter::from_fn(|| datagrams.pop()).collect::<Vec<_>>();
        assert_eq!(rest, ["c", "d", "e"]);
        assert_eq!(datagrams.received_cost, 0);
    }

    #[test]
    fn empty_ones_are_bounded_too() {
        let mut datagrams = datagrams(10 * OVERHEAD);
        datagrams.limits.in_flight = 3;
        let ids: Vec<_> = std::iter::from_fn(|| datagrams.admit(0, None).ok()).take(100).collect();
        assert_eq!(ids.len(), 10, "queued");
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(datagrams.on_state(*id, DatagramSendState::Sent).0, number < 2);
        }
        assert_eq!(datagrams.admit(0, None), Err(Refused::Full), "in flight");
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(datagrams.on_state(*id, DatagramSendState::Lost).0, number >= 7);
        }
        for _ in 0..100 {
            drop(datagrams.on_received(Bytes::new()));
        }
        assert_eq!((datagrams.received.len(), datagrams.counts.dropped), (10, 90));
    }

    #[test]
    fn one_is_always_allowed() {
        let mut datagrams = datagrams(0);
        datagrams.limits.in_flight = 0;
        let only = datagrams.admit(100, None).unwrap();
        assert_eq!(datagrams.admit(0, None), Err(Refused::Full));
        assert!(!datagrams.on_state(only, DatagramSendState::Sent).0);
        assert!(datagrams.on_state(only, DatagramSendState::Acknowledged).0);
    }
}
