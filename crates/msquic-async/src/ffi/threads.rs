//! The threads that may block: a few, for this crate's own calls to libmsquic only.
//!
//! The application's blocking jobs are elsewhere, so however many of them are stuck, handles are closed. A thread
//! starts when a job finds none idle, and ends when it was idle for a while.

use super::guard::guard;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// The jobs wait for workers of libmsquic, of which there is one per processor, and for registrations to close.
const MAX_THREADS: usize = 16;

/// How long a thread stays without a job.
const IDLE: Duration = Duration::from_secs(2);

struct Threads {
    state: Mutex<State>,
    has_job: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
}

static THREADS: Threads = Threads {
    state: Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 }),
    has_job: Condvar::new(),
};

/// Runs `job` on one of the threads.
pub(super) fn run(job: impl FnOnce() + Send + 'static) {
    {
        let mut state = THREADS.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle || state.threads == MAX_THREADS {
            drop(state);
            THREADS.has_job.notify_one();
            return;
        }
        state.threads += 1;
    }
    if let Err(error) = thread::Builder::new().name("msquic-async".to_owned()).spawn(work) {
        tracing::warn!(%error, "a thread for blocking calls cannot be started");
        // Another thread takes the job; if there is none, one of the application's has to.
        let has_none = {
            let mut state = THREADS.state.lock();
            state.threads -= 1;
            state.threads == 0
        };
        if has_none {
            blocking::unblock(|| {
                while let Some(job) = THREADS.next_job() {
                    guard((), job);
                }
            })
            .detach();
        }
    }
}

fn work() {
    while let Some(job) = THREADS.wait_for_job() {
        guard((), job);
    }
}

impl Threads {
    fn next_job(&self) -> Option<Job> {
        self.state.lock().jobs.pop_front()
    }

    /// Waits for a job; `None` ends the thread.
    fn wait_for_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            let is_over = self.has_job.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if is_over && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_side_by_side_on_few_threads_that_survive_a_panic() {
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Arc::new(Mutex::new(released));
        let (done, results) = mpsc::channel();
        run(|| panic!("on purpose"));
        for number in 0..200 {
            let (released, done) = (released.clone(), done.clone());
            run(move || {
                if number < MAX_THREADS - 1 {
                    let _ = released.lock().recv_timeout(Duration::from_secs(20));
                }
                let threads = THREADS.state.lock().threads;
                done.send((number, threads)).unwrap();
            });
        }
        // All but the stuck ones.
        let run: Vec<_> = results.iter().take(200 - MAX_THREADS + 1).collect();
        assert!(run.iter().all(|(number, _)| *number >= MAX_THREADS - 1));
        assert!(run.iter().all(|(_, threads)| *threads <= MAX_THREADS));
        drop(release);
        assert_eq!(results.iter().take(MAX_THREADS - 1).count(), MAX_THREADS - 1);
    }
}
