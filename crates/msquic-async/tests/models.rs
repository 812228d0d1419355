//! What is lock-free, under every order of its threads (loom).

#[path = "../src/ffi/gate.rs"]
mod gate;

use gate::{Gate, Gated, Inside};
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::sync::atomic::Ordering;

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

/// Calls through a gate that one thread closes. A caller that is alone enters twice.
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

#[test]
fn exactly_one_releases_and_nobody_is_inside_then() {
    race(1);
    race(2);
}
