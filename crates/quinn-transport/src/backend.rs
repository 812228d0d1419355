//! Listens, dials and closes with quinn.

use crate::config::QuinnConfig;
use crate::congestion;
use crate::drive;
use crate::native::{Native, Quinn, ended, varint};
use crate::request::{self, Question};
use crate::socket::Socket;
use futures_util::FutureExt;
use net_kit::admission::{self, ListenerAdmission, Place};
use net_kit::alpn::versions;
use net_kit::backend::{
    Backend, Lanes, Secured, Session, Urgent, bind_udp, cannot_listen, source_addr, unspecified,
};
use net_kit::coop;
use net_kit::handshake::Handshake;
use net_kit::telemetry::Sample;
use net_kit::tls::{self, TlsIdentity, Verifier, unusable};
use net_traits::{
    Bytes, Cause, CertificateDer, CloseOutcome, CloseReason, ConnectError, CredentialError, Limit,
    ListenError, RequestError, close_code::sent_reason,
};
use parking_lot::Mutex;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connecting, Endpoint, Incoming, Runtime, ServerConfig, TokioRuntime};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// How many bytes of further packets quinn buffers for an attempt that waits for `accept`: a ClientHello may
/// take a second packet.
const EARLY_BYTES: u64 = 4 * 1024;

impl Urgent for Quinn {}

impl Backend for Quinn {
    const NAME: &'static str = "quinn";
    const CONFIRMED: CloseOutcome = CloseOutcome::Acknowledged;

    type Config = QuinnConfig;
    type Socket = Endpoint;
    type Attempt = Incoming;
    type Native = Native;
    type Io = ();
    type Question = Question;

    fn new(config: &QuinnConfig) -> Self {
        let (transport, endpoint) = (Arc::new(config.transport()), config.endpoint());
        let (diallers, separated) = (Mutex::default(), Arc::default());
        Self { transport, endpoint, backlog: config.backlog, diallers, separated }
    }

    fn lanes(config: &QuinnConfig) -> Lanes {
        Lanes { ordinary: config.send_streams, has_urgent: true, has_receipts: true }
    }

    async fn listen(
        &self,
        bind_addr: SocketAddr,
        alpn: &[String],
        identity: &TlsIdentity,
    ) -> Result<(Endpoint, SocketAddr), ListenError> {
        let (mut config, _) = self.server(&versions(alpn), identity)?;
        config
            .max_incoming(self.backlog)
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES * self.backlog as u64);
        self.bind(bind_addr, Some(config))
            .and_then(|endpoint| Ok((endpoint.clone(), endpoint.local_addr()?)))
            .map_err(|error| cannot_listen(bind_addr, error))
    }

    async fn accept(
        endpoint: &Endpoint,
        listener: &ListenerAdmission,
    ) -> Option<(Incoming, SocketAddr)> {
        loop {
            let incoming = endpoint.accept().await?;
            // quinn keeps a connection for three probe timeouts after its end (RFC 9000, section 10.2). Its peer
            // can make them long.
            listener.set_open(endpoint.open_connections());
            if !listener.admission().is_under_pressure() || !incoming.may_retry() {
                let remote_addr = incoming.remote_address();
                return Some((incoming, remote_addr));
            }
            let _ = incoming.retry(); // it may retry
            coop::spend().await;
        }
    }

    /// Rejects the attempt. The code cannot be sent before the handshake.
    fn refuse(attempt: Incoming, _code: u64) {
        attempt.refuse();
    }

    fn stop(endpoint: Endpoint) {
        endpoint.set_server_config(None); // later attempts are ignored
        while let Some(Some(incoming)) = endpoint.accept().now_or_never() {
            incoming.refuse();
        }
    }

    async fn handshake(
        &self,
        attempt: Incoming,
        local_addr: SocketAddr,
        identity: &TlsIdentity,
        handshake: &Handshake,
        place: Place,
    ) -> Result<(Secured<Self>, Place), ConnectError> {
        let (config, verifier) = self.server(&versions(&handshake.alpn), identity)?;
        let failed = |error| handshake.failed(verifier.verdict(), ended(error));
        let connecting = attempt.accept_with(Arc::new(config)).map_err(failed)?;
        let secured = self.complete(connecting, handshake, &verifier, local_addr).await?;
        Ok((secured, place))
    }

    fn reject(Secured { native, .. }: Secured<Self>, limit: Limit, _place: Place) {
        native.connection.close(varint(limit.code()), admission::reason(limit).as_bytes());
    }

    async fn dial(
        &self,
        identity: &TlsIdentity,
        handshake: &Handshake,
    ) -> Result<Secured<Self>, ConnectError> {
        let (config, verifier) = identity.client(&versions(&handshake.alpn))?;
        let mut config =
            ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(unusable)?));
        config.transport_config(self.transport.clone());
        let failed = |error| ConnectError::Closed(CloseReason::Transport(Cause::new(error)));
        let (connecting, local_addr) =
            self.connect(config, handshake.remote_addr).map_err(failed)?;
        self.complete(connecting, handshake, &verifier, local_addr).await
    }

    async fn drive(session: Arc<Session<Self>>, (): (), handshake: Handshake) {
        drive::drive(&session, &handshake).await;
    }

    fn abort(session: &Session<Self>, code: u64, reason: &str) {
        let Native { connection, .. } = session.native();
        if connection.close_reason().is_none() && session.native().begin_close() {
            session.abort_lanes(code, reason);
            congestion::open(connection);
            connection.close(varint(code), sent_reason(reason).as_bytes());
        }
    }

    /// Returns the current address: the peer may have migrated.
    fn remote_addr(native: &Native) -> Option<SocketAddr> {
        Some(native.connection.remote_address())
    }

    /// Counts sent STREAM frames: quinn sends them while the peer takes data.
    fn progress(native: &Native) -> u64 {
        native.connection.stats().frame_tx.stream
    }

    fn path(native: &Native) -> Sample {
        let path = native.connection.stats().path;
        let (packets_sent, packets_lost) = (path.sent_packets, path.lost_packets);
        Sample { rtt: Some(path.rtt), packets_sent, packets_lost, queued: 0 }
    }

    async fn ended(session: &Session<Self>) {
        session.native().connection.closed().await;
    }

    fn unread(session: &Session<Self>) -> Option<usize> {
        let Native { connection, unread, .. } = session.native();
        let config = session.config();
        let (stats, has_ended) = (connection.stats(), connection.close_reason().is_some());
        Some(unread.bytes(&stats, has_ended, config.stream_window(), config.maximum_mtu))
    }

    fn datagram_queue(config: &QuinnConfig) -> usize {
        config.datagram_queue
    }

    fn max_datagram_size(native: &Native) -> Option<usize> {
        native.connection.max_datagram_size()
    }

    /// One that cannot be sent for another reason is lost.
    fn send_datagram(native: &Native, datagram: Bytes) -> bool {
        native.connection.send_datagram_wait(datagram).now_or_never().is_some()
    }

    async fn request(session: &Session<Self>, question: Bytes) -> Result<Bytes, RequestError> {
        request::ask(session, question).await
    }

    async fn accept_request(session: &Session<Self>) -> Result<Question, RequestError> {
        Ok(session.questions().accept().await)
    }
}

