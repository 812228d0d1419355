//! What is lock-free, under every order of its threads (loom).

#[path = "../src/ffi/gate.rs"]
mod gate;

use gate::Gate;
use loom::sync::Arc;
use loom::sync::atomic;
use loom::thread;
use std::sync::atomic::Ordering;

/// Calls through a gate that one thread closes; tells who was told to release.
fn race(callers: usize) {
    loom::model(move || {
        let gate = Arc::new(Gate::new());
        let is_released = Arc::new(atomic::AtomicBool::new(false));
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let (gate, is_released) = (gate.clone(), is_released.clone());
                thread::spawn(move || {
                    if !gate.enter() {
                        return false;
                    }
                    assert!(!is_released.load(Ordering::Relaxed), "used after its release");
                    let releases = gate.leave();
                    if releases {
                        is_released.store(true, Ordering::Relaxed);
                    }
                    releases
                })
            })
            .collect();
        let mut releases = usize::from(gate.close());
        if releases > 0 {
            is_released.store(true, Ordering::Relaxed);
        }
        releases +=
            callers.into_iter().map(|caller| usize::from(caller.join().unwrap())).sum::<usize>();
        assert_eq!(releases, 1, "released by exactly one");
        assert!(!gate.enter());
    });
}

#[test]
fn exactly_one_releases_and_nobody_is_inside_then() {
    race(1);
    race(2);
}
