//! The panic guard in which every callback runs.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `callback` and turns a panic into `on_panic`: unwinding into C is undefined.
///
/// A panic here is a bug of this crate or of a [`ReceiveSink`](crate::ReceiveSink); peers cannot
/// cause one. The handle gets its further events.
pub(super) fn guard<T>(on_panic: T, callback: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|payload| {
        discard(payload);
        // A subscriber is foreign code too.
        let report = || tracing::error!("a callback of libmsquic panicked");
        if let Err(payload) = catch_unwind(report) {
            discard(payload);
        }
        on_panic
    })
}

/// Drops the payload of a panic. If the drop panics, the payload of that panic is leaked.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    /// The payload of a panic, whose drop panics with another payload.
    struct Payload(u32);

    impl Drop for Payload {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_payload_whose_drop_panics_does_not_unwind_further() {
        for depth in 0..3 {
            assert_eq!(guard(1, || panic_any(Payload(depth))), 1);
        }
        assert_eq!(guard(1, || 2), 2);
    }
}
