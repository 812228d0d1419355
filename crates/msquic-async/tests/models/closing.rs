//! Closing a handle while threads call with it.

use crate::ffi::gate::{Gate, Gated, Inside};
use crate::ffi::slot::tests::ReportingCloser;
use crate::ffi::slot::{Slot, Slotted};
use crate::ffi::status::Status;
use crate::model;
use crate::support::Model;
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

pub(crate) const MODELS: &[Model] = &[
    ("exactly_one_releases_when_no_call_is_inside", exactly_one_releases_when_no_call_is_inside),
    (
        "a_handle_that_is_set_while_threads_call_is_closed_once",
        a_handle_that_is_set_while_threads_call_is_closed_once,
    ),
];

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
    model(move || {
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

struct Native(Slot<ReportingCloser>);

impl Slotted for Native {
    type Closer = ReportingCloser;

    fn slot(&self) -> &Slot<ReportingCloser> {
        &self.0
    }
}

fn a_handle_that_is_set_while_threads_call_is_closed_once() {
    model(|| {
        let (closes, closed) = mpsc::channel();
        let closed = std::sync::Arc::new(std::sync::Mutex::new(closed));
        let native = Arc::new(Native(Slot::empty()));
        let callers = [(); 2].map(|()| {
            let (native, closes, closed) = (native.clone(), closes.clone(), closed.clone());
            thread::spawn(move || {
                let called = native.with(|_| {
                    // Lets another thread run during the call.
                    thread::yield_now();
                    assert!(closed.lock().unwrap().try_recv().is_err(), "used after its close");
                    Ok(())
                });
                assert!(called.is_ok() || called == Err(Status::INVALID_STATE));
                native.slot().claim().is_ok_and(|claim| {
                    claim.set(ptr::null_mut(), ReportingCloser(closes));
                    native.slot().close();
                    true
                })
            })
        });
        let opened = callers.map(|caller| caller.join().unwrap());
        assert!(opened[0] != opened[1], "there is one claim");
        assert_eq!(closed.lock().unwrap().try_iter().count(), 1, "closed once");
        assert_eq!(native.with(|_| Ok(())), Err(Status::INVALID_STATE));
    });
}
