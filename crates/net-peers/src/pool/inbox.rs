//! `Inbox`: received messages of all peers that the application has not asked for.
//!
//! The task of each connection pushes, the application pops. A task that finds no room waits for it
//! with its message in hand and reads no further, so the connection's own limits slow the peer. Tasks
//! get room in the order in which they asked: no peer can keep the others out.

use super::account::MESSAGE_COST;
use bytes::Bytes;
use net_traits::CertHash;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::coop::consume_budget;

#[derive(Debug)]
pub(super) struct Inbox {
    limit: u32,
    room: Arc<Semaphore>,
    messages: Mutex<VecDeque<Received>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Received {
    peer: CertHash,
    message: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The pool was dropped.
pub(super) struct Closed;

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(limit as usize));
        Self { limit, room, messages: Mutex::default(), arrived: Notify::new() }
    }

    /// Adds a message once there is room for it. An empty inbox has room for any message.
    pub(super) async fn push(&self, peer: CertHash, message: Bytes) -> Result<(), Closed> {
        let cost = u32::try_from(message.len() + MESSAGE_COST).unwrap_or(u32::MAX).min(self.limit);
        let room = self.room.clone().acquire_many_owned(cost).await.map_err(|_| Closed)?;
        self.messages.lock().push_back(Received { peer, message, _room: room });
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) fn try_pop(&self) -> Option<(CertHash, Bytes)> {
        let (received, is_empty) = {
            let mut messages = self.messages.lock();
            (messages.pop_front()?, messages.is_empty())
        };
        if !is_empty {
            self.arrived.notify_one(); // for another waiter
        }
        Some((received.peer, received.message))
    }

    pub(super) async fn pop(&self) -> (CertHash, Bytes) {
        consume_budget().await;
        loop {
            let arrived = self.arrived.notified();
            if let Some(received) = self.try_pop() {
                return received;
            }
            arrived.await;
        }
    }

    /// Ends the tasks that wait for room.
    pub(super) fn close(&self) {
        self.room.close();
        let unread = std::mem::take(&mut *self.messages.lock());
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    const PEER: CertHash = CertHash::from_bytes([1; 32]);

    #[tokio::test]
    async fn a_full_inbox_lets_pushers_wait_in_order() {
        let inbox = Inbox::new(2 * MESSAGE_COST);
        let push = |text: &'static str| inbox.push(PEER, text.into());
        assert!(push("").await.is_ok() && push("").await.is_ok());
        let (mut third, mut fourth) =
            (pin!(push("third, longer than all room").boxed()), pin!(push("")));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        inbox.pop().await;
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none(), "it came later");
        inbox.pop().await;
        assert!(third.await.is_ok());
        assert_eq!(inbox.pop().await.1, "third, longer than all room");
        assert!(fourth.await.is_ok());
        inbox.close();
        assert!(push("").await.is_err());
    }
}
