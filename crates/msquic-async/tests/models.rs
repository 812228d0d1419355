//! What threads share, under every order of their steps (loom).

#[allow(dead_code, unused_imports, reason = "the models do not use everything")]
#[path = "../src/connection/credit.rs"]
mod credit;
#[path = "../src/ffi/gate.rs"]
mod gate;
#[allow(dead_code, unused_imports, unused_macros, reason = "the models do not use everything")]
#[path = "../src/waiters.rs"]
mod waiters;
#[path = "../src/waker_check.rs"]
mod waker_check;

use credit::{StreamCredit, Ticket};

use gate::{Gate, Gated, Inside};
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use waiters::{Place, Waiters};
use waker_check::checked;

/// Counts how often it is released.
struct Handle {
    gate: Gate,
    releases: atomic::AtomicUsize,
}

impl Gated for Handle {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn release(&self) {
        self.releases.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls through a gate that one thread closes. A single caller enters twice.
fn race(callers: usize) {
    loom::model(move || {
        let releases = atomic::AtomicUsize::new(0);
        let handle = Arc::new(Handle { gate: Gate::new(), releases });
        let threads: Vec<_> = (0..callers)
            .map(|_| {
                let handle = handle.clone();
                thread::spawn(move || {
                    let Some(handle) = Inside::enter(handle) else { return };
                    let _again = (callers == 1).then(|| handle.again());
                    let releases = handle.releases.load(Ordering::Relaxed);
                    assert_eq!(releases, 0, "used after its release");
                })
            })
            .collect();
        if handle.gate.close() {
            handle.release();
        }
        threads.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(handle.releases.load(Ordering::Relaxed), 1, "released by exactly one");
        assert!(Inside::enter(handle).is_none());
    });
}

fn exactly_one_releases_when_no_call_is_inside() {
    race(1);
    race(2);
}

/// The interface of `parking_lot`'s mutex.
mod lock {
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        /// For unit tests.
        pub(crate) fn is_locked(&self) -> bool {
            self.0.try_lock().is_err()
        }
    }
}

/// Wakes a thread of loom.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(std::sync::Arc::new(Unpark(thread::current())))
}

/// Runs a future. A missing wake is a deadlock, which loom reports.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = waker();
    let mut future = pin!(future);
    loop {
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(value) = checked(|| future.as_mut().poll(&mut context)) {
            return value;
        }
        thread::park();
    }
}

fn wait_for_credit(ticket: &Ticket) {
    block_on(poll_fn(|cx| ticket.poll(cx)));
}

fn credit() -> std::sync::Arc<StreamCredit> {
    std::sync::Arc::default()
}

fn the_first_opener_gets_credit_first_and_no_wake_is_lost() {
    loom::model(|| {
        let credit = credit();
        let (first, second) = (credit.join(), credit.join());
        let is_second_there = Arc::new(atomic::AtomicBool::new(false));
        let one = thread::spawn(move || {
            wait_for_credit(&first);
            first
        });
        let two = thread::spawn({
            let is_second_there = is_second_there.clone();
            move || {
                wait_for_credit(&second);
                assert!(is_second_there.load(Ordering::SeqCst), "the first credit is the first's");
                second
            }
        });
        credit.set_available(1);
        is_second_there.store(true, Ordering::SeqCst);
        credit.set_available(2);
        for opener in [one, two] {
            opener.join().unwrap().spend();
        }
        assert!(credit.take().is_none(), "both are spent");
    });
}

fn a_ticket_that_is_dropped_at_any_moment_leaves_its_credit() {
    for is_polled in [false, true] {
        loom::model(move || {
            let credit = credit();
            let (first, second) = (credit.join(), credit.join());
            let dropper = thread::spawn(move || {
                if is_polled {
                    let _ = first.poll(&Context::from_waker(&waker()));
                }
                drop(first);
            });
            let opener = thread::spawn(move || {
                wait_for_credit(&second);
                second.spend();
            });
            credit.set_available(1);
            dropper.join().unwrap();
            opener.join().unwrap();
            assert!(credit.take().is_none(), "it is spent");
            credit.set_available(1);
            assert!(credit.take().is_some(), "and the next one is there");
        });
    }
}

fn a_blocked_opener_keeps_its_place_while_others_come_and_go() {
    loom::model(|| {
        let credit = credit();
        credit.set_available(1);
        let (first, second) = (credit.join(), credit.join());
        let dropper = thread::spawn(move || drop(second));
        let joiner = thread::spawn({
            let credit = credit.clone();
            move || credit.join()
        });
        // The thread of msquic: the start is blocked, and then there is credit.
        first.wait_again();
        credit.set_available(1);
        wait_for_credit(&first);
        dropper.join().unwrap();
        let third = joiner.join().unwrap();
        assert!(third.poll(&Context::from_waker(&waker())).is_pending(), "overtaken");
        first.spend();
        credit.set_available(1);
        wait_for_credit(&third);
    });
}

