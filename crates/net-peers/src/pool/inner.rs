//! The state that the handles and the tasks of a pool share: it dials, and inserts and removes
//! connections.

use super::config::{DropError, PeerPoolConfig};
use super::event_queue::EventQueue;
use super::inbox::Inbox;
use super::peers::{AbortOnDrop, Dial, Peer, Peers};
use super::pooled_connection::{PeerLimits, PooledConnection, Role, close_unlisted};
use super::quota::Quota;
use super::verifiers::Restricted;
use crate::recheck::recheck_trust;
use futures_util::FutureExt;
use net_traits::{
    Cause, CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetTransport,
    RecvError, TrustPolicy, close_code,
};
use parking_lot::{Mutex, RwLock};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::coop::unconstrained;

pub(super) struct Inner<T: NetTransport> {
    pub(super) transport: T,
    pub(super) alpn: Vec<String>,
    pub(super) credential: RwLock<NetCredential>,
    pub(super) config: PeerPoolConfig,
    /// Events for the application.
    pub(super) events: Arc<EventQueue<T::Connection>>,
    pub(super) inbox: Inbox<T::Connection>,
    /// Limits the bytes of the messages of all peers, until they are delivered or their reports are
    /// received.
    pub(super) held: Arc<Quota>,
    /// Locked before the pending events.
    pub(super) peers: Mutex<Peers<T::Connection>>,
    /// Notified when a connection is inserted.
    pub(super) inserted: Notify,
    /// Permits for dials to addresses that a resolver lists.
    pub(super) dials: Semaphore,
}

/// The origin of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The peer dialled it.
    Accepted,
    /// The dial of the entry with this id. The connection is aborted if that entry was removed.
    Attempt(u64),
    /// A dial to an address without a known identity.
    Discovered,
}

/// What a connection with a peer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application asks for it, and thereby keeps it although no resolver lists the peer.
    Application,
    /// The queue of the entry with this id.
    Queue(u64),
    /// A resolver lists the peer.
    Listed,
}

impl<T: NetTransport> Inner<T> {
    pub(super) fn is_own(&self, peer: CertHash) -> bool {
        self.credential.read().identity() == peer
    }

    /// Returns the connection with a peer, dialling once if there is none.
    pub(super) async fn connection(
        self: &Arc<Self>,
        peer: CertHash,
        purpose: Purpose,
        address: SocketAddr,
    ) -> Result<Arc<PooledConnection<T::Connection>>, ConnectError> {
        let mut dialled = None;
        loop {
            let mut inserted = pin!(self.inserted.notified());
            inserted.as_mut().enable();
            let (current, dial) = {
                let mut peers = self.peers.lock();
                let entry = match purpose {
                    Purpose::Queue(id) => peers.same(peer, id),
                    _ => peers.entry(peer, || self.limits()),
                };
                let entry = entry.ok_or_else(removed_error)?;
                if purpose == Purpose::Application {
                    entry.keep();
                }
                match &entry.current {
                    Some(pooled) => (Some(pooled.clone()), None),
                    None if dialled.is_some() => (None, None),
                    None => (None, Some(self.dial(entry, peer, address))),
                }
            };
            match (current, dial) {
                (Some(pooled), _) => match end(&pooled.connection) {
                    None => return Ok(pooled),
                    Some(reason) => self.ended(peer, &pooled, reason),
                },
                (None, Some(dial)) => tokio::select! {
                    biased;
                    result = dial => match result {
                        Ok(connection) => dialled = Some(connection),
                        // The peer may have connected meanwhile.
                        Err(_) if self.has_current(peer) => {}
                        Err(error) => return Err(error),
                    },
                    () = inserted => {}
                },
                // The dialled connection has left the pool. If it has ended, report its reason.
                (None, None) => {
                    let end = dialled.and_then(|connection| end(&connection));
                    return Err(end.map_or_else(removed_error, closed));
                }
            }
        }
    }

    /// Returns the connection with a peer, if there is one that has not ended.
    pub(super) fn connected(&self, peer: CertHash) -> Option<Arc<PooledConnection<T::Connection>>> {
        loop {
            let pooled = self.peers.lock().get(peer)?.current.clone()?;
            match end(&pooled.connection) {
                None => return Some(pooled),
                Some(reason) => self.ended(peer, &pooled, reason),
            }
        }
    }

    /// Creates the limits of a peer that is new to the pool.
    pub(super) fn limits(&self) -> Arc<PeerLimits> {
        let PeerPoolConfig { max_queued_messages, max_queued_bytes, max_unconfirmed_bytes, .. } =
            self.config;
        PeerLimits::new(max_queued_messages, max_queued_bytes, max_unconfirmed_bytes)
    }

