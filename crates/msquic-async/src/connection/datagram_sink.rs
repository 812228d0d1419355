//! `DatagramSink`: the function that gets received datagrams.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) type Pass = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What `Connection::set_datagram_sink` has set.
#[derive(Default)]
pub(super) struct DatagramSink {
    pass: OnceLock<Pass>,
    /// How many datagrams arrived after the sink was set.
    passed: AtomicU64,
}

impl DatagramSink {
    /// Sets the sink. Returns false if there is one.
    pub(super) fn set(&self, pass: Pass) -> bool {
        self.pass.set(pass).is_ok()
    }

    pub(super) fn is_set(&self) -> bool {
        self.pass.get().is_some()
    }

    /// Returns how many datagrams arrived after the sink was set.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Passes a datagram to the sink. Returns false if there is none.
    pub(super) fn pass(&self, datagram: &[u8]) -> bool {
        let Some(pass) = self.pass.get() else { return false };
        self.passed.fetch_add(1, Ordering::Relaxed);
        pass(datagram);
        true
    }

    /// Passes a datagram that arrived before the sink was set, and was counted.
    pub(super) fn pass_queued(&self, datagram: &[u8]) {
        if let Some(pass) = self.pass.get() {
            pass(datagram);
        }
    }
}
