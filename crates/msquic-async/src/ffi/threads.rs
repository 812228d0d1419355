//! A few threads that may block, only for this crate's own calls to libmsquic.
//!
//! They run no blocking jobs of the application, so that handles are closed even if such jobs are stuck. A thread is
//! started when a job finds none idle, and ends after it was idle for a while, except the last. Some threads are
//! reserved for closes, so that handles are closed while calls with parameters wait for a busy worker.
//!
//! The first thread is started before anything is opened. If there is no memory for others later, it runs all jobs.

use super::guard::guard;
use super::jobs::{Job, Jobs, Place};
use super::status::Status;
use super::trim;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How many threads call libmsquic at most. Their jobs wait for its workers, one per processor, and for
/// registrations to close.
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

/// Starts a thread, unless there is one.
///
/// # Errors
///
/// [`Status::OUT_OF_MEMORY`].
pub(super) fn start() -> Result<(), Status> {
    THREADS.start()
}

/// Runs `job` on one of the threads, after one was [started](start).
pub(super) fn run(kind: Kind, job: impl FnOnce() + Send + 'static) -> Place {
    THREADS.run(kind, Box::new(job))
}

/// Removes a call from the queue, unless it has begun.
pub(super) fn cancel_call(place: Place) {
    let call = THREADS.state.lock().calls.remove(place);
    drop(call);
}

/// Counts a closed connection. After many, a thread gives memory back once none was closed for [`IDLE`].
pub(super) fn connection_closed() {
    if trim::connection_closed() {
        THREADS.state.lock().trim_at = Some(Instant::now() + IDLE);
        THREADS.has_job.notify_one();
    }
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
    /// Threads that are being started, which may fail.
    starting: usize,
    /// Threads that wait for a job.
    idle: usize,
    /// When a thread looks whether memory can be given back.
    trim_at: Option<Instant>,
}

static THREADS: Threads = Threads::new();

impl Threads {
    const fn new() -> Self {
        let state = State {
            closes: Jobs::new(),
            calls: Jobs::new(),
            running_calls: 0,
            threads: 0,
            starting: 0,
            idle: 0,
            trim_at: None,
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
            let threads = state.threads + state.starting;
            if state.runnable() <= state.idle || threads == MAX_THREADS {
                drop(state);
                self.has_job.notify_one();
                return place;
            }
            state.starting += 1;
            place
        };
        let started = self.spawn();
        {
            let mut state = self.state.lock();
            state.starting -= 1;
            state.threads += usize::from(started.is_ok());
        }
        if let Err(error) = started {
            warn(&error); // another thread takes the job
        }
        place
    }

    fn start(&'static self) -> Result<(), Status> {
        let started = {
            let mut state = self.state.lock();
            if state.threads > 0 {
                return Ok(());
            }
            let started = self.spawn();
            state.threads = usize::from(started.is_ok());
            started
        };
        started.inspect_err(warn).map_err(|_| Status::OUT_OF_MEMORY)
    }

    fn spawn(&'static self) -> io::Result<()> {
        let work = move || {
            while let Some((kind, job)) = self.wait_for_job() {
                self.run_job(kind, job);
            }
        };
        thread::Builder::new().name("msquic-async".to_owned()).spawn(work).map(drop)
    }

    fn run_job(&self, kind: Kind, job: Job) {
        guard((), job);
        if kind == Kind::Call {
            self.state.lock().running_calls -= 1;
        }
    }

    /// Waits for a job; `None` ends the thread.
    fn wait_for_job(&self) -> Option<(Kind, Job)> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.next_job() {
                return Some(job);
            }
            let now = Instant::now();
            if state.trim_at.is_some_and(|at| at <= now) {
                state.trim_at = None; // no other thread does it
                if !MutexGuard::unlocked(&mut state, trim::run) {
                    state.trim_at = Some(Instant::now() + IDLE);
                }
                continue;
            }
            let is_last = state.threads + state.starting == 1;
            let end = (!is_last).then(|| now + IDLE);
            state.idle += 1;
            match end.into_iter().chain(state.trim_at).min() {
                Some(at) => drop(self.has_job.wait_until(&mut state, at)),
                None => self.has_job.wait(&mut state),
            }
            state.idle -= 1;
            let is_over = end.is_some_and(|end| end <= Instant::now());
            if is_over && state.threads > 1 && state.runnable() == 0 {
                state.threads -= 1;
                return None;
            }
        }
    }
}

fn warn(error: &io::Error) {
    tracing::warn!(%error, "a thread for blocking calls cannot be started");
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
