//! `Quota`: a limit on bytes or messages, and the shares of it that messages hold.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A limit on what may be held at once. A single share may exceed it, so that a message of any size
/// can pass.
#[derive(Debug)]
pub(super) struct Quota {
    limit: usize,
    used: Mutex<usize>,
    freed: Notify,
}

/// A part of a [`Quota`], which is released on drop.
#[derive(Debug)]
pub(super) struct Share {
    quota: Arc<Quota>,
    cost: usize,
}

/// Bookkeeping bytes that a message counts besides its own.
pub(super) const MESSAGE_COST: usize = 128;

/// The shares that a message holds of the limits of its peer and of the pool.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) of_peer: OfPeer,
    /// The share of the pool's limit. The messages of a broadcast share the payload.
    pub(super) _of_pool: (Share, Option<Arc<Share>>),
}

/// The shares of the limits of a peer.
#[derive(Debug)]
pub(super) enum OfPeer {
    /// Of the limits of its queue.
    Queued { _count: Share, _bytes: Share },
    /// Of the limit of unconfirmed bytes.
    Unconfirmed { _bytes: Share },
}

impl Quota {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Notify::new() })
    }

    /// Takes a share, if there is room for it.
    pub(super) fn take(self: &Arc<Self>, cost: usize) -> Option<Share> {
        let mut used = self.used.lock();
        if *used > 0 && used.saturating_add(cost) > self.limit {
            return None;
        }
        *used = used.saturating_add(cost);
        drop(used);
        Some(Share { quota: self.clone(), cost })
    }

    /// Returns whether no share is taken.
    pub(super) fn is_unused(&self) -> bool {
        *self.used.lock() == 0
    }

    /// Resolves when a share is released after the future was enabled.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Wakes the waiters, which try again.
    pub(super) fn notify_waiters(&self) {
        self.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.quota.used.lock() -= self.cost;
        self.quota.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    #[test]
    fn shares_are_limited_and_released() {
        let quota = Quota::new(10);
        let whole = quota.take(100).expect("a single share may be larger");
        assert!(quota.take(1).is_none());
        let mut freed = pin!(quota.freed());
        freed.as_mut().enable();
        drop(whole);
        assert!(freed.now_or_never().is_some());
        let _two = (quota.take(5).unwrap(), quota.take(5).unwrap());
        assert!(quota.take(1).is_none());
    }
}
