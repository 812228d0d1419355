//! Follows a resolver: a task per listed address keeps a connection with the peer at that address.

use super::inner::{Inner, Purpose};
use super::peers::{AbortOnDrop, Listed};
use super::pooled_connection::{STABLE, close_unlisted};
use crate::resolver::{Endpoint, ResolveError, Resolver};
use net_traits::{CertHash, ConnectError, NetTransport, RejectionBy};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

/// Keeps a pool following a resolver. Dropping it stops that, and leaves the connections open.
#[derive(Debug)]
#[must_use = "dropping it stops the pool from following the resolver"]
pub struct Follow {
    _stop: oneshot::Sender<()>,
}

/// Starts the task that follows `resolver`.
pub(super) fn follow<T: NetTransport>(inner: &Arc<Inner<T>>, resolver: impl Resolver) -> Follow {
    let (stop, stopped) = oneshot::channel();
    let mut peers = inner.peers.lock();
    let id = peers.next_id();
    let task = tokio::spawn(run(inner.clone(), resolver, id, stopped));
    peers.add_follow(id, AbortOnDrop(task.abort_handle()));
    Follow { _stop: stop }
}

async fn run<T: NetTransport>(
    inner: Arc<Inner<T>>,
    mut resolver: impl Resolver,
    id: u64,
    stopped: oneshot::Receiver<()>,
) {
    let mut addresses = Addresses::new(inner.clone(), id);
    tokio::select! {
        biased;
        _ = stopped => {}
        () = addresses.follow(&mut resolver) => {}
    }
    drop(addresses);
    let task = inner.peers.lock().remove_follow(id);
    drop(task); // aborts this task, which ends here
}

/// The addresses that are followed.
struct Addresses<T: NetTransport> {
    inner: Arc<Inner<T>>,
    /// The id of the resolver.
    id: u64,
    /// The last list of the resolver.
    listed: Vec<Endpoint>,
    /// Ordered, as in `Peers`.
    followed: BTreeMap<SocketAddr, Followed>,
    /// The last error, so that it is reported once.
    reported: Option<ResolveError>,
}

struct Followed {
    endpoint: Endpoint,
    /// Since when the address is not listed.
    missing_since: Option<Instant>,
    state: Arc<Mutex<AddressState>>,
    _task: AbortOnDrop,
}

/// The peer at an address. Locked before the peers of the pool.
#[derive(Default)]
struct AddressState {
    peer: Option<CertHash>,
    /// Whether the address is not followed any more. The peer must not be set then.
    is_stopped: bool,
}

impl<T: NetTransport> Addresses<T> {
    fn new(inner: Arc<Inner<T>>, id: u64) -> Self {
        Self { inner, id, listed: Vec::new(), followed: BTreeMap::new(), reported: None }
    }

    async fn follow(&mut self, resolver: &mut impl Resolver) {
        let mut failed = 0;
        loop {
            match self.expiring(resolver.resolve()).await {
                Ok(endpoints) => {
                    failed = 0;
                    self.reported = None;
                    self.listed = endpoints;
                    self.update();
                }
                Err(error) => {
                    failed += 1;
                    self.report(error);
                    let delay = self.inner.config.delay(failed);
                    self.expiring(sleep(delay)).await;
                }
            }
        }
    }

