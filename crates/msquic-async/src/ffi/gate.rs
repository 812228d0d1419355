//! `Gate`: lets API calls with a handle overlap with its close, and tells who closes it.
//!
//! Any number of threads may be inside the gate. Once it is closed nobody enters any more. Exactly
//! one caller is told to release what the gate protects: the one that closed an empty gate, or the
//! last to leave a closed one.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The top bit says that the gate is closed; the others count who is inside.
pub(super) struct Gate(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Gate {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Enters, unless the gate is closed. Whoever entered must [`leave`](Self::leave).
    #[must_use]
    pub(super) fn enter(&self) -> bool {
        let step = |state| (state & CLOSED == 0).then_some(state + 1);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, step).is_ok()
    }

    /// Leaves; true when the caller has to release what the gate protects.
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1
    }

    /// Closes; true when the caller has to release what the gate protects.
    #[must_use]
    pub(super) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn closing_an_empty_gate_releases_at_once() {
        let gate = Gate::new();
        assert!(gate.enter());
        assert!(!gate.leave());
        assert!(gate.close());
        assert!(!gate.enter() && !gate.close());
    }

    #[test]
    fn the_last_to_leave_a_closed_gate_releases() {
        let gate = Gate::new();
        assert!(gate.enter() && gate.enter());
        assert!(!gate.close() && !gate.enter());
        assert!(!gate.leave() && gate.leave());
    }

    #[test]
    fn exactly_one_releases_whatever_the_order() {
        for _ in 0..2000 {
            let gate = Arc::new(Gate::new());
            let caller = std::thread::spawn({
                let gate = gate.clone();
                move || gate.enter() && gate.leave()
            });
            let closed = gate.close();
            assert!(closed ^ caller.join().unwrap());
        }
    }
}
