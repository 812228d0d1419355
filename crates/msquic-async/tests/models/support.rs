//! A mutex, a waker, and the exploration of orders, for the models of this and of other crates.

use loom::sync::MutexGuard;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

/// A mutex with the interface of `parking_lot`'s. Another thread may run after it was unlocked.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    inner: loom::sync::Mutex<T>,
    unlocks: AtomicUsize,
}

/// The lock. It is unlocked when this is dropped.
pub(crate) struct Guard<'a, T> {
    guard: Option<MutexGuard<'a, T>>,
    unlocks: &'a AtomicUsize,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { inner: loom::sync::Mutex::new(value), unlocks: AtomicUsize::new(0) }
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        Guard { guard: Some(self.inner.lock().unwrap()), unlocks: &self.unlocks }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap()
    }

    /// For unit tests.
    pub(crate) fn is_locked(&self) -> bool {
        self.inner.try_lock().is_err()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().unwrap()
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().unwrap()
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        drop(self.guard.take());
        if !std::thread::panicking() {
            self.unlocks.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Atomics of which each load returns the last value in one order of all, as `SeqCst` promises. Those of loom may
/// return an older one. Each operation is one that also stores.
pub(crate) mod atomic {
    use loom::sync::atomic;
    pub(crate) use std::sync::atomic::Ordering;

    macro_rules! atomics {
        ($($name:ident: $type:ty,)*) => {
            $(
                #[derive(Debug, Default)]
                pub(crate) struct $name(atomic::$name);

                impl $name {
                    pub(crate) fn load(&self, order: Ordering) -> $type {
                        self.0.fetch_or(<$type>::default(), order)
                    }

                    pub(crate) fn store(&self, value: $type, order: Ordering) {
                        self.0.swap(value, order);
                    }

                    pub(crate) fn swap(&self, value: $type, order: Ordering) -> $type {
                        self.0.swap(value, order)
                    }

                    pub(crate) fn compare_exchange(
                        &self,
                        current: $type,
                        new: $type,
                        success: Ordering,
                        failure: Ordering,
                    ) -> Result<$type, $type> {
                        self.0.compare_exchange(current, new, success, failure)
                    }
                }
            )*
        };
    }

    atomics! {
        AtomicBool: bool,
        AtomicU8: u8,
    }
}

/// Wakes a thread of loom.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker of this thread.
pub(crate) fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Runs a future. A missing wake is a deadlock, which loom reports.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = waker();
    let mut future = pin!(future);
    loop {
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        thread::park();
    }
}

/// All orders.
pub(crate) fn model(threads: impl Fn() + Sync + Send + 'static) {
    check(None, threads);
}

/// The orders with at most two preemptions. Most faults show with two, and all orders would take hours.
pub(crate) fn bounded_model(threads: impl Fn() + Sync + Send + 'static) {
    check(Some(2), threads);
}

/// The orders with at most three preemptions.
pub(crate) fn deep_model(threads: impl Fn() + Sync + Send + 'static) {
    check(Some(3), threads);
}

fn check(preemptions: Option<usize>, threads: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        ORDERS.fetch_add(1, Ordering::Relaxed);
        threads();
    });
}

/// A model and its name.
pub(crate) type Model = (&'static str, fn());

/// Runs the models, or those whose names contain the argument, and prints how many orders they had.
#[expect(clippy::print_stdout, reason = "these tests have no harness that prints their names")]
pub(crate) fn run(models: &[&[Model]]) {
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    for (name, model) in models.concat() {
        if only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            let before = ORDERS.load(Ordering::Relaxed);
            model();
            println!("{name}: {} orders", ORDERS.load(Ordering::Relaxed) - before);
        }
    }
}

/// How many orders were tried.
static ORDERS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
