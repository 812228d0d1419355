//! `OutgoingMessage`: a message for a peer, until it is known to be delivered.
//!
//! # Who owns the payload
//!
//! A message has one owner at a time: the [`Queue`](super::queue::Queue) of its peer, then the task
//! that sends it, then the [`InFlight`](super::in_flight::InFlight) of the connection that took it.
//! The last owner calls [`delivered`](OutgoingMessage::delivered) or
//! [`undelivered`](OutgoingMessage::undelivered). A message that is dropped instead, with an
//! aborted task or a runtime that was shut down, reports itself. No message is lost without a
//! report.
//!
//! # What bounds the reports
//!
//! A message holds a [`Place`] from the moment when it is queued. Its report keeps the place until
//! the application has received the report, so a report needs no additional room.

use super::broadcast::Reporter;
use super::config::DropError;
use super::event_queue::Reports;
use super::peer_event::Undelivered;
use super::quota::{OfPeer, Place, Share};
use bytes::Bytes;
use net_traits::CertHash;
use std::sync::Arc;

/// A message for a peer.
#[derive(Debug)]
pub(super) struct OutgoingMessage {
    content: Option<Content>,
}

#[derive(Debug)]
struct Content {
    peer: CertHash,
    message: Bytes,
    place: Place,
    /// For a message of a broadcast, until a connection has taken it.
    reporter: Option<Reporter>,
    /// Whether a connection may have taken it.
    may_have_arrived: bool,
    reports: Arc<Reports>,
}

impl OutgoingMessage {
    pub(super) fn new(
        peer: CertHash,
        message: Bytes,
        place: Place,
        reporter: Option<Reporter>,
        reports: &Arc<Reports>,
    ) -> Self {
        reports.begin();
        let reports = reports.clone();
        let content = Content { peer, message, place, reporter, may_have_arrived: false, reports };
        Self { content: Some(content) }
    }

    pub(super) fn message(&self) -> Bytes {
        self.content.as_ref().map(|it| it.message.clone()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.content.as_ref().map_or(0, |it| it.message.len())
    }

    /// Records that a connection is about to take the message. If the sending task is dropped
    /// meanwhile, the message may have been sent.
    pub(super) fn offered(&mut self) {
        if let Some(content) = &mut self.content {
            content.may_have_arrived = true;
        }
    }

    /// Records that the connection has not taken the message.
    pub(super) fn refused(&mut self) {
        if let Some(content) = &mut self.content {
            content.may_have_arrived = false;
        }
    }

    /// Records that a connection has taken the message, which now holds `share` instead of a place
    /// in the queue.
    pub(super) fn taken(&mut self, share: Share) {
        if let Some(content) = &mut self.content {
            content.place.of_peer = OfPeer::Unconfirmed { _bytes: share };
            if let Some(reporter) = content.reporter.take() {
                reporter.sent();
            }
        }
    }

    /// Ends the message without a report.
    pub(super) fn delivered(mut self) {
        if let Some(content) = self.content.take() {
            content.reports.end();
        }
    }

    /// Reports the message.
    pub(super) fn undelivered(mut self, error: DropError) {
        self.report(error);
    }

    fn report(&mut self, error: DropError) {
        let Some(content) = self.content.take() else { return };
        let Content { peer, message, place, reporter, may_have_arrived, reports } = content;
        if reporter.is_some_and(|reporter| reporter.unsent(error.clone(), message.clone())) {
            drop((message, place));
            return reports.end();
        }
        reports.report(Undelivered { peer, message, error, may_have_arrived }, place);
    }
}

impl Drop for OutgoingMessage {
    fn drop(&mut self) {
        self.report(DropError::Removed);
    }
}
