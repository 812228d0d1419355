//! `Windows`: what all windows of a transport reserve. The rules are those of `Window`.

use std::sync::atomic::AtomicUsize;

/// What all windows of a transport reserve.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub(super) reserved: AtomicUsize,
    /// The bytes of windows beyond the least ones.
    pub(super) grown: AtomicUsize,
}
