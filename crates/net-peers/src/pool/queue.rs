//! `Queue`: the messages of a peer that no connection has taken.

use super::parcel::Parcel;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Filled by handles of the pool, emptied by the task that sends. The bound is that of the places.
#[derive(Debug, Default)]
pub(super) struct Queue {
    parcels: Mutex<VecDeque<Parcel>>,
    filled: Notify,
}

impl Queue {
    /// Adds a message to a queue that is not closed; [`wake`](Self::wake) follows.
    pub(super) fn push(&self, parcel: Parcel) {
        self.parcels.lock().push_back(parcel);
    }

    /// Wakes the task that sends.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Waits for the next message.
    pub(super) async fn pop(&self) -> Parcel {
        loop {
            if let Some(parcel) = self.parcels.lock().pop_front() {
                return parcel;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parcels.lock().is_empty()
    }

    /// Takes all messages.
    pub(super) fn drain(&self) -> VecDeque<Parcel> {
        std::mem::take(&mut self.parcels.lock())
    }
}
