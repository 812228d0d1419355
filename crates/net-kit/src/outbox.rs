//! `Outbox`: messages that wait to be written to a byte stream.
//!
//! Handles push messages and one driver task writes them, so a dropped send has queued the whole
//! message or none of it. The outbox owns the messages in between. Its limit is a number of bytes,
//! with `ENTRY_COST` for each message. There are no timeouts here: wrap [`push`](Outbox::push) and
//! [`flushed`](Outbox::flushed) in [`unless_stuck`](crate::progress::unless_stuck) with
//! [`snapshot`](Outbox::snapshot).
//!
//! ```text
//!            close                    wrote_all, end
//! open ───────────────▶ closing ───────────────────────▶ ended
//!   └──── fail (nothing can be written) ──── end ─────────▲
//! ```

use crate::progress::Snapshot;
use bytes::Bytes;
use confirmation::Confirmation;
use net_traits::{CloseReason, SendError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use tokio::sync::Notify;

mod confirmation;
mod state;

pub use confirmation::lane_of;
use state::State;
pub use state::{Frame, UNCONFIRMED, Work};

/// An empty queue with a larger capacity frees its memory.
const KEPT_ENTRIES: usize = 64;

/// How many confirmations may wait to be written. A sender that has at most one probe on each of its
/// streams without an answer, and at most 1024 streams for messages and one for urgent ones, never
/// needs that many.
pub const MAX_CONFIRMATIONS: usize = 2048;

/// The messages of one byte stream that are not written yet.
///
/// ```
/// use net_kit::outbox::{Outbox, Work};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let outbox = Outbox::new(1024);
/// outbox.try_push(&mut vec!["hello".into()])?;
/// outbox.close(0, "done");
/// let Work::Frame(frame) = outbox.work().await else { panic!("a message is queued") };
/// assert_eq!(frame.pieces, ["hello"]);
/// outbox.wrote(5);
/// outbox.wrote_frame(&frame);
/// outbox.flushed().await?;
/// assert!(matches!(outbox.work().await, Work::Close(0, reason) if reason == "done"));
/// # Ok::<(), net_traits::SendError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Outbox {
    limit: usize,
    state: Mutex<State>,
    /// Wakes the driver.
    work: Notify,
    /// Wakes senders: there may be room.
    room: Notify,
    /// Wakes `flushed`.
    written: Notify,
}

