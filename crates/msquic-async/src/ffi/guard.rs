//! The one panic guard that every callback runs in.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `callback` and turns a panic into `on_panic`: unwinding into C is undefined.
///
/// A panic here is a bug of this crate or of a [`ReceiveSink`](crate::ReceiveSink); peers cannot
/// cause one. The handle goes on with its other events.
pub(super) fn guard<T>(on_panic: T, callback: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|_| {
        tracing::error!("a panic was stopped at the edge of libmsquic");
        on_panic
    })
}
