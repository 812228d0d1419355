//! The transport of `docs/implementing-a-transport.md`: peers in one process over channels.

use async_trait::async_trait;
use bytes::Bytes;
use net_kit::alpn::protocol_names;
use net_traits::{
    AcceptError, CertificateDer, CloseReason, ConnectError, ListenError, NetConnection,
    NetCredential, NetIncomingRequest, NetListener, NetTransport, PeerIdentity, RecvError,
    Rejection, RejectionBy, SendError, TrustError,
};
use net_traits_test::{Harness, Limits};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Capacity of the message queue.
const QUEUE: usize = 64;

/// Capacity of the accept queue.
const BACKLOG: usize = 64;

/// The listeners, by port.
type Ports = Arc<Mutex<HashMap<u16, mpsc::Sender<Knock>>>>;

#[derive(Debug, Clone)]
struct Local {
    ports: Ports,
    limits: Limits,
}

/// What a dialler sends to a listener instead of packets.
#[derive(Debug)]
struct Knock {
    from: SocketAddr,
    credential: NetCredential,
    alpn: Vec<String>,
    answer: oneshot::Sender<Result<Connection, ConnectError>>,
}

/// One end of a connection. Clones share the end.
#[derive(Debug, Clone)]
struct Connection(Arc<End>);

#[derive(Debug)]
struct End {
    addresses: [SocketAddr; 2],
    local_identity: String,
    remote_identity: String,
    peer: PeerIdentity,
    certificate: Option<CertificateDer<'static>>,
    alpn: String,
    limit: usize,
    outgoing: mpsc::Sender<Bytes>,
    /// Locked by the receiving task; other receivers wait.
    incoming: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
    /// The reason of the end as seen by this end, and by the other end.
    over: watch::Sender<Option<CloseReason>>,
    over_there: watch::Sender<Option<CloseReason>>,
}

#[derive(Debug)]
struct Listener {
    ports: Ports,
    address: SocketAddr,
    alpn: Vec<String>,
    credential: NetCredential,
    limits: Limits,
    knocks: tokio::sync::Mutex<mpsc::Receiver<Knock>>,
}

struct Request {
    knock: Knock,
    address: SocketAddr,
    alpn: Vec<String>,
    credential: NetCredential,
    limits: Limits,
}

#[async_trait]
impl NetTransport for Local {
    type Connection = Connection;
    type Listener = Listener;

    async fn create_listener(
        &self,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Listener, ListenError> {
        let alpn = protocol_names(alpn).map_err(ListenError::InvalidInput)?;
        let (sender, knocks) = mpsc::channel(BACKLOG);
        let mut ports = self.ports.lock().unwrap();
        let free = || (1..=u16::MAX).find(|port| !ports.contains_key(port));
        let port = match bind_addr.port() {
            0 => free().ok_or(ListenError::AddressInUse(bind_addr))?,
            port if ports.contains_key(&port) => return Err(ListenError::AddressInUse(bind_addr)),
            port => port,
        };
        ports.insert(port, sender);
        let address = SocketAddr::new(bind_addr.ip(), port);
        let (ports, limits) = (self.ports.clone(), self.limits.clone());
        let knocks = tokio::sync::Mutex::new(knocks);
        Ok(Listener { ports, address, alpn, credential, limits, knocks })
    }

    async fn connect(
        &self,
        remote_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
    ) -> Result<Connection, ConnectError> {
        let alpn = protocol_names(alpn).map_err(ConnectError::InvalidInput)?;
        let refused = || ConnectError::Refused(remote_addr);
        let listener = self.ports.lock().unwrap().get(&remote_addr.port()).cloned();
        let (answer, answered) = oneshot::channel();
        let from = SocketAddr::new(remote_addr.ip(), 0);
        let knock = Knock { from, credential, alpn, answer };
        listener.ok_or_else(refused)?.try_send(knock).map_err(|_| refused())?;
        let after = self.limits.handshake_timeout;
        match timeout(after, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(refused())),
            Err(_) => Err(ConnectError::TimedOut { remote_addr, after }),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ports.lock().unwrap().remove(&self.address.port());
    }
}

#[async_trait]
impl NetListener for Listener {
    type Connection = Connection;
    type IncomingRequest = Request;

