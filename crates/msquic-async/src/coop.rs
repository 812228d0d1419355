//! `poll`: futures that are always ready let other tasks run, in any executor.
//!
//! A fast peer, or the end of a connection, makes one operation after the other ready at once. A task that only
//! repeats it would never give its thread back.

use std::cell::Cell;
use std::task::{Context, Poll};

/// How many operations of a thread are ready until one lets other tasks run; the number is tokio's.
const RUN: u32 = 128;

thread_local! {
    static READY: Cell<u32> = const { Cell::new(0) };
}

/// Polls an operation. After [`RUN`] that were ready, wakes the task and polls nothing.
pub(crate) fn poll<T>(
    cx: &mut Context<'_>,
    operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if READY.get() == RUN {
        READY.set(0);
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    let polled = operation(cx);
    if polled.is_ready() {
        READY.set(READY.get() + 1);
    }
    polled
}

/// Polls for a state, which stays as it is: ready as often as it is polled.
pub(crate) fn poll_state<T>(
    cx: &mut Context<'_>,
    state: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    state(cx)
}