/// For the handles.
impl Outbox {
    /// Creates an outbox that has room while its messages cost less than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            state: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            written: Notify::new(),
        }
    }

    /// Creates an outbox whose peer answers probes: [`flushed`](Self::flushed) waits until the peer
    /// has [confirmed](Self::confirmed) the messages. `lane` is different for each outbox of a
    /// connection, and in the numbers of its probes.
    pub fn with_probes(limit: usize, lane: u16) -> Self {
        let confirmation = Confirmation::with_probes(lane);
        let state = Mutex::new(State { confirmation, ..State::default() });
        Self { state, ..Self::new(limit) }
    }

    /// Queues one message if there is room, and takes `pieces`. One message may exceed the limit.
    ///
    /// # Errors
    ///
    /// [`SendError::WouldBlock`] without room, [`SendError::Closed`], or what was
    /// [reported](Self::report).
    pub fn try_push(&self, pieces: &mut Vec<Bytes>) -> Result<(), SendError> {
        self.try_push_many(|| Some(std::mem::take(pieces)).filter(|it| !it.is_empty())).map(drop)
    }

    /// Queues the messages that `next` returns while there is room, and returns how many. `next` runs
    /// under the lock of the outbox.
    ///
    /// # Errors
    ///
    /// See [`try_push`](Self::try_push). `next` was not called then.
    pub fn try_push_many(
        &self,
        mut next: impl FnMut() -> Option<Vec<Bytes>>,
    ) -> Result<usize, SendError> {
        let (count, has_more) = {
            let state = &mut *self.state.lock();
            if let Some(error) = state.report.take() {
                return Err(error);
            }
            if let Some(reason) = state.why_closed() {
                return Err(SendError::Closed(reason));
            }
            if state.cost >= self.limit {
                return Err(SendError::WouldBlock);
            }
            let mut count = 0;
            while state.cost < self.limit
                && let Some(pieces) = next()
            {
                state.push(pieces, true);
                count += 1;
            }
            (count, state.cost < self.limit)
        };
        self.work.notify_one();
        if has_more {
            self.room.notify_one(); // for the next waiter
        }
        Ok(count)
    }

    /// Queues one message as soon as there is room.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], or what was [reported](Self::report): to each task that waits.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or none of it.
    pub async fn push(&self, mut pieces: Vec<Bytes>) -> Result<(), SendError> {
        let before = self.state.lock().reported.0;
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            {
                let state = &mut *self.state.lock();
                if let (count, Some(error)) = &state.reported
                    && *count > before
                {
                    state.report = None; // it is reported here
                    return Err(error.clone());
                }
            }
            match self.try_push(&mut pieces) {
                Err(SendError::WouldBlock) => {}
                result => return result,
            }
            room.await;
        }
    }

    /// Queues a control record, whether or not there is room. Returns its position, which
    /// [`written`](Self::written) reaches once the record is written.
    ///
    /// The protocol must bound the number of such records.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`].
    pub fn push_control(&self, pieces: Vec<Bytes>) -> Result<u64, SendError> {
        let position = {
            let state = &mut *self.state.lock();
            if let Some(reason) = state.why_closed() {
                return Err(SendError::Closed(reason));
            }
            state.push(pieces, false);
            state.pushed
        };
        self.work.notify_one();
        Ok(position)
    }

    /// Returns how many messages and control records are written.
    pub fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// Queues a confirmation for a probe of the peer, which is written before the messages. Drops it
    /// after a local close, which may be written already, or if many are queued.
    pub fn push_confirmation(&self, number: u32) {
        {
            let state = &mut *self.state.lock();
            let has_room = state.confirmations.len() < MAX_CONFIRMATIONS;
            if !has_room || state.why_closed().is_some() {
                return;
            }
            state.confirmations.push(number);
        }
        self.work.notify_one();
    }

    /// Records the peer's confirmation with this number: its transport has everything before the
    /// probe. Unknown numbers are ignored.
    pub fn confirmed(&self, number: u32) {
        {
            let state = &mut *self.state.lock();
            let Some(end) = state.confirmation.answered(number) else { return };
            state.unacknowledged.confirm(end);
        }
        self.written.notify_waiters();
        self.work.notify_one(); // a flush may wait for more
    }

    /// Waits until all messages queued before are written and, if the outbox has
    /// [probes](Self::with_probes), confirmed.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] if they cannot be written any more. Losses are not reported, see
    /// [`LossReports`](crate::loss_reports::LossReports).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn flushed(&self) -> Result<(), SendError> {
        let target = {
            let state = &mut *self.state.lock();
            state.confirmation.want(state.pushed);
            state.pushed
        };
        self.work.notify_one();
        loop {
            let mut written = pin!(self.written.notified());
            written.as_mut().enable();
            {
                let state = self.state.lock();
                if state.confirmation.is_settled(target, state.written) {
                    return Ok(());
                }
                if let Some(reason) = state.failed.clone() {
                    return Err(SendError::Closed(state.why_closed().unwrap_or(reason)));
                }
            }
            written.await;
        }
    }

    /// Returns a number that no other outbox of the connection has.
    pub fn number(&self) -> u64 {
        std::ptr::from_ref(self).addr() as u64
    }

    /// Returns the progress of writing and of confirmations. `is_moving` means that everything is
    /// written and only the peer's confirmation is missing: what the peer takes is not visible here.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        let is_asked = state.confirmation.is_asked() && state.written == state.pushed;
        let is_moving = state.is_all_written || is_asked;
        Snapshot { done: state.bytes + state.confirmation.settled(), is_moving }
    }

    /// Returns whether everything that was queued is written.
    pub fn is_written(&self) -> bool {
        let state = self.state.lock();
        state.written == state.pushed
    }

    /// Stops queueing; the driver closes after the queued messages. Returns false if that was done
    /// before, or the stream has ended.
    pub fn close(&self, code: u64, reason: &str) -> bool {
        {
            let state = &mut *self.state.lock();
            if state.closing.is_some() || state.has_ended {
                return false;
            }
            state.closing = Some((code, reason.to_owned()));
            state.confirmation.want(state.pushed); // in case the peer closes before it has acknowledged
        }
        self.work.notify_one();
        self.room.notify_waiters();
        true
    }

    /// Stops queueing. `code` and `reason` replace those of a close in progress. Call
    /// [`end`](Self::end) next.
    pub fn abort(&self, code: u64, reason: &str) {
        let state = &mut *self.state.lock();
        if !state.has_ended {
            state.closing = Some((code, reason.to_owned()));
        }
    }

    /// Returns how many messages the peer has not confirmed, at most, and their bytes: those that
    /// were lost or not written, and those that were written and not [confirmed](Self::confirmed).
    /// Without [probes](Self::with_probes) the last are those in the last [`UNCONFIRMED`] bytes,
    /// unless all are [confirmed at the close](Self::confirm).
    pub fn unconfirmed(&self) -> (u64, u64) {
        self.state.lock().unconfirmed()
    }

    /// Returns how many messages are lost if the connection ends now, as far as that is known, and
    /// their bytes: [`unconfirmed`](Self::unconfirmed), but without those that were written if no
    /// confirmation of the peer is overdue. A peer that closes after it has received everything is
    /// then not suspected to have lost something.
    pub fn suspected(&self) -> (u64, u64) {
        let state = self.state.lock();
        match state.confirmation.is_overdue(state.written, state.unacknowledged.end()) {
            true => state.unconfirmed(),
            false => state.unsent(),
        }
    }

    /// Drops the queued messages and ends the stream, unless it has ended. Returns the reason of
    /// the end: a local close takes precedence over `reason`, and `reason` over that of
    /// [`fail`](Self::fail).
    pub fn end(&self, reason: CloseReason) -> CloseReason {
        let (dropped, reason) = {
            let state = &mut *self.state.lock();
            if !std::mem::replace(&mut state.has_ended, true) {
                state.failed = Some(reason.clone());
            }
            (std::mem::take(&mut state.frames), state.why_closed().unwrap_or(reason))
        };
        drop(dropped);
        self.stop();
        reason
    }
}

