//! `Script`: what one side of a connection does.

use super::choices::Choices;
use crate::Limits;
use std::time::Duration;

/// The most operations of one side.
const OPERATIONS: usize = 40;

#[derive(Debug)]
pub(super) struct Script {
    pub(super) limits: Limits,
    pub(super) operations: Vec<Operation>,
    pub(super) end: End,
    /// How long this side waits before it connects or accepts, each time it has to wait, and before it receives.
    pub(super) delay: Duration,
    /// How long this side pauses after each message that it has received.
    pub(super) pause: Duration,
    /// Determines which calls of `recv` are cancelled.
    pub(super) seed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    /// Sends a message of this size.
    Send(usize),
    TrySend(usize),
    /// Polls `send_bytes` once.
    PollSend(usize),
    SendAcked(usize),
    Flush,
    /// Sends a question of this size, and waits for the answer.
    Ask(usize),
    /// Sends a question and drops it.
    PollAsk(usize),
    Pause(Duration),
}

impl End {
    /// Returns whether everything that this side sent arrives if the other side waits.
    pub(super) fn is_graceful(self) -> bool {
        matches!(self, Self::Close | Self::Drop | Self::Shutdown)
    }
}

/// What a side does after its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Close,
    /// Drops all handles.
    Drop,
    Abort,
    /// Shuts its transport down.
    Shutdown,
    /// Revokes the trust in all peers.
    Revoke,
    /// Receives until the other side ends the connection.
    Wait,
}

impl Script {
    /// Creates the scripts of the dialler and the listener. At least one of them ends the connection.
    pub(super) fn pair(choices: &mut impl Choices) -> [Self; 2] {
        let mut pair = [Self::new(choices), Self::new(choices)];
        if pair.iter().all(|script| script.end == End::Wait) {
            pair[choices.below(2)].end = End::Close;
        }
        pair
    }

    fn new(choices: &mut impl Choices) -> Self {
        let receive_queue = [16 * 1024, 64 * 1024, 4 * 1024 * 1024][choices.below(3)];
        let operations = 0..choices.below(OPERATIONS);
        let ends = [End::Close, End::Close, End::Drop, End::Abort, End::Shutdown, End::Revoke];
        Self {
            limits: Limits { receive_queue, ..Limits::default() },
            operations: operations.map(|_| Operation::new(choices)).collect(),
            end: if choices.way(5) < 2 { End::Wait } else { ends[choices.below(ends.len())] },
            delay: few(choices, 30),
            pause: few(choices, 4),
            seed: choices.any(),
        }
    }
}

impl Operation {
    fn new(choices: &mut impl Choices) -> Self {
        let size = match choices.way(10) {
            0 => 0,
            1..6 => choices.below(300),
            6..9 => choices.below(20_000),
            _ => choices.below(300_000),
        };
        match choices.way(16) {
            0..7 => Self::Send(size),
            7..9 => Self::TrySend(size),
            9 => Self::PollSend(size),
            10 => Self::SendAcked(size),
            11 => Self::Flush,
            12 => Self::Ask(size.min(Limits::default().max_request_size)),
            13 => Self::PollAsk(size.min(Limits::default().max_request_size)),
            _ => Self::Pause(milliseconds(choices, 5)),
        }
    }
}

/// Returns no time in half of the cases, and otherwise fewer milliseconds than `end`.
fn few(choices: &mut impl Choices, end: usize) -> Duration {
    if choices.coin() { Duration::ZERO } else { milliseconds(choices, end) }
}

fn milliseconds(choices: &mut impl Choices, end: usize) -> Duration {
    Duration::from_millis(u64::try_from(choices.below(end)).unwrap_or_default())
}
