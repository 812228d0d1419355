//! The state that the handles and the tasks of a pool share: dials, connections, their ends.

use super::config::{PeerEvent, PeerPoolConfig};
use super::peers::{AbortOnDrop, Dial, Peer, Peers, Pooled};
use futures_util::FutureExt;
use net_traits::{
    Cause, CertHash, CertificateDer, CloseReason, ConnectError, EndorsingKey, NetConnection,
    NetCredential, NetTransport, PeerIdentity, PeerVerifier, Rejection, TrustPolicy, close_code,
};
use parking_lot::{Mutex, RwLock};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// How long a redundant connection stays open, so that both sides can switch.
const LOSER_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Inner<T: NetTransport> {
    pub(super) transport: T,
    pub(super) alpn: Vec<String>,
    pub(super) credential: RwLock<NetCredential>,
    pub(super) config: PeerPoolConfig,
    pub(super) events: mpsc::Sender<PeerEvent<T::Connection>>,
    pub(super) peers: Mutex<Peers<T::Connection>>,
    /// Notified when a connection is inserted.
    pub(super) inserted: Notify,
    /// Permits for dials to addresses that a resolver lists.
    pub(super) dials: Semaphore,
}

/// A connection and its id in the pool.
pub(super) struct Found<C> {
    pub(super) id: u64,
    pub(super) connection: C,
}

/// How a connection came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The peer dialled it.
    Accepted,
    /// Of the dial of the entry with this id; void if that entry was removed.
    Attempt(u64),
    /// Of a dial to an address, of whatever identity.
    Met,
}

impl<T: NetTransport> Inner<T> {
    pub(super) fn is_own(&self, peer: CertHash) -> bool {
        self.credential.read().identity() == peer
    }

    /// Returns the connection with a peer, dialling once if there is none. With `id`, only while
    /// the entry has that id.
    pub(super) async fn connection(
        self: &Arc<Self>,
        peer: CertHash,
        id: Option<u64>,
        address: SocketAddr,
    ) -> Result<Found<T::Connection>, ConnectError> {
        let mut dialled = None;
        loop {
            let mut inserted = pin!(self.inserted.notified());
            inserted.as_mut().enable();
            let (current, dial) = {
                let mut peers = self.peers.lock();
                let entry = match id {
                    Some(id) => peers.same(peer, id),
                    None => peers.entry(peer),
                };
                let entry = entry.ok_or_else(gone)?;
                match &entry.current {
                    Some(it) => {
                        (Some(Found { id: it.id, connection: it.connection.clone() }), None)
                    }
                    None if dialled.is_some() => (None, None),
                    None => (None, Some(self.dial(entry, peer, address))),
                }
            };
            match (current, dial) {
                (Some(found), _) => match found.connection.watch_close().now_or_never() {
                    None => return Ok(found),
                    Some(reason) => self.ended(peer, found.id, reason),
                },
                (None, Some(dial)) => tokio::select! {
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
                    let over =
                        dialled.and_then(|connection| connection.watch_close().now_or_never());
                    return Err(over.map_or_else(gone, closed));
                }
            }
        }
    }