impl Quinn {
    /// Creates the configuration of one handshake as the server.
    fn server(
        &self,
        alpn: &[String],
        identity: &TlsIdentity,
    ) -> Result<(ServerConfig, Arc<Verifier>), CredentialError> {
        let (config, verifier) = identity.server(alpn)?;
        let config = QuicServerConfig::try_from(config).map_err(unusable)?;
        let mut config = ServerConfig::with_crypto(Arc::new(config));
        config.transport_config(self.transport.clone());
        Ok((config, verifier))
    }

    /// Begins to connect. Also returns the local address.
    fn connect(
        &self,
        config: ClientConfig,
        remote_addr: SocketAddr,
    ) -> io::Result<(Connecting, SocketAddr)> {
        let mut local_addr = source_addr(remote_addr)?;
        let dialler = &mut self.diallers.lock()[usize::from(remote_addr.is_ipv6())];
        loop {
            let is_new = dialler.is_none();
            let endpoint = match dialler {
                Some(endpoint) => endpoint,
                None => dialler.insert(self.bind(unspecified(remote_addr), None)?),
            };
            let name = remote_addr.ip().to_string();
            match endpoint.connect_with(config.clone(), remote_addr, &name) {
                // The runtime of the endpoint has ended.
                Err(quinn::ConnectError::EndpointStopping) if !is_new => *dialler = None,
                Err(error) => return Err(io::Error::other(error)),
                Ok(connecting) => {
                    local_addr.set_port(endpoint.local_addr()?.port());
                    return Ok((connecting, local_addr));
                }
            }
        }
    }

    fn bind(&self, addr: SocketAddr, server: Option<ServerConfig>) -> io::Result<Endpoint> {
        let socket = TokioRuntime.wrap_udp_socket(bind_udp(addr)?)?;
        let datagram = self.endpoint.get_max_udp_payload_size() as usize;
        let socket = Arc::new(Socket::new(socket, self.separated.clone(), datagram));
        let (config, runtime) = (self.endpoint.clone(), Arc::new(TokioRuntime));
        Endpoint::new_with_abstract_socket(config, server, socket, runtime)
    }

    /// Completes a handshake.
    async fn complete(
        &self,
        connecting: Connecting,
        handshake: &Handshake,
        verifier: &Verifier,
        bound: SocketAddr,
    ) -> Result<Secured<Quinn>, ConnectError> {
        let connection =
            connecting.await.map_err(|error| handshake.failed(verifier.verdict(), ended(error)))?;
        let certificates =
            connection.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'_>>>().ok());
        let data = connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
        let alpn = data.and_then(|data| data.protocol);
        let local_addr = (connection.local_ip().unwrap_or(bound.ip()), bound.port()).into();
        let certificates = certificates.as_deref().map(Vec::as_slice);
        let facts = tls::facts(handshake, local_addr, verifier, certificates, alpn.as_deref())?;
        Ok(Secured { native: Native::new(connection, &self.separated), io: (), facts })
    }
}
