//! `Delivery`: passes received messages to a handler on the thread that received them.
//!
//! A sink first adds its messages to the inbox, as without a handler, and then runs the delivery. One
//! thread at a time runs it, so the handler gets the messages in the order of the inbox and never
//! runs twice at once for a connection. A thread that finds it running leaves its messages to the
//! running thread, which looks again before it stops. The handler runs without any lock.
//!
//! ```text
//!            run                    run (another thread, or inside the handler)
//! IDLE ─────────────▶ RUNNING ─────────────────────▶ AGAIN
//!  ▲                    │  ▲                           │
//!  └── inbox is empty ──┘  └──── inbox is empty ───────┘
//! ```
//!
//! The handler is kept by the inbox of its connection, and dropped after the end, when no stream can
//! add messages any more. A handler that owns a handle of its connection is dropped then, too.

// The atomics and the mutex, or those of a model checker: `tests/models.rs` includes this file too.
use crate::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::lock::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Notify;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const AGAIN: u8 = 2;

/// Passes messages of the inbox to the handler, at most so many, until the delivery
/// [is stopped](Delivery::is_stopped). Returns whether it stopped at that number.
pub(crate) type PassOn = dyn Fn(&Delivery, usize) -> bool + Send + Sync;

/// Passes the messages of an inbox to a handler, once one was set.
#[derive(Default)]
pub(crate) struct Delivery {
    handler: Mutex<Option<Arc<PassOn>>>,
    /// Whether a handler was set. It stays true when the handler is dropped.
    is_inline: AtomicBool,
    /// This side closes the connection, or the handler has panicked.
    is_stopped: AtomicBool,
    /// The connection has ended.
    has_ended: AtomicBool,
    state: AtomicU8,
    /// Wakes [`idle`](Delivery::idle).
    stopped: Notify,
}

impl Delivery {
    /// Whether received messages are passed to a handler.
    #[inline]
    pub(crate) fn is_inline(&self) -> bool {
        self.is_inline.load(Ordering::SeqCst)
    }

    /// Sets the handler. [`run`](Self::run) comes next.
    pub(crate) fn set(&self, handler: Arc<PassOn>) {
        let _replaced = self.handler.lock().replace(handler);
        self.is_inline.store(true, Ordering::SeqCst);
    }

    /// Whether the handler must not be called any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Calls no handler from now on, except for a call in progress.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Records that the connection has ended. [`run`](Self::run) comes next: messages that have
    /// arrived are still passed on.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Passes what has arrived to the handler, unless another thread does, or a caller of this
    /// function. `has_streams` returns whether streams may add messages.
    #[inline]
    pub(crate) fn run(&self, has_streams: impl Fn() -> bool) {
        self.run_part(usize::MAX, has_streams);
    }

    /// Does the same for at most `limit` messages. Returns whether it stopped there, so that the caller
    /// has to call it again.
    #[inline]
    pub(crate) fn run_part(&self, limit: usize, has_streams: impl Fn() -> bool) -> bool {
        self.is_inline()
            && self.state.swap(AGAIN, Ordering::SeqCst) == IDLE
            && self.run_alone(limit, has_streams)
    }

    fn run_alone(&self, limit: usize, has_streams: impl Fn() -> bool) -> bool {
        loop {
            self.state.store(RUNNING, Ordering::SeqCst);
            // Before the handler gets what has arrived: nothing arrives after it is over.
            let is_over = self.has_ended() && !has_streams();
            let handler = self.handler.lock().clone();
            // The handler's own panics are caught by `pass_on`; what it owns may panic when it is dropped.
            let passed = catch_unwind(AssertUnwindSafe(|| {
                handler.is_some_and(|pass_on| pass_on(self, limit))
            }));
            if passed.is_err() {
                self.stop();
            }
            if passed.unwrap_or(false) {
                self.state.store(IDLE, Ordering::SeqCst);
                self.stopped.notify_waiters();
                return true;
            }
            if is_over {
                let unused = self.handler.lock().take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(unused))); // after unlocking
            }
            let idle =
                self.state.compare_exchange(RUNNING, IDLE, Ordering::SeqCst, Ordering::SeqCst);
            if idle.is_ok() {
                self.stopped.notify_waiters();
                return false;
            }
        }
    }

    /// Waits until no handler runs.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub(crate) async fn idle(&self) {
        loop {
            let mut stopped = pin!(self.stopped.notified());
            stopped.as_mut().enable();
            if self.state.load(Ordering::SeqCst) == IDLE {
                return;
            }
            stopped.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn what_arrives_before_the_end_is_passed_on_before_the_handler_is_dropped() {
        let (delivery, passed) = (Delivery::default(), Arc::new(AtomicUsize::new(0)));
        let (arrived, of_handler) = (AtomicUsize::new(0), passed.clone());
        delivery.set(Arc::new(move |delivery, _| {
            of_handler.fetch_add(arrived.swap(0, Ordering::SeqCst), Ordering::SeqCst);
            if !delivery.has_ended() {
                // Just after this call found nothing, another thread adds the last message.
                arrived.store(1, Ordering::SeqCst);
                delivery.end();
                delivery.run(|| false);
            }
            false
        }));
        delivery.run(|| false);
        assert_eq!(passed.load(Ordering::SeqCst), 1);
        assert_eq!(Arc::strong_count(&passed), 1, "the handler is dropped");
    }
}
