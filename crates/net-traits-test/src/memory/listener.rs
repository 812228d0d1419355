//! `MemoryListener` and `MemoryIncomingRequest`.

use super::connection::{MemoryConnection, Seat};
use super::host::Host;
use super::network::NetworkListener;
use super::wire::Side;
use async_trait::async_trait;
use net_kit::admission::{self, Place};
use net_kit::coop;
use net_kit::facts::ConnectionFacts;
use net_kit::telemetry;
use net_traits::{
    AcceptError, Cause, CertHash, CertificateDer, CloseReason, ConnectError, ListenError,
    NetCredential, NetIncomingRequest, NetListener, PeerIdentity, Rejection, RejectionBy,
    TrustPolicy,
};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// How many attempts may wait to be accepted.
const BACKLOG: usize = 256;

/// A connection attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) host: Arc<Host>,
    /// The number of revocations of the dialler before it dialled.
    pub(super) revocations: u64,
    pub(super) from: SocketAddr,
    pub(super) certificate: Option<CertificateDer<'static>>,
    pub(super) identity: Option<CertHash>,
    pub(super) trust: TrustPolicy,
    pub(super) alpn: Vec<String>,
    /// Dropped if the attempt is rejected.
    pub(super) answer: oneshot::Sender<Result<MemoryConnection, ConnectError>>,
}

/// The negotiated properties of a connection.
struct Agreed {
    alpn: String,
    listener: PeerIdentity,
    dialler: PeerIdentity,
}

/// The errors of both sides of a failed handshake.
struct Disagreement {
    dialler: ConnectError,
    listener: ConnectError,
}

impl Attempt {
    /// Performs the handshake: selects a protocol, and lets each side verify the other.
    fn agree(
        &self,
        alpn: &[String],
        credential: &NetCredential,
        local_addr: SocketAddr,
    ) -> Result<Agreed, Box<Disagreement>> {
        let Some(alpn) = alpn.iter().find(|name| self.alpn.contains(name)) else {
            let none = |remote_addr, offered: &[String]| ConnectError::NoCommonAlpn {
                remote_addr,
                offered: offered.to_vec(),
            };
            let (dialler, listener) = (none(local_addr, &self.alpn), none(self.from, alpn));
            return Err(Box::new(Disagreement { dialler, listener }));
        };
        let by_peer = |remote_addr, identity| {
            let rejection = Rejection::new(RejectionBy::Peer, remote_addr, "it is not trusted");
            rejection.with_identity(identity).into()
        };
        // The dialler verifies the listener's certificate first.
        let listener =
            self.trust.verify(credential.certificate_chain().first()).map_err(|error| {
                Box::new(Disagreement {
                    dialler: Rejection::by_policy(local_addr, error).into(),
                    listener: by_peer(self.from, Some(credential.identity())),
                })
            })?;
        let dialler = credential.trust().verify(self.certificate.as_ref()).map_err(|error| {
            Box::new(Disagreement {
                dialler: by_peer(local_addr, self.identity),
                listener: Rejection::by_policy(self.from, error).into(),
            })
        })?;
        Ok(Agreed { alpn: alpn.clone(), listener, dialler })
    }
}

/// The queue of attempts that wait to be accepted.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<VecDeque<(Attempt, Place)>>,
    arrived: Notify,
    /// The host of the listener; `None` once the listener is closed.
    host: Mutex<Option<Arc<Host>>>,
}

impl Backlog {
    pub(super) fn new(host: &Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host: Mutex::new(Some(host.clone())), ..Self::default() })
    }

    /// Queues an attempt, or rejects it if the queue is full.
    pub(super) fn push(&self, attempt: Attempt) {
        let Some(host) = self.host.lock().clone() else { return };
        let Ok(place) = host.registry.admission().admit(attempt.from) else { return };
        let refused = {
            let mut waiting = self.waiting.lock();
            // Cancelled attempts free their places.
            waiting.retain(|(attempt, _)| !attempt.answer.is_closed());
            if waiting.len() < BACKLOG {
                waiting.push_back((attempt, place));
                None
            } else {
                Some((attempt, place))
            }
        };
        drop(refused);
        self.arrived.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.host.lock().is_none()
    }
}

impl NetworkListener for Backlog {
    fn close(&self) {
        let _host = self.host.lock().take();
        let _waiting = std::mem::take(&mut *self.waiting.lock());
        self.arrived.notify_waiters();
    }
}

