//! `IncomingRequest`: a connection attempt before its handshake is complete.

use super::home::Acceptor;
use super::{Backend, Connection};
use crate::admission::{Place, close_reason};
use crate::telemetry::Origin;
use async_trait::async_trait;
use net_traits::{ConnectError, NetIncomingRequest};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection attempt at a [`Listener`](super::Listener).
pub struct IncomingRequest<B: Backend> {
    attempt: B::Attempt,
    remote_addr: SocketAddr,
    place: Place,
    acceptor: Arc<Acceptor<B>>,
}

impl<B: Backend> IncomingRequest<B> {
    pub(super) fn new(
        attempt: B::Attempt,
        remote_addr: SocketAddr,
        place: Place,
        acceptor: Arc<Acceptor<B>>,
    ) -> Self {
        Self { attempt, remote_addr, place, acceptor }
    }

    async fn handshake(self) -> Result<Connection<B>, ConnectError> {
        let Self { attempt, remote_addr, place, acceptor } = self;
        let Acceptor { local_addr, alpn, identity, home } = &*acceptor;
        // In this order: a revocation after the first line applies even if the credential is old.
        let revocations = home.registry.revocations();
        let identity = identity.read().clone();
        let handshake = home.handshake(&identity, remote_addr, alpn.clone());
        let watch = place.watch();
        let secured = home.backend.handshake(attempt, *local_addr, &identity, &handshake, place);
        let secured = watch.run(handshake.timeout, secured).await;
        let (secured, mut place) = secured.map_err(|limit| handshake.stopped_by(limit))??;
        if let Err(limit) = place.complete() {
            B::reject(secured, limit, place);
            return Err(ConnectError::Closed(close_reason(limit)));
        }
        let (config, registry) = (&home.config, &home.registry);
        Ok(Connection::start(secured, handshake, config, registry, revocations, Some(place)))
    }
}

#[async_trait]
impl<B: Backend> NetIncomingRequest for IncomingRequest<B> {
    type Connection = Connection<B>;

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    fn refuse(self, code: u64) {
        B::refuse(self.attempt, code);
    }

    async fn accept(self) -> Result<Connection<B>, ConnectError> {
        let (registry, remote_addr) = (self.acceptor.home.registry.clone(), self.remote_addr);
        let accepted = self.handshake().await;
        let telemetry = registry.telemetry();
        accepted.inspect_err(|error| {
            telemetry.handshake_failed(remote_addr, Origin::Accepted, error);
        })
    }
}

impl<B: Backend> fmt::Debug for IncomingRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut request = f.debug_struct("IncomingRequest");
        request.field("remote_addr", &self.remote_addr).finish_non_exhaustive()
    }
}