/// For the driver, of which there is one.
impl Outbox {
    /// Waits for the next work.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn work(&self) -> Work {
        loop {
            if let Some(work) = self.next_work() {
                return work;
            }
            self.work.notified().await; // `notify_one` keeps its permit
        }
    }

    fn next_work(&self) -> Option<Work> {
        let state = &mut *self.state.lock();
        // In turns, so that a peer that asks without end does not keep messages from being written.
        let is_turn = !std::mem::take(&mut state.was_unqueued) || state.frames.is_empty();
        if let Some(records) = is_turn.then(|| state.take_unqueued()).flatten() {
            state.was_unqueued = true;
            return Some(Work::Frame(Frame::unqueued(records)));
        }
        if let Some(frame) = state.frames.pop_front() {
            if state.frames.is_empty() && state.frames.capacity() > KEPT_ENTRIES {
                state.frames = VecDeque::new();
            }
            return Some(Work::Frame(frame));
        }
        state.closing.clone().map(|(code, reason)| Work::Close(code, reason))
    }

    /// Returns the cost of the messages that are queued or being written, in bytes.
    pub fn queued(&self) -> usize {
        self.state.lock().cost
    }

    /// Returns code and reason of the local close, once it has begun.
    pub fn closing(&self) -> Option<(u64, String)> {
        self.state.lock().closing.clone()
    }

    /// Returns whether no message is queued, so that the driver flushes its buffers.
    pub fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }

    /// Records that some bytes were written.
    pub fn wrote(&self, bytes: usize) {
        self.state.lock().bytes += bytes as u64;
    }

    /// Records that a whole message was written.
    pub fn wrote_frame(&self, frame: &Frame) {
        self.state.lock().wrote_frame(frame);
        self.room.notify_one();
        self.written.notify_waiters();
    }

    /// Records that a stream is lost and the outbox continues with another one. Unconfirmed
    /// messages that were written to it are lost, and so is the `begun` one. If there are any, calls
    /// `on_loss`, before a flush can find them settled, and each waiting [`push`](Self::push) returns
    /// `error`; if none waits, the next one or the next [`try_push`](Self::try_push) does, once.
    pub fn report(&self, begun: Option<&Frame>, error: SendError, on_loss: impl FnOnce()) {
        {
            let state = &mut *self.state.lock();
            begun.into_iter().for_each(|frame| state.wrote_frame(frame));
            state.confirmation.settle(state.written);
            let (messages, bytes) = std::mem::take(&mut state.unacknowledged).totals();
            if messages > 0 {
                on_loss();
                state.lost = (state.lost.0 + messages, state.lost.1 + bytes);
                state.report = Some(error.clone());
                state.reported = (state.reported.0 + 1, Some(error));
            }
        }
        self.room.notify_waiters();
        self.written.notify_waiters();
    }

    /// Records that the peer has confirmed everything that was written, after a local close.
    pub fn confirm(&self) {
        {
            let state = &mut *self.state.lock();
            state.is_confirmed = true;
            state.confirmation.settle(state.written);
        }
        self.written.notify_waiters();
    }

    /// Records that all messages and the close are written.
    pub fn wrote_all(&self) {
        self.state.lock().is_all_written = true;
    }

    /// Records that nothing can be written any more, while data may still be received.
    pub fn fail(&self, reason: CloseReason) {
        self.state.lock().failed.get_or_insert(reason);
        self.stop();
    }

    /// Returns the reason of [`fail`](Self::fail).
    pub fn failed(&self) -> Option<CloseReason> {
        self.state.lock().failed.clone()
    }

    fn stop(&self) {
        self.work.notify_one();
        self.room.notify_waiters();
        self.written.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
