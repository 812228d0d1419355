//! Messages to many peers, and their reports.

use super::config::DropError;
use net_traits::CertHash;
use tokio::sync::mpsc;

/// The reports of a [broadcast](crate::PeerPool::broadcast).
///
/// Dropping it cancels nothing: messages that cannot be sent are then reported by
/// [`PeerEvent::Undelivered`](crate::PeerEvent::Undelivered).
#[derive(Debug)]
pub struct Broadcast {
    reports: mpsc::UnboundedReceiver<Unsent>, // at most one for each peer
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
    pub(super) fn new() -> (Self, impl Fn(CertHash) -> Reporter) {
        let (report, reports) = mpsc::unbounded_channel();
        (Self { reports }, move |peer| Reporter { peer, report: Some(report.clone()) })
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
        self.reports.recv().await
    }

    /// Waits until the message is sent or has failed for all peers. Returns those that do not get
    /// it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses the reports. Use [`next_unsent`](Self::next_unsent) with a timeout.
    pub async fn unsent(mut self) -> Vec<Unsent> {
        let mut all = Vec::new();
        while let Some(unsent) = self.next_unsent().await {
            all.push(unsent);
        }
        all
    }
}

/// Reports one message of a broadcast if it is not sent.
#[derive(Debug)]
pub(super) struct Reporter {
    peer: CertHash,
    report: Option<mpsc::UnboundedSender<Unsent>>,
}

impl Reporter {
    pub(super) fn sent(mut self) {
        self.report = None;
    }

    /// Returns whether the report has a receiver.
    pub(super) fn unsent(mut self, error: DropError) -> bool {
        let unsent = Unsent { peer: self.peer, error };
        self.report.take().is_some_and(|report| report.send(unsent).is_ok())
    }
}
