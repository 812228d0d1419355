//! `spend`: operations that are always ready let other tasks run.
//!
//! What other threads or a fast peer provide is always there, so a task that only receives would never
//! give its thread back. Each operation of a transport therefore spends from the budget of its task. With
//! tokio that is the runtime's own ([`tokio::task::coop`]); other executors have none, so that the
//! operations on a thread are counted here.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;

/// How many operations on one thread may be ready in a row without tokio; tokio's own number.
const RUN: u32 = 128;

thread_local! {
    static READY: Cell<u32> = const { Cell::new(0) };
}

/// Spends from the budget of the task: once it is used up, other tasks run first.
///
/// Operations await it before they begin, so that a future that is dropped here has done nothing.
///
/// # Cancel safety
///
/// Cancel-safe.
///
/// ```
/// use net_kit::coop;
///
/// async fn recv(next: impl AsyncFn() -> u8) -> u8 {
///     coop::spend().await;
///     next().await
/// }
/// assert_eq!(futures_util::FutureExt::now_or_never(recv(async || 7)), Some(7));
/// ```
#[inline]
pub async fn spend() {
    consume_budget().await;
    let ready = READY.get() + 1;
    READY.set(ready % RUN);
    if ready == RUN && Handle::try_current().is_err() {
        yield_now().await;
    }
}

/// Lets other tasks run, in any executor.
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future};

    async fn forever(count: &Cell<u32>) {
        loop {
            spend().await;
            count.set(count.get() + 1);
        }
    }

    #[test]
    fn any_executor_gets_its_thread_back() {
        let count = Cell::new(0);
        assert!(forever(&count).now_or_never().is_none(), "it cannot be ready for ever");
        assert!(count.get() < RUN, "{}", count.get());
        let before = count.get();
        assert!(
            future::select(Box::pin(forever(&count)), Box::pin(yield_now()))
                .now_or_never()
                .is_none()
        );
        assert_eq!(count.get() - before, RUN - 1, "the next operations run");
    }

    #[tokio::test]
    async fn tokio_gets_its_thread_back() {
        let count = Cell::new(0);
        tokio::select! {
            biased;
            () = forever(&count) => {}
            () = tokio::task::yield_now() => {}
        }
        assert!((1..=1000).contains(&count.get()), "{}", count.get());
    }
}
