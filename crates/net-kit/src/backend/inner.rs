//! `TransportInner`: what the listeners and connections of a transport share.

use super::Backend;
use super::connection::Shared;
use crate::handshake::Handshake;
use crate::options::TransportOptions;
use crate::registry::Registry;
use crate::tls::TlsIdentity;
use net_traits::{CredentialError, NetCredential};
use parking_lot::{Mutex, RwLock};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// What a transport and its listeners share.
pub(super) struct TransportInner<B: Backend> {
    pub(super) config: Arc<B::Config>,
    pub(super) registry: Arc<Registry<Shared<B>>>,
    pub(super) backend: B,
    pub(super) listeners: Mutex<Vec<Weak<Socket<B>>>>,
}

impl<B: Backend> TransportInner<B> {
    pub(super) fn handshake(
        &self,
        identity: &TlsIdentity,
        remote_addr: SocketAddr,
        alpn: Vec<String>,
    ) -> Handshake {
        let timeout = self.config.common().handshake_timeout;
        Handshake::new(identity.credential().identity(), remote_addr, alpn, timeout)
    }

    /// Reads the key of a credential.
    pub(super) fn identity(
        &self,
        credential: NetCredential,
    ) -> Result<TlsIdentity, CredentialError> {
        Ok(TlsIdentity::new(credential)?.with_key_log(self.config.key_log().cloned()))
    }

    /// Registers the socket of a listener, so that a shutdown stops it.
    pub(super) fn add(&self, socket: B::Socket) -> Arc<Socket<B>> {
        let socket = Arc::new(Socket(Mutex::new(Some(socket))));
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&socket));
        socket
    }
}

/// What a listener and its requests share.
pub(super) struct Acceptor<B: Backend> {
    pub(super) local_addr: SocketAddr,
    pub(super) alpn: Vec<String>,
    pub(super) identity: RwLock<TlsIdentity>,
    pub(super) transport: Arc<TransportInner<B>>,
}

/// The socket of a listener, until the listener is dropped or the transport shuts down.
pub(super) struct Socket<B: Backend>(pub(super) Mutex<Option<B::Socket>>);

impl<B: Backend> Socket<B> {
    pub(super) fn stop(&self) {
        let socket = self.0.lock().take();
        socket.into_iter().for_each(B::stop);
    }
}

impl<B: Backend> Drop for Socket<B> {
    fn drop(&mut self) {
        self.stop();
    }
}
