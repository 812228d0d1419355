//! Tickets with which sessions are resumed (C31, C33): those that this crate issues, and those that it uses.

use super::faults::demand;
use std::ops::Range;

/// What has happened to a connection.
#[derive(Default)]
pub(super) struct Tickets {
    /// This side is the server.
    pub(super) is_server: bool,
    /// Of a client: the ticket with which it starts. If it could not be set, the connection cannot be started.
    pub(super) ticket: Option<Vec<u8>>,
    pub(super) has_failed: bool,
    /// Of a server: the state in the ticket that was accepted last.
    pub(super) accepted: Option<Vec<u8>>,
    /// The handshake resumes the session.
    pub(super) is_resumed: bool,
    /// How often a ticket was issued, and the state of the one that was.
    pub(super) issues: usize,
    pub(super) issued: Option<Vec<u8>>,
}

/// Where the time of the proof is in a state.
pub(crate) const PROVEN: Range<usize> = 9..17;

/// A ticket as a client gets it, and as it is used: without the limits of the server.
pub(crate) fn encode(number: u8) -> (Vec<u8>, Vec<u8>) {
    let head = [1, 0, 0, 0, 1];
    let received = [&head[..], &[3, 2, 4, 1, 5, number, 7]].concat();
    let used = [&head[..], &[0, 2, number, 7]].concat();
    (received, used)
}

impl Tickets {
    /// The handshake is complete: a server has issued one ticket, with the proof that its session has.
    pub(super) fn check(&self) {
        let issues = self.issues;
        demand(issues == usize::from(self.is_server), || format!("{issues} tickets are issued"));
        if let (Some(accepted), Some(issued), true) =
            (&self.accepted, &self.issued, self.is_resumed)
        {
            let has_same = accepted.get(PROVEN) == issued.get(PROVEN);
            demand(has_same, || "a resumed session has another proof".to_owned());
        }
    }
}
