//! `Inbox`: messages that have arrived and that the application has not received yet.
//!
//! The receiving side (a callback of the network, or a task) pushes, the application's tasks pop.
//! The inbox owns the messages in between. Its limit is a number of bytes, with [`ENTRY_COST`] for
//! each entry so that empty messages are bounded too. A receiving side that has seen room may push
//! one message of any size, so the limit may be exceeded by one message.
//!
//! An error is added even if there is no room. If there is none and the newest entry is an error too, the
//! further one is dropped: a peer can cause errors without sending messages.
//!
//! If [`room`](Inbox::room) returns 0, the receiving side pauses. The first [`pop`](Inbox::pop)
//! that then leaves the inbox at most half full returns that it has to be resumed. Dropping a
//! future that waits for [`arrived`](Inbox::arrived) loses no message.

use crate::frame::Message;
// The mutex of `parking_lot`, or of a model checker: `tests/models.rs` includes this file too.
use crate::lock::Mutex;
use crate::memory_budget::Share;
use crate::receipts::MAX_UNWRITTEN;
use net_traits::{CloseReason, RecvError};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What an entry costs in addition to its bytes. This is more than the memory of an entry, so that
/// a full inbox of empty messages does not keep the receiving side and the reader busy for long.
pub const ENTRY_COST: usize = 1024;

/// An empty inbox with a larger capacity frees its memory.
const KEPT_ENTRIES: usize = 1024;

/// A message, or why one is missing.
pub type Received = Result<Message, RecvError>;

/// Received messages of one connection, in order.
///
/// ```
/// use net_kit::inbox::{ENTRY_COST, Inbox};
/// use std::time::Duration;
///
/// let inbox = Inbox::new(ENTRY_COST + 5);
/// inbox.push(&mut vec![Ok(("hello".into(), Duration::ZERO))]);
/// assert_eq!(inbox.room(), 0); // the receiving side pauses
/// let (entry, resume) = inbox.pop().unwrap();
/// assert_eq!((entry.unwrap().0, resume), ("hello".into(), true));
/// ```
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    /// Wakes readers. While there are entries, there is a permit or a woken reader; a reader that
    /// leaves entries notifies the next one.
    arrived: Notify,
    limit: usize,
    share: Arc<Share>,
    /// Whether there are numbers for [`take_due`](Self::take_due).
    has_due: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Received>,
    cost: usize,
    /// How many entries were popped.
    popped: u64,
    /// The positions of entries whose senders wait for a receipt, and the numbers of the receipts.
    marks: VecDeque<(u64, u32)>,
    /// The numbers of the marked entries that were popped.
    due: Vec<u32>,
    /// Whether the receiving side has seen that there is no room.
    is_paused: bool,
    /// Whether an entry without room is dropped, and all after it.
    drops_excess: bool,
    /// Whether new entries are dropped.
    is_discarding: bool,
}

impl Inbox {
    /// Creates an inbox that has room until its entries cost `limit` bytes. An empty inbox always
    /// has room for one entry.
    pub fn new(limit: usize) -> Self {
        Self::charged(limit, Share::unlimited().into())
    }