/// A listener of [`MemoryTransport`](crate::memory::MemoryTransport).
#[derive(Debug)]
pub struct MemoryListener {
    pub(super) host: Arc<Host>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) local_addr: SocketAddr,
    pub(super) alpn: Vec<String>,
    pub(super) credential: Arc<RwLock<NetCredential>>,
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.host.network.forget_listener(self.local_addr);
        self.backlog.close();
    }
}

#[async_trait]
impl NetListener for MemoryListener {
    type Connection = MemoryConnection;
    type IncomingRequest = MemoryIncomingRequest;

    async fn accept(&self) -> Result<MemoryIncomingRequest, AcceptError> {
        coop::spend().await;
        loop {
            let arrived = self.backlog.arrived.notified();
            if self.backlog.is_closed() {
                return Err(AcceptError::Closed);
            }
            let next = self.backlog.waiting.lock().pop_front();
            if let Some((attempt, place)) = next {
                self.backlog.arrived.notify_one(); // there may be more attempts for other waiters
                return Ok(MemoryIncomingRequest {
                    telemetry: place.attempt(),
                    attempt,
                    place,
                    host: self.host.clone(),
                    local_addr: self.local_addr,
                    alpn: self.alpn.clone(),
                    credential: self.credential.clone(),
                });
            }
            arrived.await;
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        *self.credential.write() = credential;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut credential = self.credential.write();
        *credential = credential.with_trust(trust);
    }
}

/// A connection attempt at a [`MemoryListener`].
#[derive(Debug)]
pub struct MemoryIncomingRequest {
    attempt: Attempt,
    place: Place,
    telemetry: telemetry::Attempt,
    host: Arc<Host>,
    local_addr: SocketAddr,
    alpn: Vec<String>,
    credential: Arc<RwLock<NetCredential>>,
}

#[async_trait]
impl NetIncomingRequest for MemoryIncomingRequest {
    type Connection = MemoryConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.attempt.from
    }

    fn refuse(self, _code: u64) {
        self.telemetry.refused();
    }

    async fn accept(self) -> Result<MemoryConnection, ConnectError> {
        let Self { attempt, place, telemetry, host, local_addr, alpn, credential } = self;
        let accepted = Self::handshake(attempt, place, host, local_addr, alpn, credential);
        telemetry.watch(async { accepted }).await
    }
}

impl MemoryIncomingRequest {
    fn handshake(
        attempt: Attempt,
        mut place: Place,
        host: Arc<Host>,
        local_addr: SocketAddr,
        alpn: Vec<String>,
        credential: Arc<RwLock<NetCredential>>,
    ) -> Result<MemoryConnection, ConnectError> {
        // Count first: a revocation after this line applies to this handshake even if it uses the
        // old credential.
        let revocations = host.registry.revocations();
        let credential = credential.read().clone();
        let agreed = match attempt.agree(&alpn, &credential, local_addr) {
            Ok(agreed) => agreed,
            Err(disagreement) => {
                let Disagreement { dialler, listener } = *disagreement;
                let _ = attempt.answer.send(Err(dialler)); // the peer may have cancelled
                return Err(listener);
            }
        };
        let Agreed { alpn, listener, dialler: peer } = agreed;
        let Attempt { host: dialler, from, certificate, answer, .. } = attempt;
        if let Err(limit) = place.complete() {
            return Err(ConnectError::Closed(admission::close_reason(limit))); // the peer is refused
        }
        let ours = credential.certificate_chain().first().cloned();
        let wire = host.network.wire([dialler.ip, host.ip], [&dialler.limits, &host.limits]);
        let (dialler_hash, listener_hash) = (peer.hash, listener.hash);
        let facts =
            ConnectionFacts::new(from, local_addr, dialler_hash, listener, ours, alpn.clone());
        let limits = dialler.limits.clone();
        let seat = Seat { wire: wire.clone(), side: Side::Dialler, limits };
        let dialled =
            MemoryConnection::new(&dialler.registry, seat, facts, attempt.revocations, None);
        let facts = ConnectionFacts::new(local_addr, from, listener_hash, peer, certificate, alpn);
        let seat = Seat { wire, side: Side::Listener, limits: host.limits.clone() };
        let accepted = MemoryConnection::new(&host.registry, seat, facts, revocations, Some(place));
        match answer.send(Ok(dialled)) {
            Ok(()) => Ok(accepted),
            Err(_) => Err(ConnectError::Closed(CloseReason::Transport(Cause::new(
                "the peer cancelled the handshake",
            )))),
        }
    }
}
