//! `Inbox`: messages of all peers that the application has not received yet.
//!
//! The task of each connection pushes, and the application pops. A task that finds no room waits
//! with its message and does not read, so that the flow control of the connection stops the peer.
//! Tasks get room in the order of their calls: no peer can starve other peers.
//!
//! A message is stored with its connection, so that messages of a peer that was revoked meanwhile
//! are not popped.

use super::quota::MESSAGE_COST;
use bytes::Bytes;
use net_kit::coop;
use net_traits::{CertHash, NetConnection};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(super) struct Inbox<C> {
    limit: u32,
    room: Arc<Semaphore>,
    messages: Mutex<VecDeque<Received<C>>>,
    arrived: Notify,
}

struct Received<C> {
    connection: C,
    message: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The pool was dropped.
pub(super) struct Closed;

impl<C: NetConnection> Inbox<C> {
    pub(super) fn new(limit: usize) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(limit as usize));
        Self { limit, room, messages: Mutex::default(), arrived: Notify::new() }
    }

    /// Adds a message once there is room for it. An empty inbox has room for any message.
    pub(super) async fn push(&self, connection: &C, message: Bytes) -> Result<(), Closed> {
        let cost = u32::try_from(message.len() + MESSAGE_COST).unwrap_or(u32::MAX).min(self.limit);
        let room = self.room.clone().acquire_many_owned(cost).await.map_err(|_| Closed)?;
        let connection = connection.clone();
        self.messages.lock().push_back(Received { connection, message, _room: room });
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) fn try_pop(&self) -> Option<(CertHash, Bytes)> {
        loop {
            let (received, is_empty) = {
                let mut messages = self.messages.lock();
                (messages.pop_front()?, messages.is_empty())
            };
            if !is_empty {
                self.arrived.notify_one(); // for another waiter
            }
            let Received { connection, message, .. } = received;
            if connection.is_trusted() {
                return Some((connection.peer_identity().hash, message));
            }
        }
    }

    pub(super) async fn pop(&self) -> (CertHash, Bytes) {
        coop::spend().await;
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
    use net_traits::{NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy};
    use net_traits_test::memory::{MemoryConnection, MemoryNetwork, MemoryTransport};
    use std::pin::pin;

    async fn connected() -> (MemoryTransport, MemoryConnection, MemoryConnection) {
        let network = MemoryNetwork::new(1);
        let (here, there) = (network.transport(), network.transport());
        let credential = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let listener = here.create_listener(([0; 4], 0).into(), &["test"], credential());
        let listener = listener.await.unwrap();
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let dial = there.connect(listener.local_addr(), &["test"], credential());
        let (accepted, dialled) = tokio::join!(accept, dial);
        (here, accepted, dialled.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_revoked_peer_is_popped() {
        let (transport, revoked, _dialled) = connected().await;
        let (_transport, other, _other_dialled) = connected().await;
        let inbox = Inbox::new(1000);
        for (connection, text) in [(&revoked, "late"), (&other, "good"), (&revoked, "late")] {
            assert!(inbox.push(connection, text.into()).await.is_ok());
        }
        transport.revoke(&TrustPolicy::reject_all()).await;
        assert_eq!(inbox.pop().await, (other.peer_identity().hash, "good".into()));
        assert_eq!(inbox.try_pop(), None);
        assert_eq!(inbox.room.available_permits(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_to_a_full_inbox_wait_in_order() {
        let (_transport, connection, _dialled) = connected().await;
        let inbox = Inbox::new(2 * MESSAGE_COST);
        let push = |text: &'static str| inbox.push(&connection, text.into());
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
