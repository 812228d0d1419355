//! `MsQuicNetIncomingRequest`: a peer that knocked.

use crate::certificate::Handshake;
use crate::connection::MsQuicNetConnection;
use crate::listener::Shared;
use async_trait::async_trait;
use msquic_async::Incoming;
use msquic_async::connection::StartError;
use net_traits::{CloseReason, ConnectError, NetIncomingRequest};
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection attempt at a [`MsQuicListener`](crate::MsQuicListener).
#[derive(Debug)]
pub struct MsQuicNetIncomingRequest {
    incoming: Incoming,
    remote_addr: SocketAddr,
    shared: Arc<Shared>,
}

impl MsQuicNetIncomingRequest {
    pub(crate) fn new(incoming: Incoming, shared: Arc<Shared>) -> Self {
        // msquic always names the address of a new connection.
        let remote_addr = incoming.remote_addr().unwrap_or_else(|| ([0; 4], 0).into());
        Self { incoming, remote_addr, shared }
    }
}

#[async_trait]
impl NetIncomingRequest for MsQuicNetIncomingRequest {
    type Connection = MsQuicNetConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.remote_addr
    }

    async fn accept(self) -> Result<MsQuicNetConnection, ConnectError> {
        let Self { incoming, remote_addr, shared } = self;
        let alpn = shared.alpn.iter().map(String::as_str).collect::<Vec<_>>();
        let handshake = Handshake {
            remote_addr,
            local_identity: shared.local_identity,
            alpn: &alpn,
            timeout: shared.config.handshake_timeout,
        };
        let connection = incoming
            .accept(&shared.configuration)
            .map_err(|error| handshake.failed(&StartError::ConnectionLost(error)))?;
        tokio::time::timeout(handshake.timeout, connection.accept())
            .await
            .map_err(|_| handshake.timed_out())?
            .map_err(|error| handshake.failed(&error))?;
        let Shared { local_identity, config, registration, .. } = &*shared;
        let (config, registration) = (config.clone(), registration.clone());
        MsQuicNetConnection::new(connection, *local_identity, config, registration).ok_or_else(
            || {
                let what = "the connection lacks a certificate or an address".to_owned();
                ConnectError::Closed(CloseReason::Transport(what))
            },
        )
    }
}
