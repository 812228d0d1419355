//! `MemoryBudget`: the memory that the peers of a transport occupy.
//!
//! A transport has one budget, and each of its connections a [`Share`] of it, which is charged for what
//! is *stored* for the application (the [`Inbox`](crate::inbox)), for what is [`Unfinished`] (a message
//! whose last byte has not arrived), and for the rest (questions) by a [`Charge`]. Charges are values;
//! dropping one releases it, and dropping a share releases the rest. Each share has one short lock, and the sum is atomic.
//!
//! | limit | what happens there |
//! |---|---|
//! | `unfinished`, per connection | the streams of the connection pause, except that of its oldest unfinished message |
//! | `total` of the transport | the connection that holds most is ended, see [`MemoryBudget::on_excess`] |
//! | `timeout` of an unfinished message or a [`Gap`] | its connection is ended, if that stands still too, or if memory is scarce: see [`Share::is_late`] |
//!
//! Nothing waits forever. The oldest unfinished message may always grow, so that each connection can
//! complete one of any permitted size; if the peer does not send the rest, the time limit ends the
//! connection. At the limit of the transport no connection waits, because one of them is ended.

#[path = "memory_budget/charge.rs"] // the paths are for tests/models.rs, which includes this file
mod charge;
#[path = "memory_budget/gap.rs"]
mod gap;
#[path = "memory_budget/pace.rs"]
mod pace;

pub use charge::Charge;
pub use gap::Gap;

use crate::lock::Mutex;
use pace::{Gaps, Pace, Progress};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Stored bytes are charged in units of this size, so that short queues cost nothing.
const UNIT: usize = 4 * 1024;

/// So much of an unfinished message may always arrive.
const ALWAYS: usize = 16 * 1024;

/// How many bytes an unfinished message has to bring within the timeout, unless its end comes before.
const ADVANCE: usize = 16 * 1024;

/// From the free memory of the transport, each inbox may take this part.
const PART: usize = 16;

/// How much memory peers may occupy, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes of all connections.
    pub total: usize,
    /// Bytes of the unfinished messages of one connection; one of them may exceed it.
    pub unfinished: usize,
    /// How long a connection with an unfinished message may bring less than 16 KiB, while this side accepts
    /// data; and, while more than half of `total` is used, how long it may bring less than a 64th of what
    /// its unfinished messages hold.
    pub timeout: Duration,
}

impl MemoryLimits {
    /// No limits.
    pub const NONE: Self =
        Self { total: usize::MAX, unfinished: usize::MAX, timeout: Duration::MAX };
}

/// The memory that the peers of a transport occupy.
///
/// ```
/// use net_kit::memory_budget::{MemoryBudget, MemoryLimits, Share, Unfinished};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let limits =
///     MemoryLimits { total: 1 << 30, unfinished: 1 << 20, timeout: Duration::from_secs(30) };
/// let budget = Arc::new(MemoryBudget::new(limits));
/// let share = Arc::new(Share::new(&budget));
/// let mut message = Unfinished::new(&share);
/// assert_eq!(message.allowance(), usize::MAX);
/// message.set(1000, 2000); // 1000 bytes have arrived, in a buffer of 2000
/// assert_eq!(budget.used(), 2000);
/// drop(message);
/// assert_eq!(budget.used(), 0);
/// ```
pub struct MemoryBudget {
    limits: MemoryLimits,
    used: AtomicUsize,
    unfinished: AtomicUsize,
    began: Notify,
    on_excess: Box<dyn Fn() + Send + Sync>,
}

