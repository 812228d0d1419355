//! `InFlight`: the messages that a connection has taken and that are not known to be delivered.
//!
//! ```text
//! add ──▶ sent ──flushed──▶ kept ──(after keep_sent, or if its memory is needed)──▶ delivered
//!           │                 │
//!           └──── end, lost ──┴──▶ reported
//! ```
//!
//! A successful flush shows that the peer's transport has the messages before it, not that its
//! application has received them. They are therefore kept for a while: if the connection ends
//! meanwhile, the peer may have ended before it received them.

use super::config::DropError;
use super::outgoing::OutgoingMessage;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    /// Notified when a message was added.
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that are sent and not flushed, in order.
    sent: VecDeque<OutgoingMessage>,
    /// Messages that are flushed, with the time of the flush.
    kept: VecDeque<(Instant, OutgoingMessage)>,
    /// How many messages have left `sent`.
    left: u64,
    ended: Option<DropError>,
}

impl InFlight {
    /// Adds a message that the connection has taken, or reports it if the connection has ended.
    pub(super) fn add(&self, outgoing: OutgoingMessage) {
        {
            let mut state = self.state.lock();
            if let Some(error) = state.ended.clone() {
                drop(state);
                return outgoing.undelivered(error);
            }
            state.sent.push_back(outgoing);
        }
        self.added.notify_one();
    }

    /// Waits until there are messages to flush, and returns the position of the last one.
    pub(super) async fn sent(&self) -> u64 {
        loop {
            {
                let state = self.state.lock();
                if !state.sent.is_empty() {
                    return state.left + state.sent.len() as u64;
                }
            }
            self.added.notified().await;
        }
    }

    /// Records that the messages up to the position `end` are flushed.
    pub(super) fn flushed(&self, end: u64) {
        let state = &mut *self.state.lock();
        let count = usize::try_from(end.saturating_sub(state.left)).unwrap_or(usize::MAX);
        let now = Instant::now();
        let flushed =
            state.sent.drain(..count.min(state.sent.len())).map(|outgoing| (now, outgoing));
        let before = state.kept.len();
        state.kept.extend(flushed);
        state.left += (state.kept.len() - before) as u64;
    }

    /// Settles the messages that were flushed `keep` ago or earlier, as delivered. Returns when to
    /// call it again.
    pub(super) fn settle(&self, keep: Duration) -> Option<Instant> {
        let now = Instant::now();
        let (delivered, next) = {
            let state = &mut *self.state.lock();
            let count = state.kept.partition_point(|(at, _)| now - *at >= keep);
            let delivered: Vec<_> = state.kept.drain(..count).collect();
            (delivered, state.kept.front().and_then(|(at, _)| at.checked_add(keep)))
        };
        delivered.into_iter().for_each(|(_, outgoing)| outgoing.delivered());
        next
    }

    /// Returns whether each message is settled.
    pub(super) fn is_empty(&self) -> bool {
        let state = &*self.state.lock();
        state.sent.is_empty() && state.kept.is_empty()
    }

    /// Settles the message that was flushed first, to free its memory. Returns false if there is
    /// none.
    pub(super) fn settle_oldest(&self) -> bool {
        let oldest = self.state.lock().kept.pop_front();
        oldest.map(|(_, outgoing)| outgoing.delivered()).is_some()
    }

    /// Reports the messages that were sent and not flushed, since they may be lost.
    pub(super) fn lost(&self, error: &DropError) {
        let lost = {
            let state = &mut *self.state.lock();
            state.left += state.sent.len() as u64;
            std::mem::take(&mut state.sent)
        };
        lost.into_iter().for_each(|outgoing| outgoing.undelivered(error.clone()));
    }

    /// Records the end of the connection: reports the messages that are not known to be delivered,
    /// and those that are added later.
    pub(super) fn end(&self, error: &DropError) {
        let kept = {
            let mut state = self.state.lock();
            state.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.kept)
        };
        kept.into_iter().for_each(|(_, outgoing)| outgoing.undelivered(error.clone()));
        self.lost(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::event_queue::EventQueue;
    use crate::pool::quota::{OfPeer, Place, Quota};
    use bytes::Bytes;
    use net_traits::{CertHash, CloseReason};

    const PEER: CertHash = CertHash::from_bytes([1; 32]);
    const KEEP: Duration = Duration::from_secs(1);

    /// Messages in flight: messages 0 to 3, of which the first three were flushed after 0, 500 and
    /// 1000 ms.
    struct Flushed {
        events: std::sync::Arc<EventQueue<()>>,
        in_flight: InFlight,
    }

    async fn flushed() -> Flushed {
        let (events, in_flight, room) = (EventQueue::new(), InFlight::default(), Quota::new(1000));
        for number in 0..4_u8 {
            let share = || room.take(1).unwrap();
            let of_peer = OfPeer::Unconfirmed { _bytes: share() };
            let place = Place { of_peer, _of_pool: (share(), None) };
            let message = Bytes::from(vec![number]);
            let mut outgoing = OutgoingMessage::new(PEER, message, place, None, &events.reports);
            outgoing.offered();
            in_flight.add(outgoing);
        }
        assert_eq!(in_flight.sent().await, 4);
        for number in 0..3 {
            in_flight.flushed(number + 1);
            tokio::time::sleep(KEEP / 2).await;
        }
        Flushed { events, in_flight }
    }

    impl Flushed {
        fn end(&self) -> Vec<u8> {
            self.in_flight.end(&DropError::Lost(CloseReason::TimedOut));
            let mut reported: Vec<_> = std::iter::from_fn(|| self.events.reports.next())
                .map(|report| report.message[0])
                .collect();
            reported.sort_unstable();
            reported
        }
    }

    #[tokio::test(start_paused = true)]
    async fn flushed_messages_are_kept_for_a_while() {
        let of = flushed().await;
        let next = of.in_flight.settle(KEEP).expect("a message is kept");
        assert_eq!(next - Instant::now(), KEEP / 2, "the third was flushed half of that time ago");
        assert_eq!(of.end(), [2, 3]);
        assert_eq!(of.end(), [0; 0], "each is reported once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_message_can_be_settled_earlier() {
        let of = flushed().await;
        assert!(of.in_flight.settle_oldest());
        assert_eq!(of.end(), [1, 2, 3]);
        assert!(!of.in_flight.settle_oldest());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_concerns_only_messages_that_are_not_flushed() {
        let of = flushed().await;
        of.in_flight.lost(&DropError::Removed);
        assert_eq!(of.events.reports.next().map(|report| report.message[0]), Some(3));
        of.in_flight.flushed(4);
        assert_eq!(of.in_flight.settle(KEEP * 2), Some(Instant::now() + KEEP / 2));
        assert_eq!(of.end(), [0, 1, 2]);
    }
}
