//! Guards of broken operations, which act when the operation ends or is dropped.

use super::Shared;
use bytes::Bytes;
use net_traits::NetConnection;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts live instances.
pub(super) struct Counting<'a>(&'a AtomicUsize);

impl<'a> Counting<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> (Self, usize) {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        (Self(count), now)
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends half of a message when its future is dropped.
pub(super) struct HalfOnDrop<'a>(pub(super) &'a Shared, pub(super) Bytes, pub(super) bool);

impl Drop for HalfOnDrop<'_> {
    fn drop(&mut self) {
        if !self.2 {
            let (inner, half) = (self.0.inner.clone(), self.1.slice(..self.1.len() / 2));
            tokio::spawn(async move { inner.send_bytes(half).await });
        }
    }
}

/// Counts a `recv` that is dropped while it waits.
pub(super) struct CountIfDropped<'a>(pub(super) &'a AtomicUsize, pub(super) bool);

impl Drop for CountIfDropped<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Returns a guard that calls `run` when it is dropped.
pub(super) fn on_drop<F: FnMut()>(run: F) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(run)
}