impl MemoryBudget {
    /// Creates an empty budget.
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            used: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            began: Notify::new(),
            on_excess: Box::new(|| {}),
        }
    }

    /// Sets the hook that is called after a charge that exceeds the total. It runs without a lock, on
    /// the thread that charged, and is to [end](Share::end) a share.
    #[must_use]
    pub fn on_excess(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_excess = Box::new(hook);
        self
    }

    /// Returns the limits.
    pub fn limits(&self) -> &MemoryLimits {
        &self.limits
    }

    /// Returns how many bytes are charged.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns whether more is charged than the total allows.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.limits.total
    }

    /// Returns whether more than half of the total is charged: peers have to hurry.
    pub fn is_scarce(&self) -> bool {
        self.used() > self.limits.total / 2
    }

    /// Waits until there is an unfinished message or a gap.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn began(&self) {
        while self.unfinished.load(Ordering::SeqCst) == 0 {
            self.began.notified().await;
        }
    }

    /// Counts what has to advance, so that [`began`](Self::began) returns.
    fn begin(&self) {
        if self.unfinished.fetch_add(1, Ordering::SeqCst) == 0 {
            self.began.notify_one();
        }
    }

    /// Calls the hook if the total is exceeded; no lock may be held.
    fn check(&self) {
        if self.is_exceeded() {
            (self.on_excess)();
        }
    }

    fn replace(&self, before: usize, now: usize) {
        if now > before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut budget = f.debug_struct("MemoryBudget");
        budget.field("limits", &self.limits).field("used", &self.used()).finish_non_exhaustive()
    }
}

/// What one connection holds of its transport's [`MemoryBudget`].
#[derive(Debug)]
pub struct Share {
    budget: Arc<MemoryBudget>,
    /// How many messages are unfinished.
    unfinished: AtomicUsize,
    numbers: AtomicU64,
    /// A message could not grow.
    is_blocked: AtomicBool,
    /// The bytes of complete messages so far.
    received: AtomicU64,
    has_ended: AtomicBool,
    /// Whether the limits on unfinished messages are lifted.
    is_unlimited: AtomicBool,
    state: Mutex<State>,
    /// Locked after `state`, by [`is_late`](Self::is_late) only.
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct State {
    /// By age. Each message stream has at most one, so that `max_inbound_streams` (16 by default) bounds
    /// what a pass over them costs under the lock.
    unfinished: BTreeMap<u64, Growth>,
    /// What is behind gaps.
    gaps: Gaps,
    /// All charges, until the connection is ended.
    charged: usize,
    /// The inbox is full.
    is_full: bool,
    /// A message that could not grow may grow now.
    is_released: bool,
    has_ended: bool,
}

/// A message in progress.
#[derive(Debug)]
struct Growth {
    charged: usize,
    arrived: usize,
    /// How much had arrived at the last advance, and when that was.
    mark: usize,
    since: Instant,
    /// It may not grow now.
    is_blocked: bool,
}

impl Share {
    /// Creates the share of a connection.
    pub fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self {
            budget: budget.clone(),
            unfinished: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            received: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            is_unlimited: AtomicBool::new(false),
            state: Mutex::default(),
            pace: Mutex::new(Pace::new()),
        }
    }

    /// Creates a share without limits, of a budget of its own.
    pub fn unlimited() -> Self {
        Self::new(&Arc::new(MemoryBudget::new(MemoryLimits::NONE)))
    }

    /// Returns how many bytes the connection holds.
    pub fn held(&self) -> usize {
        self.state.lock().charged
    }

    /// Returns how long an unfinished message may stand still.
    pub fn timeout(&self) -> Duration {
        self.budget.limits.timeout
    }

    /// Changes how many bytes are stored for the application. Call [`enforce_total`](Self::enforce_total) after
    /// unlocking if it returns true.
    #[inline]
    pub(crate) fn store(&self, before: usize, now: usize) -> bool {
        let (before, now) = (before / UNIT * UNIT, now / UNIT * UNIT);
        if before == now {
            return false;
        }
        self.state.lock().charge(&self.budget, before, now);
        now > before && self.budget.is_exceeded()
    }

