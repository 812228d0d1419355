//! `Window`: how much a peer may send ahead, where the library does not report what it holds.
//!
//! Such a library may hold what the window of each connection permits, so that is reserved in the transport's
//! budget. Credit cannot be withdrawn: a window begins small, grows while the peer uses it, and a smaller one
//! is in effect once as many bytes were taken. All windows together reserve half of the memory at most: a
//! quarter is for the least windows of all permitted connections, a quarter for what exceeds them. Of the
//! latter each connection gets a part of what is free (dynamic thresholds, as the
//! [`Inbox`](crate::inbox)), so that idle connections with large windows leave something to others.

use super::{MemoryBudget, MemoryLimits, Share};
use parking_lot::Mutex;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The least windows, and what exceeds them, may each reserve this part of the memory.
const PART: usize = 4;

/// The least window whatever the memory, in bytes: the least that options permit.
const LEAST: u32 = 4 * 1024;

/// Beyond its least window, a connection may have this part of what is free.
const PART_OF_FREE: usize = 4;

/// It begins with this part, so that thousands of idle connections leave something to busy ones.
const PART_AT_BEGIN: usize = 512;

/// Returns what a library may hold in a window. quinn keeps the packets of fragments until they take more than
/// one and a half times as much as the data, besides the data.
fn held(window: usize) -> usize {
    window.saturating_mul(5) / 2
}

/// Returns which windows may exceed the least windows, in bytes, and also the sum of all least windows.
fn growth(limits: &MemoryLimits) -> usize {
    limits.total / PART / 5 * 2
}

impl MemoryBudget {
    /// Returns how many bytes are reserved for windows. Least windows of 4 KiB may exceed their part, but must not
    /// end connections.
    pub(super) fn reserved(&self) -> usize {
        self.windows.reserved.load(Ordering::Relaxed).min(self.limits.total / PART * 2)
    }

    /// Returns how many bytes are neither charged nor reserved.
    pub(super) fn free(&self) -> usize {
        self.limits.total.saturating_sub(self.used()).saturating_sub(self.reserved())
    }
}

/// The receive window of one connection.
///
/// ```
/// use net_kit::memory_budget::{MemoryBudget, MemoryLimits, Share, Window};
/// use std::sync::Arc;
///
/// const KIB: u32 = 1024;
/// let limits = MemoryLimits { total: 1 << 30, ..MemoryLimits::NONE };
/// let share = Share::new(&Arc::new(MemoryBudget::new(limits)));
/// let window = Window::new(&share, Window::range(&limits, 10_000, 16 * 1024 * KIB));
/// let size = window.size();
/// assert!((200 * KIB..300 * KIB).contains(&size));
/// assert_eq!(window.adapt(1000), None);
/// assert_eq!(window.adapt(size.into()), Some(2 * size)); // the peer uses it
/// ```
#[derive(Debug)]
pub struct Window {
    budget: Arc<MemoryBudget>,
    least: usize,
    most: usize,
    /// How many bytes were taken from the library.
    taken: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: usize,
    /// The bytes that the peer may be ahead: `size`, or more after the window became smaller.
    credit: usize,
    /// The window may grow when so much has arrived: what it permitted in addition when it grew last.
    mark: u64,
    /// How much had arrived at the last call.
    arrived: u64,
    /// How much had been taken at the last call.
    taken: u64,
}

impl Window {
    /// Returns the least and the largest window, in bytes, of a transport with so many connections at most. The
    /// least is 4 KiB or more.
    pub fn range(limits: &MemoryLimits, connections: usize, most: u32) -> RangeInclusive<u32> {
        let part = u32::try_from(growth(limits) / connections.max(1)).unwrap_or(u32::MAX);
        part.max(LEAST).min(most)..=most
    }

    /// Creates the window of a connection: the least one, and a 512th of what is free.
    pub fn new(share: &Share, range: RangeInclusive<u32>) -> Self {
        let (least, most) = (*range.start() as usize, *range.end() as usize);
        let budget = share.budget.clone();
        budget.windows.reserved.fetch_add(held(least), Ordering::Relaxed);
        let state = State { size: least, credit: least, mark: least as u64, arrived: 0, taken: 0 };
        let (taken, state) = (AtomicU64::new(0), Mutex::new(state));
        let window = Self { budget, least, most, taken, state };
        {
            let state = &mut *window.state.lock();
            let first = window.allowed(state, PART_AT_BEGIN);
            window.grow(state, first);
        }
        window
    }

