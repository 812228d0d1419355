//! `Context`: the state that the connections and listeners of a transport share, and its sockets.

use crate::config::QuinnConfig;
use crate::connection::Shared;
use futures_util::FutureExt;
use net_kit::admission::Admission;
use net_kit::handshake::Handshake;
use net_kit::registry::Registry;
use net_kit::telemetry::Telemetry;
use net_kit::tls::TlsIdentity;
use parking_lot::Mutex;
use quinn::{Connecting, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};

/// State that the connections and listeners of a transport share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<QuinnConfig>,
    pub(crate) registry: Arc<Registry<Shared>>,
    pub(crate) transport: Arc<TransportConfig>,
    /// The endpoints that dial, for IPv4 and for IPv6.
    diallers: Arc<Mutex<[Option<Endpoint>; 2]>>,
    pub(crate) listeners: Arc<Mutex<Vec<Weak<Socket>>>>,
}

impl Context {
    pub(crate) fn new(config: QuinnConfig) -> Self {
        let telemetry = Telemetry::new("quinn");
        let admission = Admission::new(config.connection_limits(), telemetry.clone());
        Self {
            registry: Registry::new(admission, telemetry),
            transport: Arc::new(config.transport()),
            config: Arc::new(config),
            diallers: Arc::default(),
            listeners: Arc::default(),
        }
    }

    /// Returns what each connection needs.
    pub(crate) fn parts(&self) -> (&Arc<QuinnConfig>, &Arc<Registry<Shared>>) {
        (&self.config, &self.registry)
    }

    pub(crate) fn handshake(
        &self,
        identity: &TlsIdentity,
        remote_addr: SocketAddr,
        alpn: Vec<String>,
    ) -> Handshake {
        let local_identity = identity.credential().identity();
        Handshake::new(local_identity, remote_addr, alpn, self.config.handshake_timeout)
    }

    /// Begins to connect. Returns the endpoint's address too.
    pub(crate) fn dial(
        &self,
        config: quinn::ClientConfig,
        remote_addr: SocketAddr,
    ) -> io::Result<(Connecting, SocketAddr)> {
        let place = &mut self.diallers.lock()[usize::from(remote_addr.is_ipv6())];
        loop {
            let (endpoint, is_new) = match place {
                Some(endpoint) => (endpoint, false),
                None => (place.insert(bind(unspecified(remote_addr), None)?), true),
            };
            let name = remote_addr.ip().to_string();
            match endpoint.connect_with(config.clone(), remote_addr, &name) {
                // The runtime in which it was made has ended.
                Err(quinn::ConnectError::EndpointStopping) if !is_new => *place = None,
                Err(error) => return Err(io::Error::other(error)),
                Ok(connecting) => return Ok((connecting, endpoint.local_addr()?)),
            }
        }
    }

    pub(crate) fn add_listener(&self, endpoint: Endpoint) -> Arc<Socket> {
        let socket = Arc::new(Socket(Mutex::new(Some(endpoint))));
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&socket));
        socket
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn bind(addr: SocketAddr, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(addr)?;
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
}

/// Returns the address that binds a socket to all interfaces and an assigned port.
fn unspecified(remote_addr: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match remote_addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    (ip, 0).into()
}

/// Returns the local IP address from which the system sends to `remote_addr`.
pub(crate) fn local_ip(remote_addr: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(unspecified(remote_addr))?;
    socket.connect(remote_addr)?; // sends nothing
    Ok(socket.local_addr()?.ip())
}

/// The endpoint of a listener, until the listener is dropped or the transport shuts down. Accepted
/// connections keep its UDP socket open.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) Mutex<Option<Endpoint>>);

impl Socket {
    /// Refuses the attempts that wait, and ignores later ones.
    pub(crate) fn stop(&self) {
        let Some(endpoint) = self.0.lock().take() else { return };
        endpoint.set_server_config(None);
        while let Some(Some(incoming)) = endpoint.accept().now_or_never() {
            incoming.refuse();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop();
    }
}
