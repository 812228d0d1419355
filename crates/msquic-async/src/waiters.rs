//! `Waiters`: tasks that wait for one thing that many may wait for.
//!
//! Futures use [`Waiters::notified`], which deregisters when it is dropped. `poll_*` functions
//! cannot know when their caller stops waiting; they use [`Waiters::poll_registered`], whose
//! [`Pollers`] keep one waker per task and find out which tasks no longer wait.

// The mutex of `parking_lot`, or of a model checker: `tests/models` includes this file too.
use crate::lock::Mutex;
use crate::waker_check::registered;
use std::collections::HashMap;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    notify: Notify,
    pollers: Mutex<Pollers>,
}

impl Waiters {
    /// Resolves at the next wake. Enable it before checking the condition.
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// Wakes the task at the next wake. Check the condition after this call.
    fn register(&self, cx: &Context<'_>) {
        let waker = cx.waker().clone();
        let mut outdated = self.pollers.lock().register(waker);
        if let Some(probe) = outdated.probe() {
            let spare = self.pollers.lock().watch(probe);
            drop(spare);
        }
        outdated.wake();
    }

    /// Signals one item: wakes one future, and all pollers. A future that is dropped after it was woken
    /// passes the wake on.
    pub(crate) fn wake_one(&self) {
        self.notify.notify_one();
        self.wake_pollers();
    }

    /// Signals a lasting change: wakes all.
    pub(crate) fn wake_all(&self) {
        self.notify.notify_waiters();
        self.wake_pollers();
    }

    fn wake_pollers(&self) {
        let all = self.pollers.lock().take();
        all.wake();
    }

    /// Wakes one future more: the item of the last wake has not been used up.
    pub(crate) fn pass_on(&self) {
        self.notify.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.pollers.is_locked()
    }

    /// Ready once `check` gives something, for `poll_*` functions.
    pub(crate) fn poll_registered<T>(
        &self,
        cx: &Context<'_>,
        mut check: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if let Some(value) = check() {
            return Poll::Ready(value);
        }
        self.register(cx);
        registered();
        check().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The place of a future among waiters, which it leaves when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place<'a>(Option<Pin<Box<Notified<'a>>>>);

impl<'a> Place<'a> {
    /// Ready once `check` gives something; until then, waits for the next wake of `waiters`.
    pub(crate) fn poll_until<T>(
        &mut self,
        waiters: &'a Waiters,
        cx: &mut Context<'_>,
        mut check: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        loop {
            if let Some(value) = check() {
                self.0 = None; // passes on a wake that was not needed
                return Poll::Ready(value);
            }
            let notified = self.0.get_or_insert_with(|| Box::pin(waiters.notified()));
            // Joined before the second check, so that each of several waiters gets its own wake.
            notified.as_mut().enable();
            if let Some(value) = check() {
                self.0 = None;
                return Poll::Ready(value);
            }
            if notified.as_mut().poll(cx).is_pending() {
                registered();
                return Poll::Pending;
            }
            notified.set(waiters.notified());
        }
    }
}

/// The tasks that polled and got `Pending`, one waker for each.
///
/// A task that ends, or stops waiting, leaves its waker behind, which keeps the task's memory. So at a limit
/// all wakers are woken and removed: tasks that still wait poll again and are registered again.
///
/// The limit is [`MIN_LIMIT`] unless more tasks wait. To estimate their number, one of the removed tasks is
/// remembered, the *probe*. If the probe is registered again after `n` other registrations, about `n` tasks
/// wait, and the limit becomes `2 n`. If it is not registered again for long, it no longer waits, and the limit
/// is [`MIN_LIMIT`] again. How long that is follows the ruler sequence (1, 2, 1, 4, 1, 2, 1, 8, ...), in
/// multiples of the limit: a probe that no longer waits is soon replaced, and among a few probes one stays
/// until all waiting tasks have been registered again, however many they are. So tasks never wake each other
/// endlessly, and few wakers of tasks that no longer wait are kept.
#[derive(Debug, Default)]
struct Pollers {
    /// The first waker; a single one needs no map.
    first: Option<Waker>,
    more: Option<Box<MorePollers>>,
}

#[derive(Debug)]
struct MorePollers {
    /// All but the first.
    rest: HashMap<Key, Waker>,
    limit: usize,
    /// How many registrations there were.
    registrations: u64,
    probe: Option<Probe>,
    /// How many probes there were.
    probes: u64,
}

/// Data and table of a waker, by address. While the waker is kept, no other task has the same.
type Key = (usize, usize);

/// How many wakers are kept whether or not their tasks wait.
const MIN_LIMIT: usize = 64;

#[derive(Debug)]
struct Probe {
    span: ProbeSpan,
    /// Keeps the key from becoming that of another task.
    _waker: Waker,
}

#[derive(Debug, Clone, Copy)]
struct ProbeSpan {
    key: Key,
    /// The count of registrations when the probe was removed, and the count at which it expires.
    since: u64,
    until: u64,
}

/// What has to happen after unlocking: wakers are foreign code, which also clones and drops them.
#[derive(Default)]
struct Removed {
    first: Option<Waker>,
    rest: HashMap<Key, Waker>,
    /// The span of the waker in `rest` that becomes the probe before it is woken.
    span: Option<ProbeSpan>,
    _spare: Option<Waker>,
    _probe: Option<Probe>,
}

impl Default for MorePollers {
    fn default() -> Self {
        Self { rest: HashMap::new(), limit: MIN_LIMIT, registrations: 0, probe: None, probes: 0 }
    }
}

impl Pollers {
    fn register(&mut self, waker: Waker) -> Removed {
        if self.first.is_none() && self.more.is_none() {
            self.first = Some(waker);
            return Removed::default();
        }
        let key = (waker.data().addr(), ptr::from_ref(waker.vtable()).addr());
        let is_first = self.first.as_ref().is_some_and(|first| first.will_wake(&waker));
        let more = self.more.get_or_insert_default();
        if is_first || more.rest.contains_key(&key) {
            return Removed { _spare: Some(waker), ..Removed::default() };
        }
        let probe = more.on_register(key);
        let is_full = more.rest.len() + usize::from(self.first.is_some()) >= more.limit;
        let mut taken =
            if is_full { more.remove_all(self.first.take()) } else { Removed::default() };
        taken._probe = probe;
        match self.first {
            None => self.first = Some(waker),
            Some(_) => drop(more.rest.insert(key, waker)), // none was there
        }
        taken
    }

