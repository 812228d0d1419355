//! `Pace`: whether a connection and its unfinished messages advance. Pure; looked at from time to time.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How many bytes a connection has to bring within the timeout.
const ADVANCE: u64 = 16 * 1024;

/// Within the timeout, a message has to bring this part of what it holds, if memory is scarce.
const PART: usize = 64;

/// What a message may hold for its time, although memory is scarce.
const SMALL: usize = 64 * 1024;

/// An unfinished message at a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) number: u64,
    pub(super) arrived: usize,
    /// The size of its buffer.
    pub(super) held: usize,
    /// This side accepts no data of it now.
    pub(super) is_waiting: bool,
}

/// How a connection advances.
#[derive(Debug)]
pub(super) struct Pace {
    /// The bytes of complete messages at the last look.
    received: u64,
    /// What the connection has brought since the last advance, and when that was.
    brought: u64,
    since: Instant,
    messages: BTreeMap<u64, Message>,
}

/// An unfinished message.
#[derive(Debug)]
struct Message {
    /// How much had arrived at the last look.
    seen: usize,
    /// How much had arrived at the last advance, and when that was.
    mark: usize,
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { received: 0, brought: 0, since: Instant::now(), messages: BTreeMap::new() }
    }

    /// Looks at all unfinished messages. `received` are the bytes of complete ones so far.
    pub(super) fn look(
        &mut self,
        now: Instant,
        received: u64,
        unfinished: impl Iterator<Item = Progress>,
    ) {
        self.brought += received.saturating_sub(self.received);
        self.received = received;
        let mut before = std::mem::take(&mut self.messages);
        for Progress { number, arrived, held, is_waiting } in unfinished {
            let message = before.remove(&number);
            let mut message = message.unwrap_or(Message { seen: 0, mark: arrived, since: now });
            self.brought += arrived.saturating_sub(message.seen) as u64;
            message.seen = arrived;
            if is_waiting || held <= SMALL || arrived.saturating_sub(message.mark) >= held / PART {
                (message.mark, message.since) = (arrived, now);
            }
            self.messages.insert(number, message);
        }
        if self.brought >= ADVANCE {
            (self.brought, self.since) = (0, now);
        }
    }

    /// Returns whether the connection brought less than 16 KiB within `timeout`.
    pub(super) fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.since) >= timeout
    }

    /// Returns whether a message brought too little of what it holds within `timeout`.
    pub(super) fn is_slow(&self, now: Instant, timeout: Duration) -> bool {
        let is_slow = |it: &Message| now.saturating_duration_since(it.since) >= timeout;
        self.messages.values().any(is_slow)
    }
}