    async fn accept(&self) -> Result<Request, AcceptError> {
        let knock = self.knocks.lock().await.recv().await.ok_or(AcceptError::Closed)?;
        Ok(Request {
            knock,
            address: self.address,
            alpn: self.alpn.clone(),
            credential: self.credential.clone(),
            limits: self.limits.clone(),
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl NetIncomingRequest for Request {
    type Connection = Connection;

    fn remote_addr(&self) -> SocketAddr {
        self.knock.from
    }

    fn refuse(self, _code: u64) {}

    async fn accept(self) -> Result<Connection, ConnectError> {
        let (told, result) = match self.handshake() {
            Ok([dialled, accepted]) => (Ok(dialled), Ok(accepted)),
            Err([told, error]) => (Err(told), Err(error)),
        };
        // The dialler may have cancelled; then its end is dropped here, and closes.
        let _ = self.knock.answer.send(told);
        result
    }
}

impl Request {
    /// Returns the ends of a new connection, or the errors of the dialler and the listener.
    #[expect(clippy::result_large_err, reason = "it is created once")]
    fn handshake(&self) -> Result<[Connection; 2], [ConnectError; 2]> {
        let Self { knock, address, alpn, credential, limits } = self;
        let both = [*address, knock.from];
        let Some(alpn) = alpn.iter().find(|name| knock.alpn.contains(name)) else {
            let none = |remote_addr, offered: &[String]| ConnectError::NoCommonAlpn {
                remote_addr,
                offered: offered.to_vec(),
            };
            return Err([none(both[0], &knock.alpn), none(both[1], alpn)]);
        };
        let judge = |judge: &NetCredential, shown: &NetCredential| {
            judge.trust().verify(shown.certificate_chain().first())
        };
        let listener = judge(&knock.credential, credential).map_err(|error| {
            [
                rejection(RejectionBy::Us, both[0], &error),
                rejection(RejectionBy::Peer, both[1], &error),
            ]
        })?;
        let dialler = judge(credential, &knock.credential).map_err(|error| {
            [
                rejection(RejectionBy::Peer, both[0], &error),
                rejection(RejectionBy::Us, both[1], &error),
            ]
        })?;

        let (there, from_dialler) = mpsc::channel(QUEUE);
        let (back, from_listener) = mpsc::channel(QUEUE);
        let (over_at_dialler, over_at_listener) =
            (watch::Sender::default(), watch::Sender::default());
        let dialled = End {
            addresses: [knock.from, *address],
            local_identity: knock.credential.identity().to_string(),
            remote_identity: listener.hash.to_string(),
            peer: listener,
            certificate: credential.certificate_chain().first().cloned(),
            alpn: alpn.clone(),
            limit: limits.max_message_size,
            outgoing: there,
            incoming: from_listener.into(),
            over: over_at_dialler.clone(),
            over_there: over_at_listener.clone(),
        };
        let accepted = End {
            addresses: [*address, knock.from],
            local_identity: credential.identity().to_string(),
            remote_identity: dialler.hash.to_string(),
            peer: dialler,
            certificate: knock.credential.certificate_chain().first().cloned(),
            alpn: alpn.clone(),
            limit: limits.max_message_size,
            outgoing: back,
            incoming: from_dialler.into(),
            over: over_at_listener,
            over_there: over_at_dialler,
        };
        Ok([Connection(Arc::new(dialled)), Connection(Arc::new(accepted))])
    }
}

fn rejection(by: RejectionBy, remote_addr: SocketAddr, error: &TrustError) -> ConnectError {
    Rejection::new(by, remote_addr, error.to_string()).with_identity(error.identity()).into()
}

impl End {
    /// Ends the connection on both sides; the first end counts.
    fn end(&self, code: u64, reason: &str) {
        let set = |over: &watch::Sender<Option<CloseReason>>, end: CloseReason| {
            over.send_if_modified(|over| over.is_none() && over.replace(end).is_none())
        };
        let reason = reason.to_owned();
        if set(&self.over, CloseReason::Local { code, reason: reason.clone() }) {
            set(&self.over_there, CloseReason::Peer { code, reason });
        }
    }

    async fn over(&self) -> CloseReason {
        let mut over = self.over.subscribe();
        let reason = over.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or(CloseReason::TimedOut) // the sender lives as long as `self`
    }

    fn check(&self, message: &Bytes) -> Result<(), SendError> {
        if let Some(reason) = &*self.over.borrow() {
            return Err(SendError::Closed(reason.clone()));
        }
        let (size, limit) = (message.len(), self.limit);
        if size > limit { Err(SendError::TooLarge { size, limit }) } else { Ok(()) }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.end(0, "");
    }
}

#[async_trait]
impl NetConnection for Connection {
    fn local_addr(&self) -> SocketAddr {
        self.0.addresses[0]
    }

    fn remote_addr(&self) -> SocketAddr {
        self.0.addresses[1]
    }

    fn local_identity(&self) -> &str {
        &self.0.local_identity
    }

    fn remote_identity(&self) -> &str {
        &self.0.remote_identity
    }

    fn peer_identity(&self) -> &PeerIdentity {
        &self.0.peer
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.certificate.clone()
    }

    fn alpn_negotiated(&self) -> &str {
        &self.0.alpn
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.0.check(&message)?;
        tokio::select! {
            biased;
            reason = self.0.over() => Err(SendError::Closed(reason)),
            // Cancel-safe: wait for a slot first, then send without waiting.
            place = self.0.outgoing.reserve() => match place {
                Ok(place) => {
                    place.send(message);
                    Ok(())
                }
                Err(_) => Err(SendError::Closed(self.0.over().await)),
            },
        }
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        self.0.check(&message)?;
        self.0.outgoing.try_send(message).map_err(|_| SendError::WouldBlock)
    }

    async fn flush(&self) -> Result<(), SendError> {
        Ok(()) // queued messages are already at the peer
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let mut incoming = self.0.incoming.lock().await;
        tokio::select! {
            biased;
            // First received messages, then the end. Dropping the other end closes the channel.
            Some(message) = incoming.recv() => Ok((message, Duration::ZERO)),
            // Both may have arrived after the first check.
            reason = self.0.over() => match incoming.try_recv() {
                Ok(message) => Ok((message, Duration::ZERO)),
                Err(_) => Err(RecvError::Closed(reason)),
            },
        }
    }

    async fn close(&self, code: u64, reason: &str) {
        self.0.end(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        self.0.over().await
    }
}

#[derive(Default)]
struct InOneProcess(Ports);

impl Harness for InOneProcess {
    type Transport = Local;

    fn transport(&self, limits: &Limits) -> Local {
        Local { ports: self.0.clone(), limits: limits.clone() }
    }
}

net_traits_test::conformance!(
    InOneProcess::default(),
    without: [raw_peer, anonymous_peer, hot_reload, revocation, connection_limit, timeouts],
);
