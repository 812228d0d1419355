//! `Listener`: accepts connection attempts.

use super::inner::{Acceptor, Socket};
use super::{Backend, Connection, IncomingRequest};
use crate::admission::ListenerAdmission;
use crate::coop;
use async_trait::async_trait;
use net_traits::address::canonical;
use net_traits::{AcceptError, ListenError, NetCredential, NetListener, TrustPolicy};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A listener of a [`Transport`](super::Transport).
pub struct Listener<B: Backend> {
    socket: Arc<Socket<B>>,
    acceptor: Arc<Acceptor<B>>,
    admission: ListenerAdmission,
}

impl<B: Backend> Listener<B> {
    pub(super) fn new(socket: Arc<Socket<B>>, acceptor: Arc<Acceptor<B>>) -> Self {
        let admission = acceptor.transport.registry.admission().listener();
        Self { socket, acceptor, admission }
    }
}

#[async_trait]
impl<B: Backend> NetListener for Listener<B> {
    type Connection = Connection<B>;
    type IncomingRequest = IncomingRequest<B>;

    async fn accept(&self) -> Result<IncomingRequest<B>, AcceptError> {
        coop::spend().await;
        let registry = &self.acceptor.transport.registry;
        let socket = self.socket.0.lock().clone().ok_or(AcceptError::Closed)?;
        loop {
            let (attempt, remote_addr) = tokio::select! {
                attempt = B::accept(&socket, &self.admission) => attempt.ok_or(AcceptError::Closed)?,
                () = registry.shut_down() => return Err(AcceptError::Closed),
            };
            let remote_addr = canonical(remote_addr);
            match self.admission.admit(remote_addr) {
                Ok(place) => {
                    let acceptor = self.acceptor.clone();
                    return Ok(IncomingRequest::new(attempt, remote_addr, place, acceptor));
                }
                Err(limit) => {
                    B::refuse(attempt, limit.code());
                    coop::spend().await; // further attempts may wait
                }
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.acceptor.local_addr
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let identity = self.acceptor.transport.identity(credential)?;
        *self.acceptor.identity.write() = identity;
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let mut identity = self.acceptor.identity.write();
        *identity = identity.with_trust(trust);
    }
}

impl<B: Backend> fmt::Debug for Listener<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_addr = self.acceptor.local_addr;
        f.debug_struct("Listener").field("local_addr", &local_addr).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
