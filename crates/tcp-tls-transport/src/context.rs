//! `Context`: what the connections and listeners of a transport share.

use crate::config::TcpTlsConfig;
use crate::connection::Shared;
use net_kit::admission::{Admission, ConnectionLimits};
use net_kit::handshake::Handshake;
use net_kit::registry::Registry;
use net_kit::telemetry::Telemetry;
use net_kit::tls::TlsIdentity;
use parking_lot::{Mutex, RwLock};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use tokio::net::TcpListener;

/// The socket of a listener, until the transport shuts down.
pub(crate) type Socket = RwLock<Option<Arc<TcpListener>>>;

/// State that the connections and listeners of a transport share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) config: Arc<TcpTlsConfig>,
    pub(crate) registry: Arc<Registry<Shared>>,
    sockets: Arc<Mutex<Vec<Weak<Socket>>>>,
}

impl Context {
    pub(crate) fn new(config: TcpTlsConfig) -> Self {
        let limits = ConnectionLimits {
            connections: config.max_connections,
            per_ip: config.max_connections_per_ip,
            per_identity: config.max_connections_per_identity,
            handshakes: config.max_handshakes,
        };
        let telemetry = Telemetry::new("tcp");
        let registry = Registry::new(Admission::new(limits, telemetry.clone()), telemetry);
        Self { config: Arc::new(config), registry, sockets: Arc::default() }
    }

    /// Makes a listening socket known, so that a shutdown closes it.
    pub(crate) fn add_socket(&self, socket: TcpListener) -> Arc<Socket> {
        let socket = Arc::new(RwLock::new(Some(Arc::new(socket))));
        let mut sockets = self.sockets.lock();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(&socket));
        socket
    }

    pub(crate) fn close_sockets(&self) {
        let sockets = std::mem::take(&mut *self.sockets.lock());
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            drop(socket.write().take());
        }
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
}
