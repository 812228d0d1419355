//! `Ledger`: what a connection has taken and is not known to be delivered.
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
use super::parcel::Parcel;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// Notified when a message was added.
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Sent and not flushed, in order.
    sent: VecDeque<Parcel>,
    /// Flushed, with the time.
    kept: VecDeque<(Instant, Parcel)>,
    /// Number of messages that left `sent`.
    gone: u64,
    ended: Option<DropError>,
}

impl Ledger {
    /// Adds a message that the connection has taken. If the connection has ended, it is reported.
    pub(super) fn add(&self, parcel: Parcel) {
        {
            let mut state = self.state.lock();
            if let Some(error) = state.ended.clone() {
                drop(state);
                return parcel.undelivered(error);
            }
            state.sent.push_back(parcel);
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
        let flushed = state.sent.drain(..count.min(state.sent.len())).map(|parcel| (now, parcel));
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
        delivered.into_iter().for_each(|(_, parcel)| parcel.delivered());
        next
    }

    /// Ends the message that was flushed first, to free its memory. Returns false if there is none.
    pub(super) fn settle_oldest(&self) -> bool {
        let oldest = self.state.lock().kept.pop_front();
        oldest.map(|(_, parcel)| parcel.delivered()).is_some()
    }

    /// Messages that were sent and not flushed may be lost. They are reported.
    pub(super) fn lost(&self, error: &DropError) {
        let lost = {
            let state = &mut *self.state.lock();
            state.gone += state.sent.len() as u64;
            std::mem::take(&mut state.sent)
        };
        lost.into_iter().for_each(|parcel| parcel.undelivered(error.clone()));
    }

    /// The connection has ended: reports what is not known to be delivered, and what is added later.
    ///
    /// This is the one place that decides about it. Once a transport tells how much was not taken, it
    /// is to be used here.
    pub(super) fn end(&self, error: &DropError) {
        let kept = {
            let mut state = self.state.lock();
            state.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.kept)
        };
        kept.into_iter().for_each(|(_, parcel)| parcel.undelivered(error.clone()));
        self.lost(error);
    }
}
