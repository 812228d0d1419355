//! [`ExecutionDriver::run`]: msquic inside a tokio runtime.
//!
//! One task takes the turns: callbacks run on its thread, and the tasks that they wake run next, on the
//! same thread. Between turns it waits for the events of msquic and its next timer like any other task. A
//! *stand-in*, a thread of its own, takes turns while the runtime does not, for instance because a task
//! blocks its thread.

use crate::ffi::execution::{ExecutionDriver, Turns};
use crate::lock::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::sleep;

/// How often the stand-in checks whether the task takes its turns.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// How long the task waits before it tries again while another thread is in a turn.
const RETRY_DELAY: Duration = Duration::from_millis(1);

impl ExecutionDriver {
    /// Runs msquic inside the current tokio runtime for as long as the future is polled; it returns only an
    /// error. Spawn it, on a runtime with I/O and time enabled.
    ///
    /// Messages then do not pass between threads. If the task does not run for more than 20 to 40 ms, for
    /// instance because a task blocks the thread, another thread drives msquic until the task runs again.
    /// After the future is dropped, for instance with its runtime, that thread drives msquic permanently.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), msquic_async::Status> {
    /// let driver = msquic_async::ExecutionDriver::install()?; // before the first registration
    /// tokio::spawn(driver.run());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The operating system cannot wait for events, or start a thread. Another thread drives msquic from then
    /// on, if it can be started.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, and in one without I/O or time.
    pub async fn run(self) -> io::Error {
        match self.take_turns().await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    async fn take_turns(self) -> io::Result<Infallible> {
        let turns = match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => self.turns().short(),
            _ => self.turns(),
        };
        let events = turns.events()?;
        let stand_in = StandIn::start(turns)?;
        let mut timer = pin!(sleep(Duration::ZERO));
        loop {
            consume_budget().await; // an event may be ready each time
            let taken = turns.try_take(|next| (next, stand_in.shared.took_turn(true, next)));
            let Some((next, (due, _))) = taken else {
                sleep(RETRY_DELAY).await; // the stand-in is in a turn, or the process ends
                continue;
            };
            if next == Some(Duration::ZERO) {
                yield_now().await;
                continue;
            }
            if let Some(due) = due {
                timer.as_mut().reset(due.into());
            }
            tokio::select! {
                biased;
                ready = events.readable() => ready?.clear_ready(),
                () = timer.as_mut(), if due.is_some() => {}
                () = stand_in.shared.replaced.notified() => {}
            }
        }
    }
}

/// A thread that takes turns when the task does not. It ends when this is dropped.
struct StandIn {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    /// The stand-in has fetched events, and more may be due earlier than the task knows.
    replaced: Notify,
    is_over: AtomicBool,
}

#[derive(Default, Clone, Copy)]
struct Progress {
    /// How many turns the task has taken.
    turns: u64,
    /// When the next turn is due if no event comes before, as the last turn said.
    due: Option<Instant>,
}

impl StandIn {
    fn start(turns: Turns) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name("msquic-stand-in".to_owned());
        let thread = thread.spawn(move || of_thread.watch(turns))?.thread().clone();
        Ok(Self { shared, thread })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Shared {
    /// Records a turn of the task or of the stand-in. Returns when the next one is due, and how many the
    /// task has taken.
    fn took_turn(&self, of_task: bool, next: Option<Duration>) -> (Option<Instant>, u64) {
        let progress = &mut *self.progress.lock();
        progress.turns += u64::from(of_task);
        progress.due = next.and_then(|next| Instant::now().checked_add(next));
        (progress.due, progress.turns)
    }

    fn watch(&self, turns: Turns) {
        let mut late = None;
        while !self.is_over.load(Ordering::Acquire) {
            thread::park_timeout(CHECK_INTERVAL);
            let seen = self.progress.lock().turns;
            // The turn may have become due just now, so the task gets one more interval.
            if late == Some(seen) {
                self.replace(turns, seen);
                self.replaced.notify_one();
            }
            let progress = *self.progress.lock();
            let is_due = progress.due.is_some_and(|due| due <= Instant::now());
            late = (is_due || is_ready(turns, Duration::ZERO)).then_some(progress.turns);
        }
    }

    /// Takes turns until the task does, or nothing is left to do.
    fn replace(&self, turns: Turns, seen: u64) {
        while !self.is_over.load(Ordering::Acquire) {
            let taken = turns.try_take(|next| (next, self.took_turn(false, next)));
            let Some((next, (_, turns_of_task))) = taken else { return };
            if turns_of_task != seen {
                return;
            }
            let wait = next.unwrap_or(CHECK_INTERVAL).min(CHECK_INTERVAL);
            if !is_ready(turns, wait) && wait == CHECK_INTERVAL {
                return;
            }
        }
    }
}

/// Returns whether there are events, once there are or `timeout` is over.
fn is_ready(turns: Turns, timeout: Duration) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut [PollFd::new(&turns, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}
