//! `spend`: lets other tasks run although an operation is always ready.
//!
//! Other threads or a fast peer may produce data faster than a task consumes it, and a task whose
//! operations are always ready would never yield. Each operation of a transport therefore spends
//! from the cooperative budget of its task. In a tokio runtime that is the budget of the runtime
//! ([`tokio::task::coop`]). Other executors have none, so the operations on a thread are counted,
//! unless a runtime of tokio is entered around the executor: then nothing yields.

use futures_util::FutureExt;
use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;

/// How many operations on one thread may be ready in a row outside of tokio: about the budget of tokio. A future
/// that is polled once and dropped does not yield. The number is prime, so that a loop with such futures reaches
/// it at each of its operations in turn.
const RUN: u32 = 127;

/// After how many operations a thread lets other threads run, some half a millisecond of short ones. On a busy
/// host the system would let it run for its whole time slice, 3 ms on Linux, for which the threads of other
/// programs and those of libmsquic then wait.
const SLICE: u32 = 16 * RUN;

thread_local! {
    static READY: Cell<u32> = const { Cell::new(0) };
}

/// Spends one unit of the task's cooperative budget. Once that is used up, yields to other tasks. From time to
/// time it also lets other threads run, which takes until the system resumes this one.
///
/// Operations await it before they begin, so that an operation that is dropped here has done
/// nothing.
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
    let count = READY.get() + 1;
    READY.set(count % SLICE);
    if count.is_multiple_of(RUN) {
        end_run(count).await;
    }
}

#[cold]
async fn end_run(count: u32) {
    if count == SLICE {
        std::thread::yield_now();
        #[cfg(test)]
        tests::SLICES.set(tests::SLICES.get() + 1);
    }
    if Handle::try_current().is_err() {
        yield_now().await;
    }
}

/// How many received bytes cost one unit: in tokio, a task then yields after 128 KiB.
const BYTES_PER_UNIT: usize = 1024;

/// Spends one unit and another one for each 1024 `bytes` that were received: a connection that receives much does
/// not delay those that receive little.
///
/// # Cancel safety
///
/// Cancel-safe; nothing is lost but the units.
pub async fn spend_for(bytes: usize) {
    for _ in 0..=bytes / BYTES_PER_UNIT {
        spend().await;
    }
}

/// Spends as [`spend`] does, without waiting. Returns false once the budget is used up: the caller
/// then returns that nothing is ready.
///
/// ```
/// assert!(net_kit::coop::try_spend());
/// ```
#[inline]
pub fn try_spend() -> bool {
    spend().now_or_never().is_some()
}

/// Yields to other tasks, in any executor.
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
    use futures_util::future;

    thread_local! {
        pub(super) static SLICES: Cell<u32> = const { Cell::new(0) };
    }

    async fn always_ready(count: &Cell<u32>) {
        loop {
            spend().await;
            count.set(count.get() + 1);
        }
    }

    #[test]
    fn bytes_cost_more_than_operations() {
        let receive = async |pieces: usize, bytes| {
            for _ in 0..pieces {
                spend_for(bytes).await;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let is_done = tokio::spawn(async move {
                let few = receive(7, 16 * 1024).now_or_never().is_some();
                (few, receive(1, 16 * 1024).now_or_never().is_some())
            });
            assert_eq!(is_done.await.unwrap(), (true, false), "it yields after 128 KiB");
        });
    }

    #[test]
    fn other_threads_run_between_slices() {
        let slices_of = |operations| {
            let before = SLICES.get();
            (0..operations).for_each(|_| _ = try_spend());
            SLICES.get() - before
        };
        assert_eq!(slices_of(SLICE), 1);
        assert_eq!(slices_of(10 * SLICE), 10);
    }

    #[test]
    fn a_task_yields_in_any_executor() {
        let count = Cell::new(0);
        assert!(always_ready(&count).now_or_never().is_none(), "it is not ready forever");
        assert!(count.get() < RUN, "{}", count.get());
        let before = count.get();
        assert!(
            future::select(Box::pin(always_ready(&count)), Box::pin(yield_now()))
                .now_or_never()
                .is_none()
        );
        assert_eq!(count.get() - before, RUN - 1, "the next operations run");
    }

    #[test]
    fn a_task_yields_although_it_also_spends_without_waiting() {
        for attempts in 1..5 {
            let repeat = async {
                for _ in 0..4 * RUN {
                    spend().await;
                    (0..attempts).for_each(|_| _ = try_spend());
                }
            };
            assert!(repeat.now_or_never().is_none(), "{attempts} attempts each");
        }
    }

    #[tokio::test]
    async fn spending_without_waiting_fails_in_the_end() {
        assert!((0..1000).any(|_| !try_spend()), "it is not ready forever");
        tokio::task::yield_now().await;
        assert!(try_spend(), "with a new budget");
    }

    #[tokio::test]
    async fn a_task_yields_in_tokio() {
        let count = Cell::new(0);
        tokio::select! {
            biased;
            () = always_ready(&count) => {}
            () = tokio::task::yield_now() => {}
        }
        assert!((1..=1000).contains(&count.get()), "{}", count.get());
    }
}
