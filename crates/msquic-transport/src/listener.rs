//! `MsQuicListener`: where peers arrive.

use crate::MsQuicTransportConfig;
use crate::connection::MsQuicNetConnection;
use crate::incoming::MsQuicNetIncomingRequest;
use crate::quic_settings::describe;
use crate::transport::RegistrationWrapper;
use async_trait::async_trait;
use msquic_async::{Configuration, Listener};
use net_traits::{AcceptError, CertHash, ListenError, NetCredential, NetListener};
use std::net::SocketAddr;
use std::sync::Arc;

/// A listener of [`MsQuicTransport`](crate::MsQuicTransport).
#[derive(Debug)]
pub struct MsQuicListener {
    instance: Listener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What the requests of a listener need to become connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) configuration: Configuration,
    pub(crate) local_identity: CertHash,
    pub(crate) alpn: Vec<String>,
    pub(crate) config: Arc<MsQuicTransportConfig>,
    pub(crate) registration: Arc<RegistrationWrapper>,
}

impl MsQuicListener {
    pub(crate) fn start(
        registration: &Arc<RegistrationWrapper>,
        configuration: Configuration,
        bind_addr: SocketAddr,
        alpn: &[&str],
        credential: NetCredential,
        config: Arc<MsQuicTransportConfig>,
    ) -> Result<Self, ListenError> {
        let failed = |error| match error {
            msquic_async::ListenError::AddressInUse => ListenError::AddressInUse(bind_addr),
            error => ListenError::Transport(describe(&error)),
        };
        let local_identity = credential.identity();
        let instance =
            Listener::new(registration.registration(), configuration.clone(), credential)
                .map_err(failed)?;
        instance.set_backlog(config.backlog);
        instance.start(alpn, Some(bind_addr)).map_err(failed)?;
        let local_addr = instance.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            configuration,
            local_identity,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            config,
            registration: registration.clone(),
        });
        Ok(Self { instance, local_addr, shared })
    }
}

#[async_trait]
impl NetListener for MsQuicListener {
    type Connection = MsQuicNetConnection;
    type IncomingRequest = MsQuicNetIncomingRequest;

    async fn accept(&self) -> Result<MsQuicNetIncomingRequest, AcceptError> {
        let incoming = self.instance.accept_incoming().await.map_err(|_| AcceptError::Closed)?;
        Ok(MsQuicNetIncomingRequest::new(incoming, self.shared.clone()))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}