    /// Returns the window in bytes.
    pub fn size(&self) -> u32 {
        u32::try_from(self.state.lock().size).unwrap_or(u32::MAX)
    }

    /// Counts bytes that were taken from the library.
    #[inline]
    pub fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the new window if it changes. `arrived` is how many bytes the network has delivered since the
    /// connection began. Call it several times per second, and pass the window to the library.
    ///
    /// When as much has arrived as the window permits, it grows to twice that, or to twice what has arrived since the
    /// last call. It does so even if nothing was taken: data that waits must not keep other data out.
    pub fn adapt(&self, arrived: u64) -> Option<u32> {
        let state = &mut *self.state.lock();
        let before = state.size;
        let recent = arrived.saturating_sub(std::mem::replace(&mut state.arrived, arrived));
        let taken = self.taken.load(Ordering::Relaxed);
        let given_back = taken.saturating_sub(std::mem::replace(&mut state.taken, taken));
        // Of what was taken, the library gives no credit back until the smaller window is in effect.
        let surplus = state.credit - state.size;
        self.release(state, surplus.min(usize::try_from(given_back).unwrap_or(usize::MAX)));
        let allowed = self.allowed(state, PART_OF_FREE);
        if state.size > allowed {
            state.size = allowed;
        } else if arrived >= state.mark {
            let used = usize::try_from(recent).unwrap_or(usize::MAX).max(state.size);
            self.grow(state, used.saturating_mul(2).min(allowed));
            state.mark = arrived.saturating_add((state.size - before) as u64);
        }
        (state.size != before).then(|| u32::try_from(state.size).unwrap_or(u32::MAX))
    }

    /// Returns the largest window that the connection may have now, with a part of what is free.
    fn allowed(&self, state: &State, part: usize) -> usize {
        let own = state.credit - self.least;
        let others = self.budget.windows.grown.load(Ordering::Relaxed).saturating_sub(own);
        // Messages that wait for a slow application leave less.
        let unused = self.budget.free().saturating_add(held(own)) / 5 * 2;
        let free = growth(&self.budget.limits).saturating_sub(others).min(unused);
        self.least.saturating_add(free / part).min(self.most)
    }

    /// Grows the window to `size` if there is memory.
    fn grow(&self, state: &mut State, size: usize) {
        if size <= state.size {
            return;
        }
        let more = size.saturating_sub(state.credit);
        let (order, limit) = (Ordering::Relaxed, growth(&self.budget.limits));
        let add = |grown: usize| grown.checked_add(more).filter(|sum| *sum <= limit);
        let windows = &self.budget.windows;
        if windows.grown.fetch_update(order, order, add).is_err() {
            return;
        }
        let (before, now) = (held(state.credit), held(state.credit + more));
        windows.reserved.fetch_add(now - before, order);
        (state.size, state.credit) = (size, state.credit + more);
    }