    /// Returns the connection with a peer, if there is one that has not ended.
    pub(super) fn connected(&self, peer: CertHash) -> Option<Found<T::Connection>> {
        loop {
            let found = {
                let mut peers = self.peers.lock();
                let current = peers.get(peer)?.current.as_ref()?;
                Found { id: current.id, connection: current.connection.clone() }
            };
            match found.connection.watch_close().now_or_never() {
                None => return Some(found),
                Some(reason) => self.ended(peer, found.id, reason),
            }
        }
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
            Some((going, _)) if going.peek().is_none() => going.clone(),
            _ => {
                // A separate task, so that the attempt continues if its waiters are dropped.
                let attempt = tokio::spawn(attempt(self.clone(), peer, entry.id, address));
                let task = AbortOnDrop(attempt.abort_handle());
                let result = attempt.map(|result| result.unwrap_or_else(|_| Err(gone())));
                let dial = result.boxed().shared();
                entry.dial = Some((dial.clone(), task));
                dial
            }
        }
    }

    /// Dials an address where any trusted peer may answer, and returns its identity. `None` if it
    /// is this node.
    pub(super) async fn meet(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<Option<CertHash>, ConnectError> {
        let credential = self.credential.read().clone();
        let is_own = Arc::new(AtomicBool::new(false));
        let stranger = TrustPolicy::custom(Stranger {
            own: credential.identity(),
            is_own: is_own.clone(),
            policy: credential.trust().clone(),
        });
        let connected = self.connect(address, credential.with_trust(stranger)).await;
        if is_own.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let connection = connected?;
        let peer = connection.peer_identity().hash;
        self.insert(connection, Origin::Met).map_err(closed)?;
        Ok(Some(peer))
    }

    /// Waits until there is no connection with a peer.
    pub(super) async fn disconnected(&self, peer: CertHash) {
        while let Some(Found { id, connection }) = self.connected(peer) {
            let reason = connection.watch_close().await;
            self.ended(peer, id, reason);
        }
    }

    /// Dials once.
    async fn connect(
        &self,
        address: SocketAddr,
        credential: NetCredential,
    ) -> Result<T::Connection, ConnectError> {
        let alpn: Vec<_> = self.alpn.iter().map(String::as_str).collect();
        let connection = self.transport.connect(address, &alpn, credential).await?;
        self.judge_again(&connection)?;
        Ok(connection)
    }

    /// Inserts a connection unless it has ended, so that it does not replace an open one. Those
    /// that this side dialled are reported.
    pub(super) fn insert(
        self: &Arc<Self>,
        connection: T::Connection,
        origin: Origin,
    ) -> Result<(), CloseReason> {
        if let Some(reason) = connection.watch_close().now_or_never() {
            return Err(reason);
        }
        let peer = connection.peer_identity().hash;
        let ours_stays = self.credential.read().identity() < peer;
        let (left, dial) = {
            let mut peers = self.peers.lock();
            let id = peers.next_id();
            let entry = match origin {
                Origin::Accepted | Origin::Met => peers.entry(peer),
                Origin::Attempt(id) => peers.same(peer, id),
            };
            let Some(entry) = entry else { return Ok(()) };
            let is_ours = origin != Origin::Accepted;
            if is_ours {
                // Report it before its end can be reported.
                self.tell(PeerEvent::Connected { peer, connection: connection.clone() });
            }
            let watch = tokio::spawn(watch(self.clone(), peer, id, connection.clone()));
            let watch = AbortOnDrop(watch.abort_handle());
            let new = Pooled::new(id, connection, is_ours, watch);
            let (retired, left) = entry.take_in(new, ours_stays);
            if let Some(loser) = retired {
                // If both sides retire a connection, they must not do so at the same time. The
                // later side finds that its connection is the only one left, and keeps it.
                let patience = if ours_stays { 2 * LOSER_PATIENCE } else { LOSER_PATIENCE };
                tokio::spawn(retire(Arc::downgrade(self), peer, loser, patience));
            }
            // Clear `dial` while inserting, so that later callers do not join a finished attempt.
            let attempt = matches!(origin, Origin::Attempt(_)).then(|| entry.dial.take());
            (left, attempt.flatten())
        };
        drop(dial); // the attempt's own task, which has nothing left to await
        if let Some(left) = left {
            tokio::spawn(close_loser(self.events.clone(), peer, left));
        }
        self.inserted.notify_waiters();
        Ok(())
    }

    /// The peer may have been revoked by a change of the credential during the handshake.
    fn judge_again(&self, connection: &T::Connection) -> Result<(), ConnectError> {
        let trust = self.credential.read().trust().clone();
        let Some(certificate) = connection.remote_certificate() else { return Ok(()) };
        trust.verify(Some(&certificate)).map(|_| ()).map_err(|error| {
            let _ = connection.close(close_code::REVOKED, "no longer trusted").now_or_never();
            Rejection::by_policy(connection.remote_addr(), error).into()
        })
    }

    /// Removes a connection that has ended.
    pub(super) fn ended(&self, peer: CertHash, id: u64, reason: CloseReason) {
        let ended = {
            let mut peers = self.peers.lock();
            let Some(entry) = peers.get(peer) else { return };
            let Some(ended) = entry.take_out(id) else { return };
            let by_peer = !matches!(reason, CloseReason::Local { .. });
            entry.ended(&ended, by_peer, |failed| self.config.delay(failed));
            peers.tidy(peer);
            ended
        };
        self.tell(PeerEvent::Disconnected { peer, reason });
        drop(ended); // last: this may abort the current task
    }

    pub(super) fn tell(&self, event: PeerEvent<T::Connection>) {
        let _ = self.events.try_send(event); // the receiver may be dropped or full
    }
}

