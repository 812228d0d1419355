//! Messages to many peers, and their reports.

use super::config::DropError;
use super::event_queue::Reports;
use super::peer_event::Undelivered;
use bytes::Bytes;
use net_traits::CertHash;
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;

/// The reports of a [broadcast](crate::PeerPool::broadcast).
///
/// Dropping it cancels nothing: messages that cannot be sent, and those whose reports were not received, are then
/// reported by [`PeerEvent::Undelivered`](crate::PeerEvent::Undelivered). The payload stays in memory until
/// the reports are received.
#[derive(Debug)]
pub struct Broadcast {
    reports: mpsc::UnboundedReceiver<(Unsent, Bytes)>, // at most one for each peer
    /// Where reports go that are not received. Weak, so that the events of a pool can end.
    events: Weak<Reports>,
}

/// A peer to which a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsent {
    /// The peer.
    pub peer: CertHash,
    /// Why.
    pub error: DropError,
}

impl Broadcast {
    /// Creates the receiver of the reports, and a function that creates the reporter of each
    /// message.
    pub(super) fn new(events: &Arc<Reports>) -> (Self, impl Fn(CertHash) -> Reporter) {
        let (report, reports) = mpsc::unbounded_channel();
        let (weak, events) = (Arc::downgrade(events), events.clone());
        (Self { reports, events: weak }, move |peer| Reporter {
            peer,
            report: Some(report.clone()),
            events: events.clone(),
        })
    }

    /// Waits for the next peer to which the message was not sent.
    ///
    /// Returns `None` once the connections of all other peers have taken the message. If a message
    /// is lost with its connection later, that is reported by
    /// [`PeerEvent::Undelivered`](crate::PeerEvent::Undelivered).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no report.
    pub async fn next_unsent(&mut self) -> Option<Unsent> {
        self.reports.recv().await.map(|(unsent, _message)| unsent)
    }

    /// Waits until the message is sent or has failed for all peers. Returns those that do not get
    /// it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses the reports that it has collected. Use [`next_unsent`](Self::next_unsent) with a
    /// timeout.
    pub async fn unsent(mut self) -> Vec<Unsent> {
        let mut all = Vec::new();
        while let Some(unsent) = self.next_unsent().await {
            all.push(unsent);
        }
        all
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.reports.close();
        while let Ok((Unsent { peer, error }, message)) = self.reports.try_recv() {
            let Some(events) = self.events.upgrade() else { return };
            events.report_late(Undelivered { peer, message, error, may_have_arrived: false });
        }
    }
}

/// Reports one message of a broadcast if it is not sent.
#[derive(Debug)]
pub(super) struct Reporter {
    peer: CertHash,
    report: Option<mpsc::UnboundedSender<(Unsent, Bytes)>>,
    events: Arc<Reports>,
}

impl Reporter {
    pub(super) fn sent(mut self) {
        self.report = None;
    }

    /// Returns whether the report has a receiver.
    pub(super) fn unsent(mut self, error: DropError, message: Bytes) -> bool {
        let unsent = Unsent { peer: self.peer, error: error.clone() };
        let is_received =
            self.report.take().is_some_and(|report| report.send((unsent, message)).is_ok());
        if is_received {
            self.events.count(&self.peer, &error);
        }
        is_received
    }
}
