//! `Queue`: the messages of a peer that no connection has taken.

use super::outgoing::OutgoingMessage;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Filled by the handles of the pool and emptied by the task that sends. The places of the messages
/// limit its size.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: Mutex<VecDeque<OutgoingMessage>>,
    filled: Notify,
}

impl Queue {
    /// Adds a message. Call [`wake`](Self::wake) after unlocking the peers.
    pub(super) fn push(&self, outgoing: OutgoingMessage) {
        self.messages.lock().push_back(outgoing);
    }

    /// Wakes the task that sends.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Waits for the next message.
    pub(super) async fn pop(&self) -> OutgoingMessage {
        loop {
            if let Some(outgoing) = self.messages.lock().pop_front() {
                return outgoing;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.lock().is_empty()
    }

    /// Takes all messages.
    pub(super) fn drain(&self) -> VecDeque<OutgoingMessage> {
        std::mem::take(&mut self.messages.lock())
    }
}