    /// Sets the probe, unless there is one; returns the value that the caller has to drop after
    /// unlocking.
    fn watch(&mut self, probe: Probe) -> Option<Probe> {
        let place = &mut self.more.get_or_insert_default().probe;
        match place {
            Some(_) => Some(probe),
            None => place.replace(probe),
        }
    }

    /// Takes out all wakers, to be woken. At most their tasks are registered again, so the limit
    /// shrinks.
    fn take(&mut self) -> Removed {
        let first = self.first.take();
        match &mut self.more {
            None => Removed { first, ..Removed::default() },
            Some(more) => {
                let rest = std::mem::take(&mut more.rest);
                more.limit = more.limit.min(MIN_LIMIT.max(2 * (1 + rest.len())));
                Removed { first, rest, ..Removed::default() }
            }
        }
    }
}

impl MorePollers {
    /// Counts the registration of a task. Returns the probe if it is not needed any more.
    fn on_register(&mut self, key: Key) -> Option<Probe> {
        self.registrations += 1;
        self.probe.take_if(|probe| {
            let ProbeSpan { key: of, since, until } = probe.span;
            let is_back = of == key;
            let is_gone = !is_back && until < self.registrations;
            if is_back {
                let waiting = usize::try_from(self.registrations - since).unwrap_or(usize::MAX);
                self.limit = self.limit.max(waiting.saturating_mul(2));
            } else if is_gone {
                self.limit = MIN_LIMIT;
            }
            is_back || is_gone
        })
    }

    fn remove_all(&mut self, first: Option<Waker>) -> Removed {
        let rest = std::mem::take(&mut self.rest);
        let mut span = None;
        if self.probe.is_none() {
            self.probes += 1;
            let doublings = self.probes.trailing_zeros().min(30);
            // On most executors the last task to be woken is the last to poll again, on some the
            // first.
            let is_last = (self.probes >> doublings) & 2 == 0;
            let probe = if is_last { rest.keys().last() } else { rest.keys().next() };
            let until = self.registrations.saturating_add((self.limit as u64) << doublings);
            span = probe.map(|key| ProbeSpan { key: *key, since: self.registrations, until });
        }
        Removed { first, rest, span, ..Removed::default() }
    }
}

impl Removed {
    /// The probe, if one was chosen.
    fn probe(&mut self) -> Option<Probe> {
        let span = self.span.take()?;
        let waker = self.rest.get(&span.key)?;
        Some(Probe { span, _waker: waker.clone() })
    }

    fn wake(self) {
        self.first.into_iter().chain(self.rest.into_values()).for_each(Waker::wake);
    }
}

/// Defines a named future that is ready once an expression over what it borrows is `Some`.
///
/// The future joins the waiters before it waits, so no wake in between is missed. With `take` instead of
/// `until`, it is an operation that tasks repeat, and lets other tasks run from time to time.
macro_rules! wait_future {
    (
        $(#[$doc:meta])*
        $name:ident($($owner:tt)*) -> $output:ty, on $waiters:expr, until $check:expr
    ) => {
        crate::waiters::wait_future! {
            $(#[$doc])*
            $name($($owner)*) -> $output, on $waiters, until $check,
            by crate::coop::poll_state
        }
    };
    (
        $(#[$doc:meta])*
        $name:ident($($owner:tt)*) -> $output:ty, on $waiters:expr, take $check:expr
    ) => {
        crate::waiters::wait_future! {
            $(#[$doc])*
            $name($($owner)*) -> $output, on $waiters, until $check,
            by crate::coop::poll
        }
    };
    (
        $(#[$doc:meta])*
        $name:ident($owner:ident: &$type:ty $(, $field:ident: $field_type:ty)*) -> $output:ty,
        on $waiters:expr, until $check:expr, by $poll:expr
    ) => {
        $(#[$doc])*
        #[must_use = "futures do nothing unless polled"]
        pub struct $name<'a> {
            $owner: &'a $type,
            $($field: $field_type,)*
            place: crate::waiters::Place<'a>,
        }

        impl<'a> $name<'a> {
            pub(super) fn new($owner: &'a $type $(, $field: $field_type)*) -> Self {
                Self { $owner, $($field,)* place: crate::waiters::Place::default() }
            }
        }

        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl<'a> Future for $name<'a> {
            type Output = $output;

            fn poll(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Self::Output> {
                let this = self.get_mut();
                let $owner: &'a $type = this.$owner;
                $(let $field = &this.$field;)*
                $poll(cx, |cx: &mut std::task::Context<'_>| {
                    this.place.poll_until(&$waiters, cx, || $check)
                })
            }
        }
    };
}
pub(crate) use wait_future;

#[cfg(test)]
#[path = "waiters/tests.rs"] // also for the models, which include this file
mod tests;
