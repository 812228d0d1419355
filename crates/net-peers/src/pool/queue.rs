//! `Queue`: the messages of a peer that no connection has taken.

use super::outgoing::OutgoingMessage;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Filled by the handles of the pool and emptied by the task that sends. The places of the messages
/// limit its size.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<OutgoingMessage>,
    /// Whether the task that sends has a message.
    is_sending: bool,
}

impl Queue {
    /// Adds a message. Call [`wake`](Self::wake) after unlocking the peers.
    pub(super) fn push(&self, outgoing: OutgoingMessage) {
        self.state.lock().messages.push_back(outgoing);
    }

    /// Wakes the task that sends.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Waits for the next message. Call [`done`](Self::done) after a connection has taken it or it
    /// was reported.
    pub(super) async fn pop(&self) -> OutgoingMessage {
        loop {
            {
                let state = &mut *self.state.lock();
                if let Some(outgoing) = state.messages.pop_front() {
                    state.is_sending = true;
                    return outgoing;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Records that the task that sends has no message. Returns whether none waits.
    pub(super) fn done(&self) -> bool {
        let state = &mut *self.state.lock();
        state.is_sending = false;
        state.messages.is_empty()
    }

    /// Returns whether no message waits or is being sent.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.messages.is_empty() && !state.is_sending
    }

    /// Takes all messages.
    pub(super) fn drain(&self) -> VecDeque<OutgoingMessage> {
        std::mem::take(&mut self.state.lock().messages)
    }
}
