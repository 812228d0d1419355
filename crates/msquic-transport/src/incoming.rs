//! `MsQuicNetIncomingRequest`: a connection attempt before its handshake is complete.

use crate::certificate::Handshake;
use crate::connection::{MsQuicNetConnection, Origin};
use crate::listener::Identity;
use crate::registry::Place;
use crate::telemetry;
use crate::transport::Context;
use async_trait::async_trait;
use msquic_async::Incoming;
use msquic_async::connection::StartError;
use net_traits::{CloseReason, ConnectError, Limit, NetIncomingRequest};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection attempt at a [`MsQuicListener`](crate::MsQuicListener).
#[derive(Debug)]
pub struct MsQuicNetIncomingRequest {
    pub(crate) incoming: Incoming,
    pub(crate) remote_addr: SocketAddr,
    pub(crate) place: Place,
    pub(crate) identity: Arc<RwLock<Identity>>,
    pub(crate) alpn: Arc<[String]>,
    pub(crate) context: Context,
}

impl MsQuicNetIncomingRequest {
    /// Returns the server name that the peer indicated (RFC 6066). It is untrusted text.
    pub fn server_name(&self) -> Option<&str> {
        self.incoming.server_name()
    }

    /// Returns the negotiated application protocol.
    pub fn alpn(&self) -> &[u8] {
        self.incoming.alpn()
    }
}

#[async_trait]
impl NetIncomingRequest for MsQuicNetIncomingRequest {
    type Connection = MsQuicNetConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    fn refuse(self, code: u64) {
        self.incoming.refuse(code);
    }

    async fn accept(self) -> Result<MsQuicNetConnection, ConnectError> {
        let Self { incoming, remote_addr, mut place, identity, alpn, context } = self;
        let alpn = alpn.iter().map(String::as_str).collect::<Vec<_>>();
        // In this order: a revocation after the first line applies even if the credential is old.
        let revocations = context.registry.revocations();
        let identity = identity.read().clone();
        let local_hash = identity.credential.identity();
        let handshake = Handshake {
            remote_addr,
            local_identity: local_hash,
            alpn: &alpn,
            timeout: context.config.handshake_timeout,
        };
        let connection = incoming
            .accept_with(&identity.configuration, identity.credential)
            .map_err(|error| handshake.failed(&StartError::ConnectionLost(error)))?;
        let accepted = tokio::time::timeout(handshake.timeout, connection.accept())
            .await
            .map_err(|_| handshake.timed_out())
            .and_then(|accepted| accepted.map_err(|error| handshake.failed(&error)));
        if let Err(ConnectError::TimedOut { .. }) = accepted {
            let limit = Limit::HandshakeTimeout;
            place.late();
            telemetry::refused(remote_addr, limit);
            connection.shutdown(limit.code(), "the handshake timed out");
        }
        accepted?;
        let lost = connection.clone();
        let peer = connection.peer_identity().ok_or_else(|| handshake.lost(&lost))?;
        if let Err(limit) = place.identify(peer.hash) {
            telemetry::refused(remote_addr, limit);
            connection.shutdown(limit.code(), "too many connections");
            let reason = format!("identity {} has too many connections", peer.hash);
            return Err(ConnectError::Closed(CloseReason::Local { code: limit.code(), reason }));
        }
        let origin = Origin {
            local_hash,
            config: context.config.clone(),
            registry: context.registry.clone(),
            registration: context.registration.clone(),
            place: Some(place),
            revocations,
        };
        MsQuicNetConnection::new(connection, origin).ok_or_else(|| handshake.lost(&lost))
    }
}
