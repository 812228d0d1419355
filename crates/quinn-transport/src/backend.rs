//! How quinn listens, dials and closes.

use crate::config::QuinnConfig;
use crate::link::{Link, Quinn, varint};
use crate::request::{self, Request};
use crate::{drive, handshake};
use futures_util::FutureExt;
use net_kit::admission::{self, Admission, Place};
use net_kit::backend::{Backend, Lanes, Secured, Session, Urgent, cannot_listen, sent_reason};
use net_kit::handshake::Handshake;
use net_kit::tls::TlsIdentity;
use net_traits::{Bytes, Cause, CloseReason, ConnectError, Limit, ListenError, RequestError};
use parking_lot::Mutex;
use quinn::{
    ClientConfig, Connecting, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// How many bytes of early packets quinn keeps for an attempt that waits for `accept`.
const EARLY_BYTES: u64 = 16 * 1024;

/// The endpoint of a listener. Accepted connections keep its UDP socket open.
#[derive(Clone)]
pub struct Socket {
    endpoint: Endpoint,
    /// The configuration of handshakes, apart from TLS.
    config: ServerConfig,
    local_addr: SocketAddr,
}

/// An attempt at a socket.
pub struct Attempt {
    incoming: Incoming,
    socket: Socket,
}

impl Urgent for Quinn {}

impl Backend for Quinn {
    const NAME: &'static str = "quinn";

    type Config = QuinnConfig;
    type Socket = Socket;
    type Attempt = Attempt;
    type Link = Link;
    type Io = ();
    type Question = Request;

    fn new(config: &QuinnConfig) -> Self {
        let transport = Arc::new(config.transport());
        Self { transport, backlog: config.backlog, diallers: Mutex::default() }
    }

    fn lanes(config: &QuinnConfig) -> Lanes {
        Lanes { ordinary: config.send_streams, has_urgent: true }
    }

    async fn listen(
        &self,
        bind_addr: SocketAddr,
        alpn: &[String],
        identity: &TlsIdentity,
    ) -> Result<(Socket, SocketAddr), ListenError> {
        let (crypto, _) = handshake::server(identity, alpn)?;
        let mut config = ServerConfig::with_crypto(crypto);
        config
            .transport_config(self.transport.clone())
            .max_incoming(self.backlog)
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES * self.backlog as u64);
        let endpoint = bind(bind_addr, Some(config.clone()))
            .and_then(|endpoint| Ok((endpoint.local_addr()?, endpoint)));
        let (local_addr, endpoint) = endpoint.map_err(|error| cannot_listen(bind_addr, error))?;
        Ok((Socket { endpoint, config, local_addr }, local_addr))
    }

    async fn accept(socket: &Socket, admission: &Admission) -> Option<(Attempt, SocketAddr)> {
        loop {
            let incoming = socket.endpoint.accept().await?;
            if admission.is_under_pressure() && incoming.may_retry() {
                let _ = incoming.retry(); // it may retry
                continue;
            }
            let remote_addr = incoming.remote_address();
            return Some((Attempt { incoming, socket: socket.clone() }, remote_addr));
        }
    }

    /// Before the handshake the code cannot be sent.
    fn refuse(attempt: Attempt, _code: u64) {
        attempt.incoming.refuse();
    }

    fn stop(Socket { endpoint, .. }: Socket) {
        endpoint.set_server_config(None); // later attempts are ignored
        while let Some(Some(incoming)) = endpoint.accept().now_or_never() {
            incoming.refuse();
        }
    }

    async fn handshake(
        Attempt { incoming, socket }: Attempt,
        identity: &TlsIdentity,
        handshake: &Handshake,
        place: Place,
    ) -> Result<(Secured<Self>, Place), ConnectError> {
        let Socket { mut config, local_addr, .. } = socket;
        let (crypto, verifier) = handshake::server(identity, &handshake.alpn)?;
        config.crypto = crypto;
        let connecting = incoming
            .accept_with(Arc::new(config))
            .map_err(|error| handshake::failed(handshake, error, &verifier))?;
        let secured = handshake::complete(connecting, handshake, &verifier, local_addr).await?;
        Ok((secured, place))
    }

    fn reject(Secured { link, .. }: Secured<Self>, limit: Limit, _place: Place) {
        link.connection.close(varint(limit.code()), admission::reason(limit).as_bytes());
    }

    async fn dial(
        &self,
        identity: &TlsIdentity,
        handshake: &Handshake,
    ) -> Result<Secured<Self>, ConnectError> {
        let remote_addr = handshake.remote_addr;
        let (mut config, verifier) = handshake::client(identity, &handshake.alpn)?;
        config.transport_config(self.transport.clone());
        let (connecting, local_addr) = self
            .connect(config, remote_addr)
            .map_err(|error| ConnectError::Closed(CloseReason::Transport(Cause::new(error))))?;
        handshake::complete(connecting, handshake, &verifier, local_addr).await
    }

    async fn drive(session: Arc<Session<Self>>, (): (), handshake: Handshake) {
        drive::drive(&session, &handshake).await;
    }

    fn abort(session: &Session<Self>, code: u64, reason: &str) {
        if session.link().begin_close() {
            session.abort_lanes(code, reason);
            session.link().connection.close(varint(code), sent_reason(reason).as_bytes());
        }
    }

    /// The peer may have migrated.
    fn remote_addr(link: &Link) -> Option<SocketAddr> {
        Some(link.connection.remote_address())
    }

    /// quinn sends data of streams while the peer takes them.
    fn moved(link: &Link) -> u64 {
        link.connection.stats().frame_tx.stream
    }

    async fn request(session: &Session<Self>, question: Bytes) -> Result<Bytes, RequestError> {
        request::ask(session, question).await
    }

    async fn accept_request(session: &Session<Self>) -> Result<Request, RequestError> {
        match session.link().connection.accept_bi().await {
            Ok((write, read)) => Ok(Request::new(write, read)),
            Err(_) => Err(RequestError::Closed(session.over().await)),
        }
    }
}

impl Quinn {
    /// Begins to connect. Returns the local address too.
    fn connect(
        &self,
        config: ClientConfig,
        remote_addr: SocketAddr,
    ) -> io::Result<(Connecting, SocketAddr)> {
        let any: IpAddr = match remote_addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let probe = UdpSocket::bind((any, 0))?;
        probe.connect(remote_addr)?; // finds the address from which the system sends, and sends nothing
        let mut local_addr = probe.local_addr()?;
        let place = &mut self.diallers.lock()[usize::from(remote_addr.is_ipv6())];
        loop {
            let (endpoint, is_new) = match place {
                Some(endpoint) => (endpoint, false),
                None => (place.insert(bind((any, 0).into(), None)?), true),
            };
            let name = remote_addr.ip().to_string();
            match endpoint.connect_with(config.clone(), remote_addr, &name) {
                // The runtime in which it was made has ended.
                Err(quinn::ConnectError::EndpointStopping) if !is_new => *place = None,
                Err(error) => return Err(io::Error::other(error)),
                Ok(connecting) => {
                    local_addr.set_port(endpoint.local_addr()?.port());
                    return Ok((connecting, local_addr));
                }
            }
        }
    }
}

fn bind(addr: SocketAddr, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(addr)?;
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
}