    /// Counts bytes of complete messages.
    #[inline]
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records whether the inbox is full: unfinished messages are then not late.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    /// Calls the hook if the budget is exceeded, which ends a connection; no lock may be held.
    pub(crate) fn enforce_total(&self) {
        self.budget.check();
    }

    /// Returns how much an inbox may store now, if it may store `limit` at most.
    pub(crate) fn room(&self, limit: usize) -> usize {
        if self.budget.limits.total == usize::MAX {
            return limit;
        }
        limit.min(self.budget.limits.total.saturating_sub(self.budget.used()) / PART)
    }

    /// Returns whether streams that [paused](Unfinished::allowance) should be resumed. The next call
    /// returns false, until they pause again.
    #[inline]
    pub fn take_resume(&self) -> bool {
        if !self.is_blocked.load(Ordering::Acquire) {
            return false;
        }
        let state = &mut *self.state.lock();
        let resume = std::mem::take(&mut state.is_released);
        if resume {
            self.is_blocked.store(false, Ordering::Release);
        }
        resume
    }

    /// Releases everything at once, as the connection is ended; later charges are not counted. Returns
    /// false if it was ended before.
    pub fn end(&self) -> bool {
        let state = &mut *self.state.lock();
        self.has_ended.store(true, Ordering::Release);
        self.budget.replace(std::mem::take(&mut state.charged), 0);
        !std::mem::replace(&mut state.has_ended, true)
    }

    /// Lifts the limits on unfinished messages: the connection has ended and no more data can arrive, so
    /// everything that has arrived may be decoded. Resume paused streams afterwards.
    pub fn lift_limits(&self) {
        self.is_unlimited.store(true, Ordering::Release);
    }

    /// Returns whether the connection was [ended](Self::end): what arrives is to be discarded.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Returns whether the connection has to end because it does not finish its messages, or fill its
    /// gaps, which count as messages that bring nothing. Call it about four times within the timeout.
    ///
    /// An unfinished message that brings less than 16 KiB within the timeout is late if the connection does
    /// the same. So peers may send messages side by side, and some before others, over a slow path.
    /// While memory is [scarce](MemoryBudget::is_scarce), the connection also has to bring a 64th of what all
    /// its unfinished messages hold, and those that bring less than a 64th of what they hold may hold 64
    /// KiB together. Time counts only while this side accepts data.
    pub fn is_late(&self, now: Instant) -> bool {
        let timeout = self.budget.limits.timeout;
        let state = &mut *self.state.lock();
        let is_full = state.is_full;
        let mut is_late = false;
        for growth in state.unfinished.values_mut() {
            if is_full || growth.is_blocked {
                growth.since = now;
            }
            is_late |= now.saturating_duration_since(growth.since) >= timeout;
        }
        is_late |= state.gaps.is_late(now, timeout, is_full);
        let is_scarce = self.budget.is_scarce();
        let pace = &mut *self.pace.lock();
        pace.update(
            now,
            timeout,
            is_scarce,
            self.received.load(Ordering::Relaxed),
            state
                .unfinished
                .iter()
                .map(|(number, growth)| Progress {
                    number: *number,
                    arrived: growth.arrived,
                    held: growth.charged,
                    is_waiting: is_full || growth.is_blocked,
                })
                .chain(state.gaps.progress(is_full)),
        );
        let is_stalled = is_late && pace.is_stalled(now, timeout);
        let is_slow = is_scarce && pace.is_slow(now, timeout);
        (is_stalled || is_slow) && !state.has_ended
    }
}

