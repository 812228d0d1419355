//! `IncomingRequest`: a connection attempt before its handshake is complete.

use super::inner::Acceptor;
use super::{Backend, Connection};
use crate::admission::{Place, close_reason};
use crate::telemetry::Attempt;
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
    telemetry: Attempt,
    acceptor: Arc<Acceptor<B>>,
}

impl<B: Backend> IncomingRequest<B> {
    pub(super) fn new(
        attempt: B::Attempt,
        remote_addr: SocketAddr,
        place: Place,
        acceptor: Arc<Acceptor<B>>,
    ) -> Self {
        let telemetry = place.attempt();
        Self { attempt, remote_addr, place, telemetry, acceptor }
    }

    async fn handshake(
        attempt: B::Attempt,
        remote_addr: SocketAddr,
        place: Place,
        acceptor: Arc<Acceptor<B>>,
    ) -> Result<Connection<B>, ConnectError> {
        let Acceptor { local_addr, alpn, identity, transport } = &*acceptor;
        // Count first: a revocation after this line applies to this handshake even if it uses the
        // old credential.
        let revocations = transport.registry.revocations();
        let identity = identity.read().clone();
        let handshake = transport.handshake(&identity, remote_addr, alpn.clone());
        let watch = place.watch();
        let secured =
            transport.backend.handshake(attempt, *local_addr, &identity, &handshake, place);
        let secured = watch.run(handshake.timeout, secured).await;
        let (secured, mut place) = match secured {
            Ok(Ok(secured)) => secured,
            // The backend was the first to give up.
            Ok(Err(ConnectError::TimedOut { .. })) => {
                return Err(handshake.stopped_by(watch.timed_out()));
            }
            Ok(Err(error)) => return Err(error),
            Err(limit) => return Err(handshake.stopped_by(limit)),
        };
        if let Err(limit) = place.complete() {
            B::reject(secured, limit, place);
            return Err(ConnectError::Closed(close_reason(limit)));
        }
        let (config, registry) = (&transport.config, &transport.registry);
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
        self.telemetry.refused();
        B::refuse(self.attempt, code);
    }

    async fn accept(self) -> Result<Connection<B>, ConnectError> {
        let Self { attempt, remote_addr, place, telemetry, acceptor } = self;
        telemetry.watch(Self::handshake(attempt, remote_addr, place, acceptor)).await
    }
}

impl<B: Backend> fmt::Debug for IncomingRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut request = f.debug_struct("IncomingRequest");
        request.field("remote_addr", &self.remote_addr).finish_non_exhaustive()
    }
}