    fn release(&self, state: &mut State, bytes: usize) {
        let (before, now) = (held(state.credit), held(state.credit - bytes));
        let windows = &self.budget.windows;
        windows.reserved.fetch_sub(before - now, Ordering::Relaxed);
        windows.grown.fetch_sub(bytes, Ordering::Relaxed);
        state.credit -= bytes;
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let state = &mut *self.state.lock();
        self.release(state, state.credit - self.least);
        self.budget.windows.reserved.fetch_sub(held(self.least), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    const TOTAL: usize = 512 * MIB;
    const CONNECTIONS: usize = 10_000;

    /// Returns what is reserved, even if it is more than half of the memory.
    fn reserved(budget: &MemoryBudget) -> usize {
        budget.windows.reserved.load(Ordering::Relaxed)
    }

    fn budget() -> (Arc<MemoryBudget>, RangeInclusive<u32>) {
        let limits = MemoryLimits { total: TOTAL, ..MemoryLimits::NONE };
        let range = Window::range(&limits, CONNECTIONS, 16 * MIB as u32);
        (Arc::new(MemoryBudget::new(limits)), range)
    }

    #[test]
    fn all_windows_stay_within_half_of_the_memory() {
        let (budget, range) = budget();
        let share = Share::new(&budget);
        let windows: Vec<_> =
            (0..CONNECTIONS).map(|_| Window::new(&share, range.clone())).collect();
        let mut arrived = 0;
        for _ in 0..10 {
            for window in &windows {
                window.adapt(arrived);
            }
            arrived += 100 * MIB as u64;
            assert!(reserved(&budget) <= TOTAL / 2, "{}", reserved(&budget));
        }
        assert!(reserved(&budget) > TOTAL / 3, "{}", reserved(&budget));
        drop(windows);
        let of_all = [&budget.windows.reserved, &budget.windows.grown];
        assert_eq!(of_all.map(|it| it.load(Ordering::Relaxed)), [0; 2]);
    }

    #[test]
    fn a_window_grows_while_the_peer_uses_it() {
        let (budget, range) = budget();
        assert!((4 * KIB..6 * KIB).contains(&(*range.start() as usize)), "{range:?}");
        let window = Window::new(&Share::new(&budget), range);
        let mut size = window.size() as usize;
        assert!((100 * KIB..120 * KIB).contains(&size), "{size}");
        assert_eq!(window.adapt(1000), None, "it is not used");
        let largest = window.allowed(&window.state.lock(), PART_OF_FREE);
        assert!((12 * MIB..13 * MIB).contains(&largest), "{largest}");
        while size < largest {
            // Nothing is taken, so that no more can arrive.
            let grown = window.adapt(size as u64).expect("the peer needs more");
            assert!(grown as usize >= (size * 2).min(largest), "{grown} after {size}");
            size = grown as usize;
        }
        assert_eq!(window.adapt(10 * size as u64), None);
        assert_eq!(reserved(&budget), held(largest));
    }

    #[test]
    fn windows_become_small_when_messages_take_the_memory() {
        let (budget, range) = budget();
        let share = Arc::new(Share::new(&budget));
        let window = Window::new(&share, range.clone());
        assert!(window.adapt(100 * MIB as u64) > Some(12 * MIB as u32));
        let mut charge = super::super::Charge::new(&share);
        charge.set(TOTAL - 40 * MIB);
        assert!(!budget.is_exceeded());
        assert!(window.adapt(100 * MIB as u64) < Some(5 * MIB as u32));
        let late = Window::new(&share, range);
        assert!(late.size() < 20 * KIB as u32, "{late:?}");
        window.take(MIB);
        window.adapt(100 * MIB as u64);
        assert!(late.adapt(100 * MIB as u64) < Some(2 * MIB as u32));
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn a_window_grows_step_by_step_as_memory_becomes_free() {
        let (budget, range) = budget();
        let share = Share::new(&budget);
        let mut others: Vec<_> = (0..50).map(|_| Window::new(&share, range.clone())).collect();
        for window in &others {
            window.adapt(100 * MIB as u64);
        }
        let window = Window::new(&share, range);
        let mut size = window.size();
        while let Some(grown) = window.adapt(size.into()) {
            size = grown;
        }
        for _ in 0..8 {
            others.remove(0); // the first ones are the largest
            let grown = window.adapt(size.into()).expect("more is free");
            assert!(grown > size);
            size = grown;
        }
    }

    #[test]
    fn busy_connections_share_what_idle_ones_leave() {
        let (budget, range) = budget();
        let share = Share::new(&budget);
        let windows: Vec<_> = (0..20).map(|_| Window::new(&share, range.clone())).collect();
        let (idle, busy) = windows.split_at(8);
        for window in idle {
            window.adapt(100 * MIB as u64);
        }
        let held_by = |windows: &[Window]| -> Vec<_> {
            windows.iter().map(|window| window.state.lock().credit).collect()
        };
        let before = held_by(idle);
        for round in 1..50 {
            for window in busy {
                window.adapt(round * 100 * MIB as u64);
                window.take(100 * MIB);
            }
            for window in idle {
                window.adapt(100 * MIB as u64);
            }
        }
        let sizes = held_by(busy);
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(*least > 250 * KIB && *most < least * 5 / 4, "{sizes:?}");
        assert_eq!(held_by(idle), before, "credit cannot be withdrawn");
        assert!(idle.iter().all(|window| (window.size() as usize) < before[0]));
        // It becomes smaller as the peer uses it.
        idle[0].take(100 * KIB);
        idle[0].adapt(100 * MIB as u64);
        assert_eq!(held_by(idle)[0], before[0] - 100 * KIB);
    }

    #[test]
    fn without_a_limit_a_window_has_its_full_size() {
        let range = Window::range(&MemoryLimits::NONE, CONNECTIONS, 16 * MIB as u32);
        assert_eq!(range, 16 * MIB as u32..=16 * MIB as u32);
        let window = Window::new(&Share::unlimited(), range);
        assert_eq!((window.size() as usize, window.adapt(u64::MAX)), (16 * MIB, None));
    }
}
