//! `Gate`: lets API calls with a handle overlap with its close, and tells who closes it.
//!
//! Any number of threads may be inside the gate. Once it is closed nobody enters any more. Exactly
//! one caller is told to release what the gate protects: the one that closed an empty gate, or the
//! last to leave a closed one.

// The atomics of `std`, or of a model checker: `tests/models.rs` includes this file too.
use super::atomic::{AtomicUsize, Ordering};

/// The top bit says that the gate is closed; the others count who is inside.
pub(super) struct Gate(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Gate {
    pub(super) fn new() -> Self {
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