impl State {
    fn charge(&mut self, budget: &MemoryBudget, before: usize, now: usize) {
        if !self.has_ended {
            self.charged = self.charged + now - before;
            budget.replace(before, now);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}

/// The charge of a message whose last byte has not arrived. It is released on drop.
#[derive(Debug)]
pub struct Unfinished {
    share: Arc<Share>,
    /// `Some` while something has arrived.
    number: Option<u64>,
}

impl Unfinished {
    /// Creates the charge of a stream that is between two messages.
    pub fn new(share: &Arc<Share>) -> Self {
        Self { share: share.clone(), number: None }
    }

    /// Returns the share.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Returns how many bytes the stream may accept now, if they belong to one message. If it is 0,
    /// pause the stream until [`take_resume`](Share::take_resume) returns true.
    #[inline]
    pub fn allowance(&self) -> usize {
        let others = self.share.unfinished.load(Ordering::Relaxed);
        let is_alone = others == 0 || others == 1 && self.number.is_some();
        if is_alone || self.share.is_unlimited.load(Ordering::Acquire) {
            return usize::MAX;
        }
        let limit = self.share.budget.limits.unfinished;
        let state = &mut *self.share.state.lock();
        let oldest = state.unfinished.keys().next().copied();
        let of_all: usize = state.unfinished.values().map(|growth| growth.charged).sum();
        let growth = self.number.and_then(|number| state.unfinished.get_mut(&number));
        let (buffer, arrived) = growth.as_ref().map_or((0, 0), |it| (it.charged, it.arrived));
        // The buffer may double.
        let free = limit.saturating_sub(of_all.saturating_add(buffer)) / 2;
        let allowance = match oldest {
            Some(oldest) if self.number != Some(oldest) => free.max(ALWAYS.saturating_sub(arrived)),
            _ => usize::MAX,
        };
        let is_blocked = allowance == 0;
        if let Some(growth) = growth {
            growth.is_blocked = is_blocked;
        }
        if is_blocked {
            self.share.is_blocked.store(true, Ordering::Release);
        }
        allowance
    }

    /// Sets how much of the message has arrived, and the size of its buffer. Zero bytes: the stream is
    /// between two messages. May end a connection, so that no lock may be held.
    #[inline]
    pub fn set(&mut self, arrived: usize, buffer: usize) {
        match (arrived, self.number) {
            (0, None) => {}
            (0, Some(number)) => self.release(number),
            (_, None) => self.begin(arrived, buffer),
            (_, Some(number)) => self.grow(number, arrived, buffer),
        }
    }

    fn begin(&mut self, arrived: usize, buffer: usize) {
        let share = &*self.share;
        let number = share.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let state = &mut *share.state.lock();
            share.unfinished.fetch_add(1, Ordering::Relaxed);
            let since = Instant::now();
            let growth =
                Growth { charged: buffer, arrived, mark: arrived, since, is_blocked: false };
            state.unfinished.insert(number, growth);
            state.charge(&share.budget, 0, buffer);
        }
        self.number = Some(number);
        share.budget.begin();
        share.budget.check();
    }

    fn grow(&self, number: u64, arrived: usize, buffer: usize) {
        let share = &*self.share;
        {
            let state = &mut *share.state.lock();
            let Some(growth) = state.unfinished.get_mut(&number) else { return };
            let before = std::mem::replace(&mut growth.charged, buffer);
            growth.is_blocked &= growth.arrived == arrived;
            growth.arrived = arrived;
            if arrived >= growth.mark.saturating_add(ADVANCE) {
                (growth.mark, growth.since) = (arrived, Instant::now());
            }
            if before == buffer {
                return;
            }
            state.charge(&share.budget, before, buffer);
        }
        share.budget.check();
    }

    fn release(&mut self, number: u64) {
        self.number = None;
        let share = &*self.share;
        let state = &mut *share.state.lock();
        if let Some(growth) = state.unfinished.remove(&number) {
            share.unfinished.fetch_sub(1, Ordering::Relaxed);
            share.budget.unfinished.fetch_sub(1, Ordering::SeqCst);
            state.is_released |= share.is_blocked.load(Ordering::Relaxed);
            state.charge(&share.budget, growth.charged, 0);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

#[cfg(test)]
#[path = "memory_budget/tests.rs"]
mod tests;
