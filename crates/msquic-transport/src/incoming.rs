//! `MsQuicNetIncomingRequest`: a connection attempt before its handshake is complete.

use crate::certificate::{failed, lost};
use crate::connection::MsQuicNetConnection;
use crate::context::{Context, Identity};
use async_trait::async_trait;
use msquic_async::ConnectionStartError;
use msquic_async::Incoming;
use net_kit::admission::{self, Place};
use net_kit::alpn::without_version;
use net_kit::handshake::Handshake;
use net_kit::telemetry::Attempt;
use net_traits::{ConnectError, Limit, NetIncomingRequest};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection attempt at a [`MsQuicListener`](crate::MsQuicListener).
#[derive(Debug)]
pub struct MsQuicNetIncomingRequest {
    pub(crate) incoming: Incoming,
    pub(crate) remote_addr: SocketAddr,
    pub(crate) place: Place,
    pub(crate) attempt: Attempt,
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
        without_version(self.incoming.alpn()).0
    }
}

#[async_trait]
impl NetIncomingRequest for MsQuicNetIncomingRequest {
    type Connection = MsQuicNetConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    fn refuse(self, code: u64) {
        self.attempt.refused();
        self.incoming.refuse(code);
    }

    async fn accept(self) -> Result<MsQuicNetConnection, ConnectError> {
        let Self { incoming, remote_addr, mut place, attempt, identity, alpn, context } = self;
        let handshake = async move {
            // The order matters: a revocation after the first line applies even if the credential
            // is old.
            let revocations = context.core.registry.revocations();
            let identity = identity.read().clone();
            let handshake = Handshake::new(
                identity.credential.identity(),
                remote_addr,
                alpn.to_vec(),
                context.core.config.handshake_timeout,
            );
            if let Err(limit) = place.check() {
                incoming.refuse(limit.code());
                return Err(handshake.stopped_by(limit));
            }
            let watch = place.watch();
            // msquic's timeout may come first, also while the request waits.
            let failed = |error| match failed(&handshake, &error) {
                ConnectError::TimedOut { .. } => handshake.stopped_by(watch.timed_out()),
                error => error,
            };
            let connection = incoming
                .accept_with(&identity.configuration, identity.credential)
                .map_err(|error| failed(ConnectionStartError::ConnectionLost(error)))?;
            let close = |limit: Limit| {
                connection.shutdown(limit.code(), admission::reason(limit));
                handshake.stopped_by(limit)
            };
            let accepted = watch.run(handshake.timeout, connection.accept()).await;
            accepted.map_err(close)?.map_err(failed)?;
            place.complete().map_err(close)?;
            let ended = connection.clone();
            MsQuicNetConnection::new(
                connection,
                &handshake,
                &context.core,
                revocations,
                Some(place),
            )
            .ok_or_else(|| lost(&handshake, &ended))
        };
        attempt.watch(handshake).await
    }
}
