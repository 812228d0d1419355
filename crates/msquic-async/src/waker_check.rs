//! `checked`: in debug builds, panics if a poll returns `Pending` and has not registered its waker.
//!
//! Nothing would wake the task of such a poll. In a test, other events of the task may hide that.
//!
//! Where a waker is stored, [`registered`] counts it for the thread. A waker that notes how it is used would not
//! need that, but [`Waiters`](crate::waiters::Waiters) recognize a task by its waker.

use std::cell::Cell;
use std::task::Poll;

thread_local! {
    /// How many polls on this thread have registered their waker before they returned `Pending`.
    static REGISTERED: Cell<u64> = const { Cell::new(0) };
}

/// Counts that the poll in progress has stored its waker where the awaited event finds it, or has woken it.
pub(crate) fn registered() {
    if cfg!(debug_assertions) {
        REGISTERED.set(REGISTERED.get() + 1);
    }
}

/// Returns the result of `poll`.
///
/// # Panics
///
/// In debug builds, if that is `Pending` without a call of [`registered`].
pub(crate) fn checked<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let before = REGISTERED.get();
    let polled = poll();
    debug_assert!(
        polled.is_ready() || REGISTERED.get() != before,
        "a poll returned `Pending` without registering its waker, so nothing wakes its task"
    );
    polled
}