    /// Creates an inbox whose entries are charged to a connection's share. While the transport has
    /// little memory left, the inbox has room for less than `limit`, but always for one entry.
    pub fn charged(limit: usize, share: Arc<Share>) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            limit: limit.max(1),
            share,
            has_due: false.into(),
        }
    }

    /// Returns the share to which the entries are charged.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Resolves at the next arrival after this call. Call [`pop`](Self::pop) before awaiting it.
    pub fn arrived(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// Returns the oldest entry, and whether the receiving side has to be resumed.
    #[inline]
    pub fn pop(&self) -> Option<(Received, bool)> {
        self.take(State::pop)
    }

    /// Appends the oldest messages to `messages`, at most `limit` but at least one, and returns how
    /// many. An entry that is no message is returned alone. Otherwise as [`pop`](Self::pop).
    pub fn pop_many(
        &self,
        messages: &mut Vec<Message>,
        limit: usize,
    ) -> Option<(Result<usize, RecvError>, bool)> {
        self.take(|state| {
            let first = match state.pop()? {
                Ok(message) => message,
                Err(error) => return Some(Err(error)),
            };
            let before = messages.len();
            messages.push(first);
            while messages.len() - before < limit && matches!(state.entries.front(), Some(Ok(_))) {
                messages.extend(state.pop().and_then(Result::ok));
            }
            Some(Ok(messages.len() - before))
        })
    }

    /// Returns the oldest entry as [`pop`](Self::pop) does, and the number of its mark, whose receipt is
    /// not due before [`add_due`](Self::add_due).
    pub fn pop_with_mark(&self) -> Option<((Received, Option<u32>), bool)> {
        self.take(|state| {
            let due = state.due.len();
            let entry = state.pop()?;
            let mark = if state.due.len() > due { state.due.pop() } else { None };
            Some((entry, mark))
        })
    }

    #[inline]
    fn take<T>(&self, take: impl FnOnce(&mut State) -> Option<T>) -> Option<(T, bool)> {
        let (taken, resume, has_more) = {
            let state = &mut *self.state.lock();
            let cost = state.cost;
            let taken = take(state)?;
            if !state.due.is_empty() {
                self.has_due.store(true, Ordering::Release);
            }
            if state.entries.is_empty() && state.entries.capacity() > KEPT_ENTRIES {
                state.entries = VecDeque::new();
            }
            let rest = std::mem::replace(&mut state.cost, cost);
            state.set_cost(rest, &self.share);
            let (cost, half) = (state.cost, self.limit / 2);
            // Other connections write to what the second comparison reads.
            let is_half = || cost == 0 || (cost <= half && cost <= self.share.room(self.limit) / 2);
            let resume = state.is_paused && is_half();
            if resume {
                state.is_paused = false;
                self.share.set_full(false);
            }
            let resume = resume | self.share.take_resume();
            (taken, resume, !state.entries.is_empty())
        };
        if has_more {
            self.arrived.notify_one();
        }
        Some((taken, resume))
    }

    /// Waits for the oldest entry, as [`pop`](Self::pop), or for the end of the connection.
    ///
    /// `end` returns the reason once no entry can arrive any more. After that, call
    /// [`wake_all`](Self::wake_all).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future takes no entry.
    pub async fn recv(&self, end: impl Fn() -> Option<CloseReason>) -> (Received, bool) {
        self.recv_with(end, Self::pop).await
    }

    /// Waits as [`recv`](Self::recv) for what `pop` takes, which is [`pop`](Self::pop) or
    /// [`pop_many`](Self::pop_many).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future takes no entry.
    pub async fn recv_with<T>(
        &self,
        end: impl Fn() -> Option<CloseReason>,
        mut pop: impl FnMut(&Self) -> Option<(Result<T, RecvError>, bool)>,
    ) -> (Result<T, RecvError>, bool) {
        loop {
            let mut arrived = pin!(self.arrived());
            arrived.as_mut().enable();
            let end = end(); // before looking for entries, which may arrive until the end
            if let Some(popped) = pop(self) {
                return popped;
            }
            if let Some(reason) = end {
                return (Err(RecvError::Closed(reason)), false);
            }
            arrived.await;
        }
    }

    /// Adds entries and leaves `entries` empty.
    #[inline]
    pub fn push(&self, entries: &mut Vec<Received>) {
        if entries.is_empty() {
            return;
        }
        let (dropped, is_excess) = {
            let state = &mut *self.state.lock();
            if state.drops_next(self) {
                (std::mem::take(entries), false)
            } else {
                let cost = entries.iter().map(cost).sum::<usize>();
                self.share.received(cost - entries.len() * ENTRY_COST);
                state.entries.extend(entries.drain(..));
                (Vec::new(), state.set_cost(state.cost + cost, &self.share))
            }
        };
        drop(dropped);
        self.arrived.notify_one(); // a reader that leaves entries wakes the next one
        if is_excess {
            self.share.enforce_total();
        }
    }

    /// Adds one entry; an error only if there is room or the newest entry is a message.
    pub fn push_one(&self, entry: Received) {
        self.push_entry(entry, None);
    }

    fn push_entry(&self, entry: Received, mark: Option<u32>) {
        let mut is_excess = false;
        {
            let state = &mut *self.state.lock();
            let is_repeated = entry.is_err()
                && matches!(state.entries.back(), Some(Err(_)))
                && state.room(self) == 0;
            if !is_repeated && !state.drops_next(self) {
                let cost = cost(&entry);
                self.share.received(cost - ENTRY_COST);
                let position = state.popped + state.entries.len() as u64;
                state.marks.extend(mark.map(|number| (position, number)));
                state.entries.push_back(entry);
                is_excess = state.set_cost(state.cost + cost, &self.share);
            }
        }
        self.arrived.notify_one();
        if is_excess {
            self.share.enforce_total();
        }
    }

    /// Adds a message whose sender waits for a receipt with `number`.
    pub fn push_marked(&self, entry: Received, number: u32) {
        self.push_entry(entry, Some(number));
    }

    /// Returns the numbers of the marked messages that were popped, to send receipts.
    pub fn take_due(&self) -> Vec<u32> {
        if !self.has_due() {
            return Vec::new();
        }
        let state = &mut *self.state.lock();
        self.has_due.store(false, Ordering::Release);
        std::mem::take(&mut state.due)
    }

    /// Adds the number of a marked message that the application has taken, to send its receipt.
    pub fn add_due(&self, number: u32) {
        let state = &mut *self.state.lock();
        if state.due.len() < MAX_UNWRITTEN {
            state.due.push(number);
        }
        self.has_due.store(true, Ordering::Release);
    }

    /// Returns numbers for which no receipt could be sent now, before those that became due meanwhile.
    pub fn postpone_due(&self, numbers: &[u32]) {
        let state = &mut *self.state.lock();
        state.due.splice(..0, numbers.iter().copied());
        state.due.truncate(MAX_UNWRITTEN);
        self.has_due.store(!state.due.is_empty(), Ordering::Release);
    }

    /// Returns whether [`take_due`](Self::take_due) has numbers.
    #[inline]
    pub fn has_due(&self) -> bool {
        self.has_due.load(Ordering::Acquire)
    }

    /// Drops entries that arrive without room, and all that arrive after the first one that was dropped:
    /// what the application receives has no gap. [`room`](Self::room) is unlimited from now on.
    pub fn drop_excess(&self) {
        self.state.lock().drops_excess = true;
    }

    /// Returns whether entries that arrive are dropped: after [`drop_excess`](Self::drop_excess) once there was
    /// no room, and after [`clear`](Self::clear).
    pub fn is_discarding(&self) -> bool {
        self.state.lock().is_discarding
    }

    /// Drops all entries, and those that arrive from now on.
    pub fn clear(&self) {
        let _entries = {
            let state = &mut *self.state.lock();
            state.is_discarding = true;
            state.marks.clear();
            state.set_cost(0, &self.share);
            std::mem::take(&mut state.entries)
        };
    }

    /// Returns whether the entries cost as much as the limit allows.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.state.lock().room(self) == 0
    }

    /// Returns how many bytes of entries may be added. If it is 0, the receiving side has to pause.
    #[inline]
    pub fn room(&self) -> usize {
        let state = &mut *self.state.lock();
        if state.is_discarding || state.drops_excess {
            return usize::MAX;
        }
        let room = state.room(self);
        if room == 0 && !state.is_paused {
            state.is_paused = true;
            self.share.set_full(true);
        }
        room
    }

    /// Wakes all readers, which then check for the end of the connection.
    pub fn wake_all(&self) {
        self.arrived.notify_waiters();
    }
}

