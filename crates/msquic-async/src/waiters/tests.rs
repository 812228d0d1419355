//! Tests of the [waiters](super).

use super::*;
use futures_util::FutureExt;
use futures_util::task::noop_waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;

fn kept(waiters: &Waiters) -> usize {
    let pollers = waiters.pollers.lock();
    let rest = pollers.more.as_ref().map_or(0, |more| more.rest.len());
    usize::from(pollers.first.is_some()) + rest
}

fn limit(waiters: &Waiters) -> usize {
    waiters.pollers.lock().more.as_ref().map_or(MIN_LIMIT, |more| more.limit)
}

#[test]
fn polling_often_keeps_one_waker() {
    let waiters = Waiters::default();
    let waker = noop_waker();
    for _ in 0..10_000 {
        waiters.register(&Context::from_waker(&waker));
        assert!(waiters.notified().now_or_never().is_none());
    }
    assert_eq!(kept(&waiters), 1);
    waiters.wake_all();
    assert_eq!(kept(&waiters), 0);
}

#[test]
fn a_wake_between_joining_and_waiting_counts() {
    let waiters = Waiters::default();
    let notified = waiters.notified();
    waiters.wake_all();
    assert!(notified.now_or_never().is_some());
}

/// The waker of a task that has ended, and its memory.
struct Finished(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Wake for Finished {
    fn wake(self: Arc<Self>) {}
}

/// A task that is run when it is in the queue of its executor.
struct Task {
    number: usize,
    queue: Arc<Mutex<VecDeque<usize>>>,
    is_queued: AtomicUsize,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.is_queued.swap(1, Ordering::SeqCst) == 0 {
            self.queue.lock().push_back(self.number);
        }
    }
}

/// Tasks that poll waiters, on an executor that takes the next task from `side` of its queue.
struct Executor {
    waiters: Waiters,
    queue: Arc<Mutex<VecDeque<usize>>>,
    tasks: Vec<Arc<Task>>,
    takes_newest: bool,
    polls: usize,
}

impl Executor {
    fn new(takes_newest: bool) -> Self {
        let (waiters, queue) = (Waiters::default(), Arc::default());
        Self { waiters, queue, tasks: Vec::new(), takes_newest, polls: 0 }
    }

    fn spawn(&mut self, count: usize) {
        for _ in 0..count {
            let (number, queue) = (self.tasks.len(), self.queue.clone());
            self.tasks.push(Arc::new(Task { number, queue, is_queued: AtomicUsize::new(0) }));
            self.tasks[number].clone().wake();
        }
    }

    /// Polls what is in the queue until nothing is, at most `most` times.
    fn run(&mut self, most: usize) {
        for polls in 0.. {
            let next = match self.takes_newest {
                true => self.queue.lock().pop_back(),
                false => self.queue.lock().pop_front(),
            };
            let Some(number) = next else { return self.polls += polls };
            assert!(
                polls < most,
                "{} tasks wake each other for ever, newest first {}",
                self.tasks.len(),
                self.takes_newest
            );
            let task = &self.tasks[number];
            task.is_queued.store(0, Ordering::SeqCst);
            self.waiters.register(&Context::from_waker(&Waker::from(task.clone())));
        }
    }
}

#[test]
fn finished_tasks_leave_few_wakers_and_little_work() {
    let waiters = Waiters::default();
    let all: Vec<Weak<()>> = (0..20_000)
        .map(|_| {
            let memory = Arc::new(());
            let finished = Waker::from(Arc::new(Finished(memory.clone())));
            waiters.register(&Context::from_waker(&finished));
            Arc::downgrade(&memory)
        })
        .collect();
    let kept = all.iter().filter(|memory| memory.strong_count() > 0).count();
    assert!(kept <= MIN_LIMIT + 1, "{kept} wakers are kept"); // and the probe
    assert!(waiters.pollers.lock().more.as_ref().unwrap().rest.capacity() <= 4 * MIN_LIMIT);
}

#[test]
fn tasks_that_wait_are_woken_however_many_and_come_to_rest() {
    for takes_newest in [false, true] {
        for count in [1, 2, 63, 64, 65, 66, 100, 127, 128, 129, 500, 1000, 5000, 20_000] {
            let mut executor = Executor::new(takes_newest);
            executor.spawn(count);
            executor.run(100 * (count + MIN_LIMIT));
            assert_eq!(kept(&executor.waiters), count, "each is kept");
            let limit = limit(&executor.waiters);
            assert!(limit <= MIN_LIMIT.max(4 * count), "{limit} wakers for {count} tasks");
            for wake in [Waiters::wake_one, Waiters::wake_all] {
                wake(&executor.waiters);
                assert_eq!(executor.queue.lock().len(), count, "each is woken");
                executor.run(100 * (count + MIN_LIMIT));
                assert_eq!(kept(&executor.waiters), count, "each waits again");
            }
        }
    }
}

#[test]
fn waiting_tasks_stay_among_those_that_finish() {
    for takes_newest in [false, true] {
        let mut executor = Executor::new(takes_newest);
        executor.spawn(1000);
        executor.run(100_000);
        let before = executor.polls;
        for _ in 0..100_000 {
            let finished = Waker::from(Arc::new(Finished(Arc::default())));
            executor.waiters.register(&Context::from_waker(&finished));
            executor.run(100_000);
            let kept = kept(&executor.waiters);
            assert!(kept <= 4 * 1000, "{kept} wakers are kept");
        }
        let polls = executor.polls - before;
        assert!(polls <= 100 * 100_000, "{polls} polls for 100000 finished tasks");
        executor.waiters.wake_all();
        assert_eq!(executor.queue.lock().len(), 1000, "each is woken");
    }
}
