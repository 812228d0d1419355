//! Tasks that wait for one thing.

use crate::support::Model;
use crate::waiters::{Place, Waiters};
use crate::{block_on, bounded_model, lock, waker};
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Context;

pub(crate) const MODELS: &[Model] = &[
    ("each_item_wakes_a_future", each_item_wakes_a_future),
    ("a_future_that_leaves_items_wakes_the_next", a_future_that_leaves_items_wakes_the_next),
    (
        "a_future_that_is_dropped_at_any_moment_passes_its_wake_on",
        a_future_that_is_dropped_at_any_moment_passes_its_wake_on,
    ),
    ("the_end_wakes_all_futures", the_end_wakes_all_futures),
    ("each_wake_wakes_all_pollers", each_wake_wakes_all_pollers),
];

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
