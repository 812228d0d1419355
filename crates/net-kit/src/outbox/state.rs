//! `State`: what the handles and the driver of an outbox share.

use super::confirmation::Confirmation;
use crate::control_record::Control;
use crate::frame::HEADER;
use crate::unacknowledged::Unacknowledged;
use bytes::Bytes;
use net_traits::{CloseReason, SendError};
use std::collections::VecDeque;

/// What a message costs in addition to its bytes: its memory in the queue.
pub(super) const ENTRY_COST: usize = 128;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) frames: VecDeque<Frame>,
    /// The numbers of confirmations that are not written.
    pub(super) confirmations: Vec<u32>,
    pub(super) confirmation: Confirmation,
    /// Whether what was written last was not queued.
    pub(super) was_unqueued: bool,
    /// The cost of the queued frames and of the frame that the driver is writing.
    pub(super) cost: usize,
    /// How many frames are not written, and the bytes of their messages.
    pub(super) unwritten: (u64, u64),
    /// How many frames were queued in total, and how many of them are written.
    pub(super) pushed: u64,
    pub(super) written: u64,
    /// How many bytes are written.
    pub(super) bytes: u64,
    /// Written messages that the peer may not have confirmed.
    pub(super) unacknowledged: Unacknowledged,
    /// Whether the peer has confirmed everything that is written.
    pub(super) is_confirmed: bool,
    /// Whether all messages and the close are written.
    pub(super) is_all_written: bool,
    /// Code and reason of the local close, once it has begun.
    pub(super) closing: Option<(u64, String)>,
    /// An error that the next operation that queues a message returns.
    pub(super) report: Option<SendError>,
    /// How often there was such an error, and the last one, for the operations that wait for room.
    pub(super) reported: (u64, Option<SendError>),
    /// How many messages were lost with streams, at most, and their bytes.
    pub(super) lost: (u64, u64),
    /// Why nothing can be written any more.
    pub(super) failed: Option<CloseReason>,
    pub(super) has_ended: bool,
}

/// One message to be written.
#[derive(Debug)]
pub struct Frame {
    /// Its bytes, in order.
    pub pieces: Vec<Bytes>,
    cost: usize,
    /// Otherwise it is a control record, which counts as no message.
    is_message: bool,
    /// Otherwise it was not in the queue and has no position.
    is_queued: bool,
}

impl Frame {
    /// Returns the size of the message.
    fn bytes(&self) -> u64 {
        self.cost.saturating_sub(ENTRY_COST + HEADER) as u64
    }

    /// Returns the number of messages, 0 or 1, and their bytes.
    fn counted(&self) -> (u64, u64) {
        if self.is_message { (1, self.bytes()) } else { (0, 0) }
    }

    /// Creates a control record that was not queued.
    pub(super) fn unqueued(record: Vec<u8>) -> Self {
        Self { pieces: vec![record.into()], cost: 0, is_message: false, is_queued: false }
    }
}

/// How many written bytes of a stream are tracked if the peer answers probes. It bounds the memory
/// for a peer that takes data and answers none.
const MAX_TRACKED: u64 = 64 * 1024 * 1024;

/// How many written bytes of a stream count as unconfirmed if the peer answers no probes: at least what the socket buffers of the
/// system and the send windows of QUIC libraries usually hold.
pub const UNCONFIRMED: u64 = 4 * 1024 * 1024;

/// What the driver has to do next.
#[derive(Debug)]
pub enum Work {
    /// Write a message.
    Frame(Frame),
    /// All messages are written: close with this code and reason.
    Close(u64, String),
}

impl State {
    pub(super) fn push(&mut self, pieces: Vec<Bytes>, is_message: bool) {
        let cost = ENTRY_COST + pieces.iter().map(Bytes::len).sum::<usize>();
        self.cost += cost;
        self.pushed += 1;
        let frame = Frame { pieces, cost, is_message, is_queued: true };
        let (messages, bytes) = frame.counted();
        self.unwritten = (self.unwritten.0 + messages, self.unwritten.1 + bytes);
        self.frames.push_back(frame);
    }

    /// Returns control records that are written before what is queued.
    pub(super) fn take_unqueued(&mut self) -> Option<Vec<u8>> {
        let probe = self.confirmation.probe(self.written, self.unacknowledged.end());
        if probe.is_none() && self.confirmations.is_empty() {
            return None;
        }
        let confirmations = std::mem::take(&mut self.confirmations).into_iter();
        let records = confirmations.map(Control::Confirmation).chain(probe.map(Control::Probe));
        Some(records.flat_map(Control::encode).collect())
    }

    pub(super) fn wrote_frame(&mut self, frame: &Frame) {
        self.cost -= frame.cost;
        self.written += u64::from(frame.is_queued);
        if !frame.is_message {
            return;
        }
        let (messages, bytes) = frame.counted();
        self.unwritten =
            (self.unwritten.0.saturating_sub(messages), self.unwritten.1.saturating_sub(bytes));
        self.unacknowledged.sent(bytes + HEADER as u64, bytes);
        if self.unacknowledged.is_long() {
            let kept = if self.confirmation.has_probes() { MAX_TRACKED } else { UNCONFIRMED };
            self.unacknowledged.confirm(self.unacknowledged.end().saturating_sub(kept));
        }
    }

    pub(super) fn unconfirmed(&self) -> (u64, u64) {
        let (messages, bytes) = self.unsent();
        let written = if self.is_confirmed { (0, 0) } else { self.unacknowledged.totals() };
        (messages + written.0, bytes + written.1)
    }

    /// Returns how many messages were not written, or are lost with a stopped stream, and their
    /// bytes.
    pub(super) fn unsent(&self) -> (u64, u64) {
        (self.unwritten.0 + self.lost.0, self.unwritten.1 + self.lost.1)
    }

    /// Returns why nothing can be queued, or `None` if messages can be queued.
    pub(super) fn why_closed(&self) -> Option<CloseReason> {
        let local = |(code, reason): &(u64, String)| CloseReason::Local {
            code: *code,
            reason: reason.clone(),
        };
        self.closing.as_ref().map(local).or_else(|| self.failed.clone())
    }
}
