//! Compares what two sides sent and received with the contract. Pure.

use super::script::{End, Script};
use bytes::Bytes;
use net_traits::{CloseOutcome, CloseReason, RecvError, TransportStatistics, close_code};
use std::fmt;

/// What happened at one side.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) sent: Vec<(Message, Fate)>,
    pub(super) received: Vec<Message>,
    /// Errors of `recv` before the end.
    pub(super) errors: Vec<RecvError>,
    /// What `close` returned.
    pub(super) outcome: Option<CloseOutcome>,
    /// What `watch_close` returned.
    pub(super) ended: Option<CloseReason>,
}

/// A message, of which `Debug` shows the beginning only.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message(pub(super) Bytes);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = String::from_utf8_lossy(&self.0[..self.0.len().min(8)]);
        write!(f, "{begin} ({} bytes)", self.0.len())
    }
}

/// What the sender knows about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is queued.
    Queued,
    /// The application of the peer has taken it.
    Taken,
    /// The send was cancelled: it is queued or not.
    Unknown,
}

/// The code with which a side closes.
pub(super) fn code(script: &Script) -> u64 {
    match script.end {
        End::Drop => 0,
        End::Shutdown => close_code::SHUTDOWN,
        End::Revoke => close_code::REVOKED,
        _ => script.seed % 1000 + 1,
    }
}

/// The reason with which a side closes.
pub(super) fn reason(script: &Script) -> String {
    match script.end {
        End::Drop => String::new(),
        _ => format!("reason {}", script.seed % 77),
    }
}

type Side<'a> = (&'a Script, &'a Record);

/// Checks the messages of one direction, and how the receiver learned of the end.
pub(super) fn messages(sender: Side<'_>, receiver: Side<'_>) -> Result<(), String> {
    let ((script, sent), (peer, received)) = (sender, receiver);
    let mut next = sent.sent.iter();
    for (index, message) in received.received.iter().enumerate() {
        if !next.any(|(sent, _)| sent == message) {
            return Err(format!(
                "received message {index} was not sent, or comes again or too late"
            ));
        }
    }
    let is_received = |message: &Message| received.received.contains(message);
    if let Some((number, _)) =
        certain(sent).find(|(_, (message, fate))| *fate == Fate::Taken && !is_received(message))
    {
        return Err(format!(
            "message {number} was acknowledged by the application and not received"
        ));
    }
    if !matches!(peer.end, End::Wait | End::Close | End::Shutdown) {
        return Ok(()); // it may have discarded some
    }
    let lost = lost(sent, received);
    match &sent.outcome {
        Some(outcome) if outcome.is_confirmed() && lost > 0 => {
            return Err(format!("{lost} messages are lost, the close returned {outcome:?}"));
        }
        Some(CloseOutcome::Undelivered { messages, .. }) if *messages < lost => {
            return Err(format!("{lost} messages are lost, the close returned {messages}"));
        }
        None if script.end == End::Close => return Err("the close did not return".to_owned()),
        _ => {}
    }
    if peer.end != End::Wait {
        return Ok(()); // it may have ended the connection before this side did
    }
    if script.end.is_graceful() && !received.errors.is_empty() {
        return Err(format!("receiving failed before the end: {:?}", received.errors));
    }
    if sent.outcome.is_none() && script.end.is_graceful() && lost > 0 {
        return Err(format!("{lost} messages are lost after {:?}", script.end));
    }
    match &received.ended {
        Some(CloseReason::Peer { code: received, reason: why })
            if *received == code(script)
                && (script.end == End::Revoke || *why == reason(script)) =>
        {
            Ok(())
        }
        ended => Err(format!("the connection ended with {ended:?}")),
    }
}

/// Checks the statistics of the sender's transport after the end.
pub(super) fn statistics(
    sender: Side<'_>,
    receiver: Side<'_>,
    statistics: &TransportStatistics,
) -> Result<(), String> {
    let ((script, sent), (peer, received)) = (sender, receiver);
    let TransportStatistics { connections, handshakes, held_bytes, undelivered_messages, .. } =
        *statistics;
    if (connections, handshakes, held_bytes) != (0, 0, 0) {
        return Err(format!(
            "{connections} connections, {handshakes} handshakes, {held_bytes} bytes stay"
        ));
    }
    let lost = if peer.end == End::Wait { lost(sent, received) } else { 0 };
    if script.end != End::Wait && undelivered_messages < lost {
        return Err(format!("{lost} messages are lost, {undelivered_messages} are counted"));
    }
    let is_confirmed = sent.outcome.as_ref().is_some_and(CloseOutcome::is_confirmed);
    if is_confirmed && undelivered_messages > 0 {
        return Err(format!(
            "{undelivered_messages} messages are counted as lost after a confirmed close"
        ));
    }
    let queued = certain(sent).count() as u64;
    let counted = statistics.messages.messages_sent;
    if !(queued..=sent.sent.len() as u64).contains(&counted) {
        return Err(format!("{counted} messages are counted, {queued} were sent"));
    }
    let (counted, taken) = (statistics.messages.messages_received, sent.received.len());
    if counted != taken as u64 {
        return Err(format!("{counted} received messages are counted, {taken} were received"));
    }
    Ok(())
}

/// Returns the messages that are certainly queued, with their numbers.
fn certain(record: &Record) -> impl Iterator<Item = (usize, &(Message, Fate))> {
    record.sent.iter().enumerate().filter(|(_, (_, fate))| *fate != Fate::Unknown)
}

/// Returns how many messages were queued and not received.
fn lost(sent: &Record, received: &Record) -> u64 {
    certain(sent).filter(|(_, (message, _))| !received.received.contains(message)).count() as u64
}
