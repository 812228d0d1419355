//! `Lingering`: what happens to a connection after its last handle was dropped.

use super::Member;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// An open connection without handles. Dropping it closes the connection immediately, unless that
/// has ended, and counts the messages that the peer has not confirmed.
pub struct Lingering<M: Member>(pub(super) Arc<M>);

impl<M: Member> Lingering<M> {
    /// Sends the queued messages for at most `limit`, and closes the connection with code 0.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes immediately.
    pub async fn run(self, limit: Duration) {
        let _ = timeout(limit, self.0.close(0, "")).await; // if it is too late, the drop closes
    }
}

impl<M: Member> Drop for Lingering<M> {
    fn drop(&mut self) {
        self.0.abort(0, "");
        self.0.entry().undelivered(self.0.unconfirmed());
        self.0.discard();
    }
}

impl<M: Member> fmt::Debug for Lingering<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lingering").finish_non_exhaustive()
    }
}