/// Removes a connection from the pool when it ends.
async fn watch<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    connection: T::Connection,
) {
    let reason = connection.watch_close().await;
    tracing::debug!(%reason, "a connection of the pool ended");
    inner.ended(peer, id, reason);
}

/// Closes a redundant connection after a delay, unless it is then the only one.
async fn retire<T: NetTransport>(
    inner: Weak<Inner<T>>,
    peer: CertHash,
    loser: u64,
    patience: Duration,
) {
    sleep(patience).await;
    let Some(inner) = inner.upgrade() else { return };
    let loser = {
        let mut peers = inner.peers.lock();
        peers.get(peer).and_then(|entry| entry.take_spare(loser))
    };
    let events = inner.events.clone();
    drop(inner);
    if let Some(loser) = loser {
        close_loser(events, peer, loser).await;
    }
}

/// Closes a connection that is no longer used, and reports its end.
async fn close_loser<C: NetConnection>(
    events: mpsc::Sender<PeerEvent<C>>,
    peer: CertHash,
    loser: Pooled<C>,
) {
    let close = loser.connection.close(close_code::DUPLICATE, "another connection is used");
    let _ = timeout(LOSER_PATIENCE, close).await; // after that it closes at once
    let reason = loser.connection.watch_close().await;
    let _ = events.try_send(PeerEvent::Disconnected { peer, reason });
}

/// Closes the connections of a removed peer.
pub(super) fn close_all<C: NetConnection>(peer: Peer<C>) {
    for connection in peer.connections() {
        // Dropping the future closes at once.
        let _ = connection.close(0, "removed from the pool").now_or_never();
    }
}

fn closed(reason: CloseReason) -> ConnectError {
    match reason {
        CloseReason::Rejected(rejection) => rejection.into(),
        reason => ConnectError::Closed(reason),
    }
}

fn gone() -> ConnectError {
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
    let expecting = TrustPolicy::custom(Expecting { peer, policy: credential.trust().clone() });
    let credential = credential.with_trust(expecting);
    let connected = inner.connect(address, credential).await;
    let result = connected.and_then(|connection| {
        inner.insert(connection.clone(), Origin::Attempt(id)).map_err(closed)?;
        Ok(connection)
    });
    if result.is_err() {
        let mut peers = inner.peers.lock();
        let dial = peers.same(peer, id).and_then(|entry| {
            entry.failed(|failed| inner.config.delay(failed));
            entry.dial.take()
        });
        peers.tidy(peer);
        drop(peers);
        drop(dial); // this task's own, which ends here
    }
    result
}

/// Trusts one peer, if the pool's policy trusts it too.
struct Expecting {
    peer: CertHash,
    policy: TrustPolicy,
}

impl PeerVerifier for Expecting {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash != self.peer {
            return Err(format!("identity {} was expected", self.peer));
        }
        self.policy.verify(Some(certificate)).map(|_| ()).map_err(|error| error.to_string())
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        self.policy.counts(key)
    }
}

/// Trusts the peers that the pool's policy trusts, but not this node.
struct Stranger {
    own: CertHash,
    /// Set if this node answers.
    is_own: Arc<AtomicBool>,
    policy: TrustPolicy,
}

impl PeerVerifier for Stranger {
    fn verify(&self, peer: &PeerIdentity, certificate: &CertificateDer<'_>) -> Result<(), String> {
        if peer.hash == self.own {
            self.is_own.store(true, Ordering::SeqCst);
            return Err("this node dialled itself".to_owned());
        }
        self.policy.verify(Some(certificate)).map(|_| ()).map_err(|error| error.to_string())
    }

    fn reads_legacy_endorsements(&self) -> bool {
        self.policy.reads_legacy_endorsements()
    }

    fn counts(&self, key: &EndorsingKey) -> bool {
        self.policy.counts(key)
    }
}
