//! `MessageCounters`: counts messages without a lock.

use net_traits::MessageStatistics;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts [`MessageStatistics`] from many tasks without a lock.
#[derive(Debug, Default)]
pub struct MessageCounters {
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl MessageCounters {
    /// Counts messages that were queued, and their bytes. Returns how many were queued before.
    #[inline]
    pub fn sent_many(&self, messages: usize, bytes: usize) -> u64 {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages_sent.fetch_add(messages as u64, Ordering::Relaxed)
    }

    /// Counts messages that were delivered to the application, and their bytes. Returns how many were
    /// delivered before.
    #[inline]
    pub fn received_many(&self, messages: usize, bytes: usize) -> u64 {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.messages_received.fetch_add(messages as u64, Ordering::Relaxed)
    }

    /// Returns the counts so far.
    pub fn read(&self) -> MessageStatistics {
        let mut counts = MessageStatistics::default();
        counts.messages_sent = self.messages_sent.load(Ordering::Relaxed);
        counts.bytes_sent = self.bytes_sent.load(Ordering::Relaxed);
        counts.messages_received = self.messages_received.load(Ordering::Relaxed);
        counts.bytes_received = self.bytes_received.load(Ordering::Relaxed);
        counts
    }

    /// Returns what was counted since the last call with the same `seen`. Each message is in the
    /// result of exactly one of concurrent calls.
    #[cfg(feature = "metrics")]
    pub(crate) fn since(&self, seen: &Self) -> MessageStatistics {
        let mut counts = self.read();
        counts.messages_sent = since(&seen.messages_sent, counts.messages_sent);
        counts.bytes_sent = since(&seen.bytes_sent, counts.bytes_sent);
        counts.messages_received = since(&seen.messages_received, counts.messages_received);
        counts.bytes_received = since(&seen.bytes_received, counts.bytes_received);
        counts
    }
}

/// Adds two counts.
pub(crate) fn sum(mut one: MessageStatistics, other: MessageStatistics) -> MessageStatistics {
    one.messages_sent += other.messages_sent;
    one.bytes_sent += other.bytes_sent;
    one.messages_received += other.messages_received;
    one.bytes_received += other.bytes_received;
    one
}

/// Returns by how much `now` exceeds the last value in `seen`, and stores it there.
pub(crate) fn since(seen: &AtomicU64, now: u64) -> u64 {
    now.saturating_sub(seen.fetch_max(now, Ordering::Relaxed))
}