    /// Waits for `future`, and meanwhile removes addresses that have been missing for too long.
    async fn expiring<O>(&mut self, future: impl Future<Output = O>) -> O {
        let mut future = pin!(future);
        loop {
            let linger = self.inner.config.removal_delay;
            let missing = self.followed.values().filter_map(|it| it.missing_since);
            let expiry = missing.min().and_then(|since| since.checked_add(linger));
            let expired = async {
                match expiry {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = expired => self.update(),
            }
        }
    }

    /// Starts and stops tasks, so that there is one for each listed address.
    fn update(&mut self) {
        let now = Instant::now();
        let listed: HashMap<_, _> = self.listed.iter().map(|it| (it.address, *it)).collect();
        for (address, followed) in &mut self.followed {
            followed.missing_since = match listed.get(address) {
                Some(_) => None,
                None => Some(followed.missing_since.unwrap_or(now)),
            };
        }
        let linger = self.inner.config.removal_delay;
        let is_expired = |it: &Followed| it.missing_since.is_some_and(|at| now - at >= linger);
        let is_other = |it: &Followed| listed.get(&it.endpoint.address) != Some(&it.endpoint);
        let is_removed =
            |it: &Followed| is_expired(it) || it.missing_since.is_none() && is_other(it);
        let (removed, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.followed).into_iter().partition(|(_, it)| is_removed(it));
        self.followed = kept;
        let mut unlisted = Vec::new();
        for (address, followed) in removed {
            tracing::debug!(%address, "an address is no longer followed");
            self.inner.events.pending().reached(address);
            if let Some(peer) = stop(&followed.state) {
                self.inner.peers.lock().unfollow(peer, self.at(address));
                unlisted.push(peer);
            }
        }
        let limit = self.inner.config.max_followed;
        for endpoint in &self.listed {
            if self.followed.len() >= limit {
                break;
            }
            let (inner, at) = (&self.inner, self.at(endpoint.address));
            let followed = self.followed.entry(at.address);
            followed.or_insert_with(|| start(inner, at, listed[&at.address]));
        }
        // The peer may be listed at another address, or by its identity, which was unknown before.
        for peer in unlisted {
            let connections = self.inner.peers.lock().unlist(peer);
            connections.into_iter().for_each(close_unlisted);
        }
        if listed.keys().any(|address| !self.followed.contains_key(address)) {
            self.report(ResolveError::TooMany { listed: listed.len(), limit });
        }
    }

    fn at(&self, address: SocketAddr) -> Listed {
        Listed { resolver: self.id, address }
    }

    /// Reports an error, unless it is equal to the last one.
    fn report(&mut self, error: ResolveError) {
        if self.reported.as_ref() != Some(&error) {
            self.reported = Some(error.clone());
            self.inner.events.pending().resolve_failed(self.id, error);
            self.inner.events.wake();
        }
    }
}

impl<T: NetTransport> Drop for Addresses<T> {
    /// Forgets the addresses, and leaves the connections open.
    fn drop(&mut self) {
        for (address, followed) in &self.followed {
            if let Some(peer) = stop(&followed.state) {
                self.inner.peers.lock().unfollow(peer, self.at(*address));
            }
            self.inner.events.pending().reached(*address);
        }
        self.inner.events.pending().unfollowed(self.id);
    }
}

/// Starts to keep a connection with the peer at an address.
fn start<T: NetTransport>(inner: &Arc<Inner<T>>, at: Listed, endpoint: Endpoint) -> Followed {
    let state = Arc::new(Mutex::default());
    if let Some(peer) = endpoint.identity.filter(|peer| !inner.is_own(*peer)) {
        set(inner, &state, at, peer);
    }
    let task = tokio::spawn(keep(inner.clone(), at, endpoint, state.clone()));
    Followed { endpoint, missing_since: None, state, _task: AbortOnDrop(task.abort_handle()) }
}

/// Records which peer is at an address, unless the address is not followed any more.
fn set<T: NetTransport>(inner: &Inner<T>, state: &Mutex<AddressState>, at: Listed, peer: CertHash) {
    let mut state = state.lock();
    if !state.is_stopped {
        state.peer = Some(peer);
        inner.peers.lock().follow(peer, at, || inner.limits());
    }
}

/// Reports that an address cannot be reached, unless it is not followed any more.
fn unreachable<T: NetTransport>(
    inner: &Inner<T>,
    state: &Mutex<AddressState>,
    address: SocketAddr,
    error: ConnectError,
) {
    {
        let state = state.lock();
        if state.is_stopped {
            return;
        }
        inner.events.pending().unreachable(address, error);
    }
    inner.events.wake();
}

/// Records that the address is not followed any more, and returns the peer at it.
fn stop(state: &Mutex<AddressState>) -> Option<CertHash> {
    let mut state = state.lock();
    state.is_stopped = true;
    state.peer.take()
}

/// Keeps a connection with the peer at an address, dialling it with backoff.
async fn keep<T: NetTransport>(
    inner: Arc<Inner<T>>,
    at: Listed,
    endpoint: Endpoint,
    state: Arc<Mutex<AddressState>>,
) {
    let address = at.address;
    let (mut failed, mut is_reported) = (0, false);
    loop {
        let expected = state.lock().peer.or(endpoint.identity);
        let found = {
            let Ok(_permit) = inner.dials.acquire().await else { return };
            match expected {
                Some(peer) if inner.is_own(peer) => Ok(None),
                Some(peer) => {
                    let connected = inner.connection(peer, Purpose::Listed, address).await;
                    connected.map(|_| Some(peer))
                }
                None => inner.discover(address).await,
            }
        };
        match found {
            Ok(Some(peer)) => {
                set(&inner, &state, at, peer);
                inner.events.pending().reached(address);
                is_reported = false;
                let since = Instant::now();
                inner.disconnected(peer).await;
                failed = if since.elapsed() < STABLE { failed + 1 } else { 0 };
            }
            Ok(None) => return tracing::debug!(%address, "the address is that of this node"),
            // A peer with another identity answers at that address: accept any identity next time.
            Err(ConnectError::Rejected(rejection))
                if rejection.by == RejectionBy::Us
                    && expected.is_some()
                    && endpoint.identity.is_none() =>
            {
                let mut state = state.lock();
                if let Some(peer) = state.peer.take() {
                    inner.peers.lock().unfollow(peer, at);
                }
                continue;
            }
            Err(error) => {
                failed += 1;
                if !std::mem::replace(&mut is_reported, true) {
                    unreachable(&inner, &state, address, error);
                }
            }
        }
        if failed > 0 {
            sleep(inner.config.delay(failed)).await;
        }
    }
}
