//! A few threads that may block, only for this crate's own calls to libmsquic.
//!
//! They run no blocking jobs of the application, so that handles are closed even if such jobs are stuck. A thread is
//! started when a job finds none idle, and ends after it was idle for a while. Some threads are reserved for closes, so
//! that handles are closed while calls with parameters wait for a busy worker.

use super::guard::guard;
use super::jobs::{Job, Jobs, Place};
use parking_lot::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How many threads there are at most. Their jobs wait for workers of libmsquic, one per processor,
/// and for registrations to close.
const MAX_THREADS: usize = 16;

/// How many jobs of the kind [`Kind::Call`] run at once; the other threads are for closes.
const MAX_CALLS: usize = MAX_THREADS - 4;

/// How long a thread stays without a job.
const IDLE: Duration = Duration::from_secs(2);

/// The kind of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Closes or stops a handle. Run before calls.
    Close,
    /// Anything else, such as reading or setting a parameter.
    Call,
}

/// Runs `job` on one of the threads.
pub(super) fn run(kind: Kind, job: impl FnOnce() + Send + 'static) -> Place {
    THREADS.run(kind, Box::new(job))
}

/// Removes a call from the queue, unless it has begun.
pub(super) fn cancel_call(place: Place) {
    let call = THREADS.state.lock().calls.remove(place);
    drop(call);
}

struct Threads {
    state: Mutex<State>,
    has_job: Condvar,
}

struct State {
    closes: Jobs,
    calls: Jobs,
    running_calls: usize,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
}

static THREADS: Threads = Threads::new();

impl Threads {
    const fn new() -> Self {
        let state = State {
            closes: Jobs::new(),
            calls: Jobs::new(),
            running_calls: 0,
            threads: 0,
            idle: 0,
        };
        Self { state: Mutex::new(state), has_job: Condvar::new() }
    }

    fn run(&'static self, kind: Kind, job: Job) -> Place {
        let place = {
            let mut state = self.state.lock();
            let place = match kind {
                Kind::Close => state.closes.push(job),
                Kind::Call => state.calls.push(job),
            };
            if state.runnable() <= state.idle || state.threads == MAX_THREADS {
                drop(state);
                self.has_job.notify_one();
                return place;
            }
            state.threads += 1;
            place
        };
        let work = move || {
            while let Some((kind, job)) = self.wait_for_job() {
                self.run_job(kind, job);
            }
        };
        if let Err(error) = thread::Builder::new().name("msquic-async".to_owned()).spawn(work) {
            tracing::warn!(%error, "a thread for blocking calls cannot be started");
            // A thread that is not in a call takes the job. If there is none, a thread of the
            // application's pool runs it.
            let has_none = {
                let mut state = self.state.lock();
                state.threads -= 1;
                state.threads <= state.running_calls
            };
            if has_none {
                let work = move || {
                    while let Some((kind, job)) = self.next_job() {
                        self.run_job(kind, job);
                    }
                };
                blocking::unblock(work).detach();
            }
        }
        place
    }

    fn run_job(&self, kind: Kind, job: Job) {
        guard((), job);
        if kind == Kind::Call {
            self.state.lock().running_calls -= 1;
        }
    }

    fn next_job(&self) -> Option<(Kind, Job)> {
        self.state.lock().next_job()
    }

    /// Waits for a job; `None` ends the thread.
    fn wait_for_job(&self) -> Option<(Kind, Job)> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.next_job() {
                return Some(job);
            }
            state.idle += 1;
            let is_over = self.has_job.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if is_over && state.runnable() == 0 {
                state.threads -= 1;
                return None;
            }
        }
    }
}

impl State {
    /// Returns how many of the jobs may run if there are threads for them.
    fn runnable(&self) -> usize {
        self.closes.len() + self.calls.len().min(MAX_CALLS - self.running_calls)
    }

    fn next_job(&mut self) -> Option<(Kind, Job)> {
        if let Some(close) = self.closes.pop() {
            return Some((Kind::Close, close));
        }
        if self.running_calls == MAX_CALLS {
            return None;
        }
        let call = self.calls.pop()?;
        self.running_calls += 1;
        Some((Kind::Call, call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// After how long a test that hangs fails.
    const HANG: Duration = Duration::from_secs(60);

    fn threads() -> &'static Threads {
        Box::leak(Box::new(Threads::new()))
    }

    #[test]
    fn jobs_run_side_by_side_on_few_threads_that_survive_a_panic() {
        let threads = threads();
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Arc::new(Mutex::new(released));
        let (done, results) = mpsc::channel();
        threads.run(Kind::Close, Box::new(|| panic!("on purpose")));
        for number in 0..200 {
            let (released, done) = (released.clone(), done.clone());
            let job = move || {
                if number < MAX_THREADS - 1 {
                    let _ = released.lock().recv_timeout(HANG);
                }
                let threads = threads.state.lock().threads;
                done.send((number, threads)).unwrap();
            };
            threads.run(Kind::Close, Box::new(job));
        }
        // All jobs except the stuck ones.
        let run: Vec<_> = results.iter().take(200 - MAX_THREADS + 1).collect();
        assert!(run.iter().all(|(number, _)| *number >= MAX_THREADS - 1));
        assert!(run.iter().all(|(_, threads)| *threads <= MAX_THREADS));
        drop(release);
        assert_eq!(results.iter().take(MAX_THREADS - 1).count(), MAX_THREADS - 1);
    }

    #[test]
    fn calls_that_are_stuck_do_not_delay_a_close() {
        let threads = threads();
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Arc::new(Mutex::new(released));
        let (done, results) = mpsc::channel();
        let (entered, stuck) = mpsc::channel();
        for _ in 0..3 * MAX_THREADS {
            let (released, done, entered) = (released.clone(), done.clone(), entered.clone());
            let call = move || {
                entered.send(()).unwrap();
                let _ = released.lock().recv();
                done.send(Kind::Call).unwrap();
            };
            threads.run(Kind::Call, Box::new(call));
        }
        stuck.iter().take(MAX_CALLS).for_each(drop);
        for _ in 0..100 {
            let done = done.clone();
            threads.run(Kind::Close, Box::new(move || done.send(Kind::Close).unwrap()));
        }
        for _ in 0..100 {
            assert!(results.recv_timeout(HANG).is_ok_and(|kind| kind == Kind::Close));
        }
        drop(release);
        // Those that had to wait are run too.
        assert_eq!(results.iter().take(3 * MAX_THREADS).count(), 3 * MAX_THREADS);
    }
}
