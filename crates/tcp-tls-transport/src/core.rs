//! `Core`: the state shared by the handles of a connection and its driver task, without sockets.
//!
//! Handles queue messages in the outbox, which the driver writes; the driver fills the inbox, from
//! which handles receive. A dropped `send` or `recv` has queued or taken nothing.

use crate::config::TcpTlsConfig;
use crate::requests::Requests;
use net_kit::inbox::{Inbox, Received};
use net_kit::outbox::Outbox;
use net_traits::CloseReason;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<TcpTlsConfig>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// `None` if the peer's version has no requests.
    pub(crate) requests: Option<Requests>,
    /// Wakes the driver: the inbox may have room.
    taken: Notify,
    end: watch::Sender<Option<CloseReason>>,
}

impl Core {
    pub(crate) fn new(config: Arc<TcpTlsConfig>, has_requests: bool) -> Arc<Self> {
        Arc::new(Self {
            inbox: Inbox::new(config.receive_queue),
            outbox: Outbox::new(config.send_queue),
            requests: has_requests.then(Requests::new),
            config,
            taken: Notify::new(),
            end: watch::Sender::default(),
        })
    }

    /// Waits until the inbox has room. While this side closes there is always room, because
    /// received messages are discarded.
    ///
    /// # Errors
    ///
    /// The reason of a failed write, if no message is then received for `patience`.
    pub(crate) async fn inbox_room(&self, patience: Duration) -> Result<(), CloseReason> {
        loop {
            let taken = self.taken.notified(); // one driver: `notify_one` keeps its permit
            if self.inbox.room() > 0 {
                return Ok(());
            }
            match self.outbox.failed() {
                None => taken.await,
                Some(reason) => timeout(patience, taken).await.map_err(|_| reason)?,
            }
        }
    }

    /// Waits for the next message.
    pub(crate) async fn recv(&self) -> Received {
        let (received, _) = self.inbox.recv(|| self.end.borrow().clone()).await;
        self.taken.notify_one();
        received
    }

    /// Writing has failed; received data may still be read.
    pub(crate) fn broke(&self, reason: CloseReason) {
        self.outbox.fail(reason);
        self.taken.notify_one();
    }

    /// Stops queueing; the driver closes after the queued messages. Returns false if already
    /// closing.
    pub(crate) fn close(&self, code: u64, reason: &str) -> bool {
        let is_first = self.outbox.close(code, reason);
        if is_first {
            self.inbox.discard();
            self.taken.notify_one();
        }
        is_first
    }

    /// Drops the queued messages and ends the connection.
    pub(crate) fn close_now(&self, code: u64, reason: &str) {
        self.outbox.abort(code, reason);
        self.inbox.discard();
        self.end(CloseReason::TimedOut); // the local close takes precedence
    }

    /// Ends the connection, unless it already ended. A local close takes precedence as the reason.
    pub(crate) fn end(&self, reason: CloseReason) {
        let reason = self.outbox.end(reason);
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(reason);
            is_first
        });
        self.taken.notify_one();
        self.inbox.wake_all();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until the connection has ended.
    pub(crate) async fn over(&self) -> CloseReason {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(CloseReason::TimedOut) // there is a reason, since the sender lives
    }
}