fn the_end_of_the_connection_wakes_every_opener() {
    loom::model(|| {
        let credit = credit();
        let openers = [credit.join(), credit.join()]
            .map(|ticket| thread::spawn(move || wait_for_credit(&ticket)));
        credit.close();
        openers.into_iter().for_each(|opener| opener.join().unwrap());
        wait_for_credit(&credit.join());
    });
}

/// Most faults show with two preemptions, and all orders would take hours.
fn bounded_model(threads: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(threads);
}

/// Items, and the futures that wait for them.
#[derive(Default)]
struct Items {
    count: lock::Mutex<usize>,
    waiters: Waiters,
    steps: atomic::AtomicUsize,
}

impl Items {
    /// Lets another thread run here. Loom does not see the atomics inside tokio's `Notify`, but
    /// it does see this one.
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::SeqCst);
    }

    fn take(&self) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_sub(1)?;
        Some(())
    }

    /// Takes an item, and wakes another future if there are more.
    fn take_and_pass_on(&self) -> Option<()> {
        let has_more = {
            let mut count = self.count.lock();
            *count = count.checked_sub(1)?;
            *count > 0
        };
        if has_more {
            self.step();
            self.waiters.pass_on();
        }
        Some(())
    }

    fn add(&self, count: usize) {
        *self.count.lock() += count;
        self.step();
        self.waiters.wake_one();
    }

    fn wait(&self, mut take: impl FnMut(&Self) -> Option<()>) {
        let mut place = Place::default();
        block_on(poll_fn(|cx| {
            place.poll_until(&self.waiters, cx, || {
                let taken = take(self);
                self.step();
                taken
            })
        }));
    }
}

fn each_item_wakes_a_future() {
    bounded_model(|| {
        let items = Arc::new(Items::default());
        let takers = [(); 2].map(|()| {
            let items = items.clone();
            thread::spawn(move || items.wait(Items::take))
        });
        items.add(1);
        items.add(1);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
    });
}

fn a_future_that_leaves_items_wakes_the_next() {
    bounded_model(|| {
        let items = Arc::new(Items::default());
        let takers = [(); 2].map(|()| {
            let items = items.clone();
            thread::spawn(move || items.wait(Items::take_and_pass_on))
        });
        items.add(2);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
    });
}

fn a_future_that_is_dropped_at_any_moment_passes_its_wake_on() {
    bounded_model(|| {
        let items = Arc::new(Items::default());
        let dropper = thread::spawn({
            let items = items.clone();
            move || {
                let mut place = Place::default();
                let waker = waker();
                // It finds nothing, whatever is there: another check has to find it.
                let mut cx = Context::from_waker(&waker);
                assert!(place.poll_until(&items.waiters, &mut cx, || None::<()>).is_pending());
                items.step();
                drop(place);
            }
        });
        let taker = thread::spawn({
            let items = items.clone();
            move || items.wait(Items::take)
        });
        items.add(1);
        dropper.join().unwrap();
        taker.join().unwrap();
    });
}

fn the_end_wakes_all_futures() {
    bounded_model(|| {
        let items = Arc::new(Items::default());
        let takers = [(); 2].map(|()| {
            let items = items.clone();
            thread::spawn(move || items.wait(|items| (*items.count.lock() > 0).then_some(())))
        });
        *items.count.lock() = 1; // for good
        items.step();
        items.waiters.wake_all();
        takers.into_iter().for_each(|taker| taker.join().unwrap());
    });
}

fn each_wake_wakes_all_pollers() {
    bounded_model(|| {
        let is_over = Arc::new((atomic::AtomicBool::new(false), Waiters::default()));
        let pollers = [(); 2].map(|()| {
            let is_over = is_over.clone();
            thread::spawn(move || {
                let (is_over, waiters) = &*is_over;
                let check = || is_over.load(Ordering::SeqCst).then_some(());
                block_on(poll_fn(|cx| waiters.poll_registered(cx, check)));
            })
        });
        is_over.0.store(true, Ordering::SeqCst);
        is_over.1.wake_all();
        pollers.into_iter().for_each(|poller| poller.join().unwrap());
    });
}

fn main() {
    exactly_one_releases_when_no_call_is_inside();
    the_first_opener_gets_credit_first_and_no_wake_is_lost();
    a_ticket_that_is_dropped_at_any_moment_leaves_its_credit();
    a_blocked_opener_keeps_its_place_while_others_come_and_go();
    the_end_of_the_connection_wakes_every_opener();
    each_item_wakes_a_future();
    a_future_that_leaves_items_wakes_the_next();
    a_future_that_is_dropped_at_any_moment_passes_its_wake_on();
    the_end_wakes_all_futures();
    each_wake_wakes_all_pollers();
}
