//! `Gate`: lets API calls with a handle overlap with its close, and decides which thread closes it.
//!
//! Any number of threads may be [`Inside`] the gate. Once it is closed no more enter. Exactly one
//! caller is told to release what the gate protects: the one that closed an empty gate, or the
//! last to leave a closed one.

// The atomics of `std`, or of a model checker: `tests/models` includes this file too.
use super::atomic::{AtomicUsize, Ordering};
use std::ops::Deref;

/// The top bit says that the gate is closed; the others count the calls inside.
pub(crate) struct Gate(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Gate {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Enters, unless the gate is closed.
    fn enter(&self) -> bool {
        let step = |state| (state & CLOSED == 0).then_some(state + 1);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, step).is_ok()
    }

    /// Leaves; true when the caller has to release what the gate protects.
    fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1
    }

    /// Closes; true when the caller has to release what the gate protects.
    #[must_use]
    pub(super) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }
}

/// A value with a gate.
pub(crate) trait Gated {
    fn gate(&self) -> &Gate;
    /// Releases what the gate protects; called by the last thread to leave. Never blocks.
    fn release(&self);
}

/// A stay inside the gate of `P`'s target. Dropping it leaves, also while a panic unwinds.
pub(crate) struct Inside<P: Deref<Target: Gated>>(P);

impl<P: Deref<Target: Gated>> Inside<P> {
    /// Enters; `None` once the gate is closed.
    pub(super) fn enter(owner: P) -> Option<Self> {
        owner.gate().enter().then(|| Self(owner))
    }

    /// Enters once more; `None` once the gate is closed.
    pub(super) fn again(&self) -> Option<Self>
    where
        P: Clone,
    {
        Self::enter(self.0.clone())
    }
}

impl<P: Deref<Target: Gated>> Deref for Inside<P> {
    type Target = P::Target;

    fn deref(&self) -> &P::Target {
        &self.0
    }
}

impl<P: Deref<Target: Gated>> Drop for Inside<P> {
    fn drop(&mut self) {
        if self.0.gate().leave() {
            self.0.release();
        }
    }
}
