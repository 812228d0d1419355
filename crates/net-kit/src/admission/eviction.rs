//! `Eviction`: whether a handshake in progress had to give way to another.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Whether a handshake had to give way, which was counted and logged then.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    is_evicted: AtomicBool,
    notify: Notify,
}

impl Eviction {
    pub(crate) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Acquire)
    }

    /// Waits for the eviction. It wakes one task.
    pub(super) async fn evicted(&self) {
        self.notify.notified().await;
    }

    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}
