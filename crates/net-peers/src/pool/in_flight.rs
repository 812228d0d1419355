//! `InFlight`: what a connection has taken and is not known to be delivered.
//!
//! ```text
//! add ──▶ sent ──flushed──▶ kept ──(keep_sent has passed, or its memory is needed)──▶ delivered
//!           │                 │
//!           └──── end, lost ──┴──▶ reported
//! ```
//!
//! A flush says that the messages before it have left the send queue, and no transport says more.
//! What left it last is therefore kept for a while: if the connection ends meanwhile, the peer may not
//! have received it.

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
    /// Sent and not flushed, in order.
    sent: VecDeque<OutgoingMessage>,
    /// Flushed, with the time.
    kept: VecDeque<(Instant, OutgoingMessage)>,
    /// Number of messages that left `sent`.
    gone: u64,
    ended: Option<DropError>,
}

impl InFlight {
    /// Adds a message that the connection has taken. If the connection has ended, it is reported.
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

    /// Waits until there is something to flush, and returns up to where.
    pub(super) async fn sent(&self) -> u64 {
        loop {
            {
                let state = self.state.lock();
                if !state.sent.is_empty() {
                    return state.gone + state.sent.len() as u64;
                }
            }
            self.added.notified().await;
        }
    }

    /// The messages up to `end` have left the send queue.
    pub(super) fn flushed(&self, end: u64) {
        let state = &mut *self.state.lock();
        let count = usize::try_from(end.saturating_sub(state.gone)).unwrap_or(usize::MAX);
        let now = Instant::now();
        let flushed =
            state.sent.drain(..count.min(state.sent.len())).map(|outgoing| (now, outgoing));
        let before = state.kept.len();
        state.kept.extend(flushed);
        state.gone += (state.kept.len() - before) as u64;
    }

    /// Ends what was flushed `keep` ago. Returns when there is more to end.
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

    /// Ends the message that was flushed first, to free its memory. Returns false if there is none.
    pub(super) fn settle_oldest(&self) -> bool {
        let oldest = self.state.lock().kept.pop_front();
        oldest.map(|(_, outgoing)| outgoing.delivered()).is_some()
    }

    /// Messages that were sent and not flushed may be lost. They are reported.
    pub(super) fn lost(&self, error: &DropError) {
        let lost = {
            let state = &mut *self.state.lock();
            state.gone += state.sent.len() as u64;
            std::mem::take(&mut state.sent)
        };
        lost.into_iter().for_each(|outgoing| outgoing.undelivered(error.clone()));
    }

    /// The connection has ended: reports what is not known to be delivered, and what is added later.
    ///
    /// This is the one place that decides about it. Once a transport reports how much was not taken, it
    /// is to be used here.
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
    use crate::pool::event::EventQueue;
    use crate::pool::quota::{OfPeer, Place, Quota};
    use bytes::Bytes;
    use net_traits::{CertHash, CloseReason};

    const PEER: CertHash = CertHash::from_bytes([1; 32]);
    const KEEP: Duration = Duration::from_secs(1);

    /// Messages in flight: messages 0 to 3, of which the first three were flushed after 0, 500 and 1000 ms.
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
    async fn what_was_flushed_is_kept_for_a_while() {
        let of = flushed().await;
        let next = of.in_flight.settle(KEEP).expect("there is more to end");
        assert_eq!(next - Instant::now(), KEEP / 2, "the third was flushed half of it ago");
        assert_eq!(of.end(), [2, 3]);
        assert_eq!(of.end(), [0; 0], "each is reported once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room() {
        let of = flushed().await;
        assert!(of.in_flight.settle_oldest());
        assert_eq!(of.end(), [1, 2, 3]);
        assert!(!of.in_flight.settle_oldest());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_flushed_may_be_lost_alone() {
        let of = flushed().await;
        of.in_flight.lost(&DropError::Removed);
        assert_eq!(of.events.reports.next().map(|report| report.message[0]), Some(3));
        of.in_flight.flushed(4);
        assert_eq!(of.in_flight.settle(KEEP * 2), Some(Instant::now() + KEEP / 2));
        assert_eq!(of.end(), [0, 1, 2]);
    }
}
