//! `Waiters`: tasks that wait for one thing that many may wait for.
//!
//! Futures use [`Waiters::notified`], which deregisters when it is dropped. `poll_*` functions
//! cannot know when their caller gives up; they use [`Waiters::register`], which keeps one waker
//! per task.

use parking_lot::Mutex;
use std::task::{Context, Waker};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    notify: Notify,
    polled: Mutex<Vec<Waker>>,
}

impl Waiters {
    /// Resolves at the next wake. Enable it before checking the condition.
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// Wakes the task at the next wake. Check the condition after this call.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut polled = self.polled.lock();
        if !polled.iter().any(|waker| waker.will_wake(cx.waker())) {
            polled.push(cx.waker().clone());
        }
    }

    /// One item is there: wakes one future, and all pollers. A future that is dropped after it was
    /// woken passes the wake on.
    pub(crate) fn wake_one(&self) {
        self.notify.notify_one();
        self.wake_polled();
    }

    /// Something changed for good: wakes all.
    pub(crate) fn wake_all(&self) {
        self.notify.notify_waiters();
        self.wake_polled();
    }

    fn wake_polled(&self) {
        let polled = std::mem::take(&mut *self.polled.lock());
        polled.into_iter().for_each(Waker::wake);
    }
}

/// Defines a named future that is ready once an expression over what it borrows is `Some`.
///
/// The future joins the waiters before each check, so no wake in between is missed.
macro_rules! wait_future {
    (
        $(#[$doc:meta])*
        $name:ident($owner:ident: &$type:ty) -> $output:ty,
        on $waiters:expr, until $check:expr
    ) => {
        pin_project_lite::pin_project! {
            $(#[$doc])*
            #[must_use = "futures do nothing unless polled"]
            pub struct $name<'a> {
                $owner: &'a $type,
                #[pin]
                notified: tokio::sync::futures::Notified<'a>,
            }
        }

        impl<'a> $name<'a> {
            pub(super) fn new($owner: &'a $type) -> Self {
                Self { $owner, notified: $waiters.notified() }
            }
        }

        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl Future for $name<'_> {
            type Output = $output;

            fn poll(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                let mut this = self.project();
                let $owner: &$type = this.$owner;
                loop {
                    // Joined before the check, so that each of several waiters gets its own wake.
                    this.notified.as_mut().enable();
                    if let Some(output) = $check {
                        // Leaves the waiters, and passes a wake on that it did not need.
                        this.notified.set($waiters.notified());
                        return std::task::Poll::Ready(output);
                    }
                    std::task::ready!(this.notified.as_mut().poll(cx));
                    this.notified.set($waiters.notified());
                }
            }
        }
    };
}
pub(crate) use wait_future;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    #[test]
    fn polling_often_keeps_one_waker() {
        let waiters = Waiters::default();
        let waker = noop_waker();
        for _ in 0..10_000 {
            waiters.register(&Context::from_waker(&waker));
            assert!(waiters.notified().now_or_never().is_none());
        }
        assert_eq!(waiters.polled.lock().len(), 1);
        waiters.wake_all();
        assert_eq!(waiters.polled.lock().len(), 0);
    }

    #[test]
    fn a_wake_between_joining_and_waiting_counts() {
        let waiters = Waiters::default();
        let notified = waiters.notified();
        waiters.wake_all();
        assert!(notified.now_or_never().is_some());
    }
}
