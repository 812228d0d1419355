//! `Checked`: polls a future as a strict executor may, or drops it at a chosen step.

use fastrand::Rng;
use parking_lot::Mutex;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Wake, Waker};

/// Polls a future as strictly as the contract of [`Future::poll`] permits.
///
/// - Each poll gets a new waker. Only a wake of the last one leads to another poll.
/// - Some polls are spurious: no waker was woken before.
/// - A poll panics if the future returns `Pending`, has not woken the waker of this poll, and has kept
///   no clone of it. Such a future is never woken.
///
/// Executors and combinators such as `select!` and `FuturesUnordered` poll in all of these ways. A
/// test on one executor only does not notice a future that does not support it.
///
/// ```
/// use net_traits_test::Checked;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (sender, receiver) = tokio::sync::oneshot::channel();
/// let receive = Checked::new(receiver, 0);
/// let (received, sent) = tokio::join!(receive, async { sender.send(7) });
/// assert_eq!((received, sent), (Ok(7), Ok(())));
/// # });
/// ```
///
/// # Panics
///
/// While it is polled, if the future would never be woken.
pub struct Checked<F> {
    future: Pin<Box<F>>,
    shared: Arc<Mutex<State>>,
    /// Decides which polls are repeated without a wake; `None`: no poll.
    random: Option<Rng>,
}

/// What a future and its wakers share.
struct State {
    /// How often the future was polled. The last poll got the waker of this number.
    polls: usize,
    /// Whether the future is to be polled.
    is_due: bool,
    /// How often a waker of an earlier poll was woken.
    stale_wakes: usize,
    /// The task that polls this future.
    task: Option<Waker>,
}

/// The waker of one poll.
struct Alarm {
    shared: Arc<Mutex<State>>,
    poll: usize,
}

impl<F: Future> Checked<F> {
    /// Checks `future`. The seed determines which polls are followed by a spurious one.
    pub fn new(future: F, seed: u64) -> Self {
        let state = State { polls: 0, is_due: true, stale_wakes: 0, task: None };
        Self {
            future: Box::pin(future),
            shared: Arc::new(Mutex::new(state)),
            random: Some(Rng::with_seed(seed)),
        }
    }

    /// Drops the future at a step, unless it completes before; then returns its output.
    ///
    /// Step 0 is after the first poll, step 1 is after the wake that follows, step 2 is after the
    /// second poll, and so on. There are no spurious polls. An operation is tried at each of its steps
    /// by increasing the number until this returns `Some`.
    ///
    /// ```
    /// use net_traits_test::Checked;
    /// use std::time::Duration;
    /// use tokio::time::sleep;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let mut step = 0;
    /// while Checked::new(sleep(Duration::from_millis(1)), 0).dropped_at(step).await.is_none() {
    ///     step += 1; // here a test checks what a dropped future has left
    /// }
    /// assert_eq!(step, 2);
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// If the future would never be woken.
    pub async fn dropped_at(mut self, step: usize) -> Option<F::Output> {
        let (polls, waits) = (step / 2 + 1, step % 2 == 1);
        self.random = None;
        poll_fn(|cx| {
            let polled = self.shared.lock().polls;
            if polled == polls && self.is_due(cx) {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self).poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.shared.lock().polls == polls && !waits => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Keeps the waker of the task, and returns whether the future is to be polled.
    fn is_due(&self, cx: &Context<'_>) -> bool {
        let mut state = self.shared.lock();
        let (is_due, earlier) = (state.is_due, state.task.replace(cx.waker().clone()));
        drop(state);
        drop(earlier); // not under the lock: a waker may be the last handle of a task
        is_due
    }
}

impl<F: Future> Future for Checked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.is_due(cx) {
            return Poll::Pending;
        }
        let alarm = {
            let mut state = self.shared.lock();
            state.is_due = false;
            state.polls += 1;
            Arc::new(Alarm { shared: self.shared.clone(), poll: state.polls })
        };
        let waker = Waker::from(alarm.clone());
        let polled = self.future.as_mut().poll(&mut Context::from_waker(&waker));
        drop(waker);
        if polled.is_ready() {
            return polled;
        }
        let is_kept = Arc::strong_count(&alarm) > 1;
        fence(Ordering::Acquire); // a clone that was woken and dropped has set `is_due`
        let is_repeated = self.random.as_mut().is_some_and(Rng::bool);
        let mut state = self.shared.lock();
        assert!(
            is_kept || state.is_due,
            "poll {} returned `Pending` and has neither kept nor woken its waker",
            state.polls
        );
        if is_repeated && !state.is_due {
            state.is_due = true;
            drop(state);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<F> fmt::Debug for Checked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { polls, is_due, stale_wakes, .. } = &*self.shared.lock();
        f.debug_struct("Checked")
            .field("polls", polls)
            .field("is_due", is_due)
            .field("stale_wakes", stale_wakes)
            .finish()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut state = self.shared.lock();
            if self.poll < state.polls {
                state.stale_wakes += 1;
                return;
            }
            state.is_due = true;
            state.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::task::AtomicWaker;

    /// Returns a future that is ready once the returned waker was woken, after its first poll.
    fn waiting(
        register: impl Fn(&AtomicWaker, &Context<'_>) + Send,
    ) -> (Arc<AtomicWaker>, impl Future<Output = ()>) {
        let slot = Arc::new(AtomicWaker::new());
        let (theirs, mut is_polled) = (slot.clone(), 0);
        let future = poll_fn(move |cx| {
            register(&theirs, cx);
            is_polled += 1;
            if is_polled > 9 { Poll::Ready(()) } else { Poll::Pending }
        });
        (slot, future)
    }

    #[test]
    fn the_last_waker_leads_to_another_poll() {
        let (slot, future) = waiting(|slot, cx| slot.register(cx.waker()));
        let mut checked = Checked::new(future, 0);
        while (&mut checked).now_or_never().is_none() {
            slot.wake();
        }
        assert_eq!(checked.shared.lock().polls, 10);
    }

    #[test]
    fn an_earlier_waker_does_not() {
        let kept = Mutex::new(Vec::new());
        let (slot, future) = waiting(move |slot, cx| {
            let mut kept = kept.lock();
            kept.push(cx.waker().clone());
            slot.register(&kept[0]);
        });
        let mut checked = Checked::new(future, 0);
        for _ in 0..100 {
            assert!((&mut checked).now_or_never().is_none());
            slot.wake();
        }
        let state = checked.shared.lock();
        assert!(state.stale_wakes > 0 && state.polls < 10, "{} polls", state.polls);
    }

    #[test]
    #[should_panic(expected = "has neither kept nor woken its waker")]
    fn a_future_that_registers_no_waker_panics() {
        let (_slot, future) = waiting(|_, _| ());
        Checked::new(future, 0).now_or_never();
    }

    #[test]
    fn a_future_is_dropped_at_each_step() {
        for step in 0..18 {
            let (slot, future) = waiting(|slot, cx| slot.register(cx.waker()));
            let mut checked = std::pin::pin!(Checked::new(future, 0).dropped_at(step));
            for wakes in 0..=step.div_ceil(2) {
                let dropped = checked.as_mut().now_or_never();
                let is_over = wakes == step.div_ceil(2);
                assert_eq!(dropped, is_over.then_some(None), "step {step} after {wakes} wakes");
                slot.wake();
            }
        }
    }
}