impl State {
    /// Charges the cost of the entries; returns whether the budget is exceeded.
    #[inline]
    fn set_cost(&mut self, cost: usize, share: &Share) -> bool {
        share.store(std::mem::replace(&mut self.cost, cost), cost)
    }

    /// Returns whether the next entry is dropped.
    fn drops_next(&mut self, inbox: &Inbox) -> bool {
        self.is_discarding |= self.drops_excess && self.room(inbox) == 0;
        self.is_discarding
    }

    /// Takes the oldest entry without charging the rest to the share.
    #[inline]
    fn pop(&mut self) -> Option<Received> {
        let entry = self.entries.pop_front()?;
        self.popped += 1;
        self.cost -= cost(&entry);
        if !self.marks.is_empty() {
            self.pop_mark();
        }
        Some(entry)
    }

    /// If the entry that was popped last is marked, its receipt is due.
    fn pop_mark(&mut self) {
        let is_marked = self.marks.front().is_some_and(|(position, _)| *position < self.popped);
        let number = if is_marked { self.marks.pop_front() } else { None };
        let due = number.filter(|_| self.due.len() < MAX_UNWRITTEN);
        self.due.extend(due.map(|(_, number)| number));
    }

    fn room(&self, inbox: &Inbox) -> usize {
        let limit = inbox.share.room(inbox.limit);
        limit.saturating_sub(self.cost).max(usize::from(self.cost == 0))
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.state.get_mut().set_cost(0, &self.share);
    }
}

/// Returns what an entry costs in an inbox, in bytes.
#[inline]
pub fn cost(entry: &Received) -> usize {
    ENTRY_COST + entry.as_ref().map_or(0, |(bytes, _)| bytes.len())
}

#[cfg(test)]
#[path = "inbox/tests.rs"] // also for the models, which include this file
mod tests;