    fn has_current(&self, peer: CertHash) -> bool {
        self.peers.lock().get(peer).is_some_and(|entry| entry.current.is_some())
    }

    /// Returns the attempt in progress, or starts one.
    fn dial(
        self: &Arc<Self>,
        entry: &mut Peer<T::Connection>,
        peer: CertHash,
        address: SocketAddr,
    ) -> Dial<T::Connection> {
        match &entry.dial {
            // A finished attempt belongs to a runtime that was shut down.
            Some((in_progress, _)) if in_progress.peek().is_none() => in_progress.clone(),
            _ => {
                // A separate task, so that the attempt continues if its waiters are dropped.
                let attempt = tokio::spawn(attempt(self.clone(), peer, entry.id, address));
                let task = AbortOnDrop(attempt.abort_handle());
                let result = attempt.map(|result| result.unwrap_or_else(|_| Err(removed_error())));
                let dial = result.boxed().shared();
                entry.dial = Some((dial.clone(), task));
                dial
            }
        }
    }

    /// Dials an address at which any trusted peer may answer, and returns its identity. `None` if
    /// the address is that of this node.
    pub(super) async fn discover(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<Option<CertHash>, ConnectError> {
        let credential = self.credential.read().clone();
        let (own, is_own) = (credential.identity(), Arc::new(AtomicBool::new(false)));
        let answered = is_own.clone();
        let check = move |peer| {
            if peer == own {
                answered.store(true, Ordering::SeqCst);
                return Err("this node dialled itself".to_owned());
            }
            Ok(())
        };
        let policy = credential.trust().clone();
        let stranger = TrustPolicy::custom(Restricted { policy, check });
        let connected = self.connect(address, credential.with_trust(stranger)).await;
        if is_own.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let connection = connected?;
        let peer = connection.peer_identity().hash;
        self.insert(connection, Origin::Discovered).map_err(closed)?;
        Ok(Some(peer))
    }

    /// Waits until there is no connection with a peer.
    pub(super) async fn disconnected(&self, peer: CertHash) {
        while let Some(pooled) = self.connected(peer) {
            let reason = pooled.connection.watch_close().await;
            self.ended(peer, &pooled, reason);
        }
    }

    /// Dials once.
    async fn connect(
        &self,
        address: SocketAddr,
        credential: NetCredential,
    ) -> Result<T::Connection, ConnectError> {
        let alpn: Vec<_> = self.alpn.iter().map(String::as_str).collect();
        let connected = self.transport.connect(address, &alpn, credential).await;
        // The peer may have been revoked by a change of the credential during the handshake.
        let trust = self.credential.read().trust().clone();
        let checked = connected.and_then(|it| recheck_trust(&it, &trust).map(|()| it));
        self.events.telemetry().dialled(address, checked.as_ref().map(drop));
        checked
    }

    /// Inserts a connection. One that has ended replaces none; the pool only receives what it holds.
    ///
    /// # Errors
    ///
    /// The reason if the connection has ended, or is one too many of its peer.
    pub(super) fn insert(
        self: &Arc<Self>,
        connection: T::Connection,
        origin: Origin,
    ) -> Result<(), CloseReason> {
        let ended = end(&connection);
        let (peer, runtime) = (connection.peer_identity().hash, Handle::current());
        // The identity of the pool may have changed during the handshake.
        let own = connection.local_identity().parse();
        let is_smaller = own.unwrap_or_else(|_| self.credential.read().identity()) < peer;
        let is_ours = origin != Origin::Accepted;
        let (pooled, changed, dial, superseded, unlisted, was_connected) = {
            let mut peers = self.peers.lock();
            let id = peers.next_id();
            let entry = match origin {
                Origin::Accepted | Origin::Discovered => peers.entry(peer, || self.limits()),
                Origin::Attempt(id) => peers.same(peer, id),
            };
            let Some(entry) = entry else {
                drop(peers);
                self.discard_connection(connection, 0, "removed from the pool");
                return Ok(());
            };
            let (kept, limits) = (connection.clone(), entry.limits.clone());
            let Some(pooled) = PooledConnection::new(id, kept, is_ours, is_smaller, limits) else {
                drop(peers);
                let code = close_code::TOO_MANY_PER_IDENTITY;
                return Err(self.discard_connection(connection, code, "messages wait"));
            };
            if let Some(reason) = ended {
                drop(peers);
                runtime.spawn(self.clone().run(peer, pooled));
                return Err(reason);
            }
            let was_connected = entry.current.is_some();
            let superseded = self.events.pending().uses(peer, id, &pooled.connection, None);
            let changed = entry.insert(pooled.clone());
            // Clear `dial` while inserting, so that later callers do not join a finished attempt.
            let attempt = matches!(origin, Origin::Attempt(_)).then(|| entry.dial.take());
            // A connection of the peer stays: the peer may list this node.
            let unlisted = if attempt.is_some() { entry.take_unlisted() } else { Vec::new() };
            (pooled, changed, attempt.flatten(), superseded, unlisted, was_connected)
        };
        drop((dial, superseded)); // aborts the task of the attempt, which has nothing left to await
        match was_connected {
            true => self.events.telemetry().replaced(&peer, None),
            false => self.events.telemetry().connected(&peer),
        }
        runtime.spawn(self.clone().run(peer, pooled));
        changed.iter().for_each(|pooled| pooled.notify_role_changed());
        self.events.wake();
        self.inserted.notify_waiters();
        unlisted.into_iter().for_each(close_unlisted);
        Ok(())
    }

    /// Aborts a connection that is not inserted, and reports what it holds as not received. Returns the
    /// reason.
    fn discard_connection(
        self: &Arc<Self>,
        connection: T::Connection,
        code: u64,
        reason: &str,
    ) -> CloseReason {
        connection.abort(code, reason); // does nothing if it has ended
        let reason = CloseReason::Local { code, reason: reason.to_owned() };
        tokio::spawn(self.clone().discard_received(connection, reason.clone()));
        reason
    }

    /// Reports that so many messages of a peer, at least, were not received.
    pub(super) fn receive_failed(&self, peer: CertHash, error: RecvError, messages: u64) {
        self.events.telemetry().receive_failed(&peer, &error, messages);
        self.events.pending().receive_failed(peer, error, messages);
        self.events.wake();
    }

    /// Closes the connections of a peer that is no longer listed, once each message to it is settled.
    pub(super) fn close_if_unlisted(&self, peer: CertHash) {
        let unlisted = self.peers.lock().take_unlisted(peer);
        unlisted.into_iter().for_each(close_unlisted);
    }

    /// Records that the peer sent on a connection that is not used.
    pub(super) fn received_on_spare(
        &self,
        peer: CertHash,
        pooled: &Arc<PooledConnection<T::Connection>>,
    ) {
        let (changed, superseded) = {
            let mut peers = self.peers.lock();
            let Some(entry) = peers.get(peer) else { return };
            let changed = entry.received_on_spare(pooled.id);
            if changed.is_empty() {
                return;
            }
            (changed, self.events.pending().uses(peer, pooled.id, &pooled.connection, None))
        };
        drop(superseded);
        self.events.telemetry().replaced(&peer, None);
        changed.iter().for_each(|pooled| pooled.notify_role_changed());
        self.events.wake();
    }

    /// Removes the entry of a peer if it is unused.
    pub(super) fn prune(&self, peer: CertHash) {
        self.peers.lock().prune(peer);
    }

    /// Removes a connection that is not used, if it can be closed. Returns whether it was removed.
    pub(super) fn take_dispensable(&self, peer: CertHash, id: u64) -> bool {
        let taken = self.peers.lock().get(peer).and_then(|entry| entry.take_dispensable(id));
        taken.is_some()
    }

    /// Replaces a connection on which the peer takes no data, dialling the peer if necessary.
    /// `times` selects the address. Returns whether another connection is used.
    pub(super) async fn replace_stuck(
        self: &Arc<Self>,
        peer: CertHash,
        pooled: &Arc<PooledConnection<T::Connection>>,
        times: u32,
    ) -> bool {
        let dial = {
            let mut peers = self.peers.lock();
            let Some(entry) = peers.get(peer) else { return false };
            match entry.address_after(times) {
                _ if !pooled.has_role(Role::Current) => return true,
                Some(address) => self.dial(entry, peer, address),
                None => return false,
            }
        };
        self.events.telemetry().stuck(&peer);
        dial.await.is_ok() && !pooled.has_role(Role::Current)
    }

    /// Removes a connection that has ended, and reports the messages that it may not have
    /// delivered.
    pub(super) fn ended(
        &self,
        peer: CertHash,
        pooled: &Arc<PooledConnection<T::Connection>>,
        reason: CloseReason,
    ) {
        let (removed, next, superseded) = {
            let mut peers = self.peers.lock();
            let (mut removed, mut next, mut superseded) = (None, None, None);
            if let Some(entry) = peers.get(peer) {
                removed = entry.remove(pooled.id);
                if let Some(removed) = &removed {
                    let by_peer = !matches!(reason, CloseReason::Local { .. });
                    entry.ended(removed, by_peer, |failed| self.config.delay(failed));
                    let (mut pending, cause) = (self.events.pending(), reason.clone());
                    next = entry.current.clone();
                    if removed.has_role(Role::Current) {
                        superseded = match &next {
                            Some(next) => {
                                pending.uses(peer, next.id, &next.connection, Some(cause))
                            }
                            None => pending.lost(peer, cause),
                        };
                    }
                }
                peers.prune(peer);
            }
            (removed, next, superseded)
        };
        drop(superseded);
        match (&removed, &next) {
            (Some(removed), next) if removed.has_role(Role::Current) => match next {
                Some(_) => self.events.telemetry().replaced(&peer, Some(&reason)),
                None => self.events.telemetry().lost(&peer, &reason),
            },
            _ => {}
        }
        pooled.in_flight.end(&DropError::Lost(reason));
        if removed.is_some() {
            next.iter().for_each(|next| next.notify_role_changed());
            self.events.wake();
        }
        // The messages for which the other connection stayed are reported.
        self.close_if_unlisted(peer);
    }

    /// Removes a peer: aborts its connections and reports its messages.
    pub(super) fn remove(&self, peer: CertHash) {
        const WHY: &str = "removed from the pool";
        let (removed, superseded) = {
            let mut peers = self.peers.lock();
            let Some(removed) = peers.remove(peer) else { return };
            let superseded = self.removed(peer, &removed, WHY);
            (removed, superseded)
        };
        drop(superseded);
        self.discard(peer, removed, WHY);
    }

    /// Records the removal of a peer, with the state of the pool locked. Returns the superseded connection,
    /// to be dropped after unlocking.
    pub(super) fn removed(
        &self,
        peer: CertHash,
        removed: &Peer<T::Connection>,
        why: &str,
    ) -> Option<T::Connection> {
        removed.current.as_ref()?;
        self.events.pending().lost(peer, removal(why))
    }

    /// Aborts the connections of a peer whose removal is [recorded](Self::removed), and reports its
    /// messages.
    pub(super) fn discard(&self, peer: CertHash, removed: Peer<T::Connection>, why: &str) {
        let connections = removed.connections();
        drop(removed); // reports the queued messages
        for pooled in &connections {
            pooled.in_flight.end(&DropError::Removed);
            pooled.connection.abort(0, why);
        }
        if !connections.is_empty() {
            self.events.telemetry().lost(&peer, &removal(why));
        }
        self.events.wake();
    }
}

/// Returns the reason if a connection has ended, whatever is left of the budget of the task.
fn end(connection: &impl NetConnection) -> Option<CloseReason> {
    unconstrained(connection.watch_close()).now_or_never()
}

fn closed(reason: CloseReason) -> ConnectError {
    match reason {
        CloseReason::Rejected(rejection) => rejection.into(),
        reason => ConnectError::Closed(reason),
    }
}

/// Returns why the connections of a removed peer end.
fn removal(why: &str) -> CloseReason {
    CloseReason::Local { code: 0, reason: why.to_owned() }
}

fn removed_error() -> ConnectError {
    ConnectError::Closed(CloseReason::Transport(Cause::new("the peer was removed from the pool")))
}

/// Performs one dial attempt.
async fn attempt<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    address: SocketAddr,
) -> Result<T::Connection, ConnectError> {
    let credential = inner.credential.read().clone();
    let check = move |found| match found == peer {
        true => Ok(()),
        false => Err(format!("identity {peer} was expected")),
    };
    let policy = credential.trust().clone();
    let expecting = TrustPolicy::custom(Restricted { policy, check });
    let credential = credential.with_trust(expecting);
    let connected = inner.connect(address, credential).await;
    let result = connected.and_then(|connection| {
        inner.insert(connection.clone(), Origin::Attempt(id)).map_err(closed)?;
        Ok(connection)
    });
    if result.is_err() {
        let mut peers = inner.peers.lock();
        let ended = peers.same(peer, id).map(|entry| {
            entry.failed(|failed| inner.config.delay(failed));
            (entry.dial.take(), entry.take_unlisted())
        });
        peers.prune(peer);
        drop(peers);
        let (dial, unlisted) = ended.unwrap_or_default();
        unlisted.into_iter().for_each(close_unlisted);
        drop(dial); // aborts this task, which ends here
    }
    result
}
