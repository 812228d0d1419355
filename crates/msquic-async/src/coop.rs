//! `poll`: futures that are always ready let other tasks run, in any executor.
//!
//! A fast peer, or the end of a connection, makes one operation after the other ready at once. A task that only
//! repeats it would never give its thread back.

use crate::waker_check::{checked, registered};
use std::cell::Cell;
use std::task::{Context, Poll};

/// How many operations of a thread are ready until one lets other tasks run; the number is tokio's.
const RUN: u32 = 128;

thread_local! {
    static READY: Cell<u32> = const { Cell::new(0) };
}

/// Polls an operation. After [`RUN`] that were ready, wakes the task and polls nothing.
///
/// In debug builds, panics if the operation is pending and has not registered the waker.
pub(crate) fn poll<T>(
    cx: &mut Context<'_>,
    operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if READY.get() == RUN {
        READY.set(0);
        cx.waker().wake_by_ref();
        registered(); // for a caller that checks it too
        return Poll::Pending;
    }
    let polled = checked(|| operation(cx));
    if polled.is_ready() {
        READY.set(READY.get() + 1);
    }
    polled
}

/// Polls for a state, which stays as it is: ready as often as it is polled. Checks the waker as [`poll`] does.
pub(crate) fn poll_state<T>(
    cx: &mut Context<'_>,
    state: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    checked(|| state(cx))
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use crate::waiters::{Place, Waiters};
    use std::task::Waker;

    /// Polls what is pending without its waker, after another poll on this thread that has registered one.
    fn poll_without_registering(
        poll: impl Fn(&mut Context<'_>, fn(&mut Context<'_>) -> Poll<()>) -> Poll<()>,
    ) {
        let (waiters, cx) = (Waiters::default(), &mut Context::from_waker(Waker::noop()));
        let mut place = Place::default();
        assert!(poll_state(cx, |cx| place.poll_until(&waiters, cx, || None::<()>)).is_pending());
        let _ = poll(cx, |_| Poll::Pending);
    }

    #[test]
    #[should_panic(expected = "without registering its waker")]
    fn an_operation_that_registers_no_waker_panics() {
        poll_without_registering(|cx, operation| poll(cx, operation));
    }

    #[test]
    #[should_panic(expected = "without registering its waker")]
    fn a_state_that_registers_no_waker_panics() {
        poll_without_registering(|cx, state| poll_state(cx, state));
    }
}
