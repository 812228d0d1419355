//! Threads for jobs that block, such as looking up a name or reading a file.
//!
//! Jobs of the application may occupy all threads that a runtime has for such jobs (`spawn_blocking` of tokio),
//! and that function panics if not even one can be started. Here it is an error, and once there is a thread, one
//! stays: if there is no memory for others later, it runs all jobs.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a thread stays without a job, unless it is the last one.
const IDLE: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

/// Threads with one purpose. One is started when a job finds none idle.
///
/// ```
/// use net_kit::blocking::Threads;
///
/// static THREADS: Threads = Threads::new("files", 4);
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let text = THREADS.run(|| std::fs::read_to_string("Cargo.toml")).await??;
/// assert!(text.contains("[package]"));
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Threads {
    name: &'static str,
    max: usize,
    state: Mutex<State>,
    has_job: Condvar,
}

struct State {
    /// The jobs that have not begun, in order.
    jobs: BTreeMap<u64, Job>,
    next: u64,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Threads {
    /// Describes at most `max` threads with this name. None is started.
    ///
    /// # Panics
    ///
    /// `max` is 0.
    pub const fn new(name: &'static str, max: usize) -> Self {
        assert!(max > 0, "no job would run");
        let state = State { jobs: BTreeMap::new(), next: 0, threads: 0, idle: 0 };
        Self { name, max, state: Mutex::new(state), has_job: Condvar::new() }
    }

    /// Runs `job` on one of the threads, and waits for its result. A panic of the job is resumed.
    ///
    /// # Errors
    ///
    /// There is no thread, and none can be started.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the job has begun, the job is not run.
    pub async fn run<T: Send + 'static>(
        &'static self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let _queued = self.start(move || {
            let _ = done.send(catch_unwind(AssertUnwindSafe(job))); // the future may be dropped
        })?;
        match result.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(io::Error::other("the job was dropped")),
        }
    }

    /// Queues `job` for one of the threads, which survives a panic of it.
    ///
    /// # Errors
    ///
    /// There is no thread, and none can be started.
    pub fn start(&'static self, job: impl FnOnce() + Send + 'static) -> io::Result<Queued> {
        let mut state = self.state.lock();
        let mut failed = None;
        if state.jobs.len() >= state.idle && state.threads < self.max {
            match self.spawn() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        state.next += 1;
        let place = state.next;
        state.jobs.insert(place, Box::new(job));
        drop(state);
        self.has_job.notify_one();
        if let Some(error) = failed {
            // Another thread takes the job.
            tracing::warn!(%error, name = self.name, "a thread for blocking jobs cannot be started");
        }
        Ok(Queued { threads: self, place })
    }

    fn spawn(&'static self) -> io::Result<()> {
        let work = || {
            while let Some(job) = self.next_job() {
                if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                    std::mem::forget(payload); // its drop may panic too
                }
            }
        };
        thread::Builder::new().name(self.name.to_owned()).spawn(work).map(drop)
    }

    /// Waits for a job; `None` ends the thread.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some((_, job)) = state.jobs.pop_first() {
                return Some(job);
            }
            state.idle += 1;
            let is_over = if state.threads == 1 {
                self.has_job.wait(&mut state);
                false
            } else {
                self.has_job.wait_for(&mut state, IDLE).timed_out()
            };
            state.idle -= 1;
            if is_over && state.threads > 1 && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// Takes a job back when it is dropped, unless the job has begun.
#[derive(Debug)]
#[must_use = "dropping it takes the job back"]
pub struct Queued {
    threads: &'static Threads,
    place: u64,
}

impl Queued {
    /// Lets the job run in any case.
    pub fn detach(self) {
        std::mem::forget(self);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let job = self.threads.state.lock().jobs.remove(&self.place);
        drop(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;
    use std::sync::{Arc, mpsc};

    const MAX: usize = 4;

    fn threads(max: usize) -> &'static Threads {
        Box::leak(Box::new(Threads::new("test", max)))
    }

    /// Occupies all threads until the sender is dropped.
    fn occupy(threads: &'static Threads) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let (begun, has_begun) = mpsc::channel();
        for _ in 0..MAX {
            let (released, begun) = (released.clone(), begun.clone());
            let job = move || {
                begun.send(()).unwrap();
                let _ = released.lock().recv();
            };
            threads.start(job).unwrap().detach();
        }
        has_begun.iter().take(MAX).for_each(drop);
        release
    }

    #[tokio::test]
    async fn one_job_needs_one_thread_and_many_jobs_a_few() {
        let threads = threads(MAX);
        let count = || threads.state.lock().threads;
        assert_eq!(threads.run(count).await.unwrap(), 1);
        let release = occupy(threads);
        let mut last = pin!(threads.run(count));
        assert!(last.as_mut().now_or_never().is_none());
        drop(release);
        assert_eq!(last.await.unwrap(), MAX);
    }

    #[tokio::test]
    async fn a_panic_is_resumed_and_the_thread_survives() {
        let threads = threads(1);
        let panicking = AssertUnwindSafe(threads.run(|| panic!("on purpose"))).catch_unwind();
        let Err(panic) = panicking.await else { panic!("no panic") };
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        threads.start(|| panic!("on purpose")).unwrap().detach();
        assert_eq!(threads.run(|| "next").await.unwrap(), "next");
    }

    #[tokio::test]
    async fn futures_that_are_dropped_leave_no_jobs_behind() {
        let (threads, memory) = (threads(MAX), Arc::new(()));
        let release = occupy(threads);
        for _ in 0..1000 {
            let memory = memory.clone();
            assert!(threads.run(move || drop(memory)).now_or_never().is_none());
        }
        assert_eq!(Arc::strong_count(&memory), 1, "jobs without a future");
        assert!(threads.state.lock().jobs.is_empty());
        drop(release);
    }
}
