//! `MsQuicListener`: accepts connection attempts.

use crate::connection::MsQuicNetConnection;
use crate::context::{Context, Identity};
use crate::incoming::MsQuicNetIncomingRequest;
use async_trait::async_trait;
use msquic_async::{Incoming, Listener, attempts_without_protocol};
use net_kit::alpn::versions;
use net_kit::coop;
use net_traits::{AcceptError, Cause, Limit, ListenError, NetCredential, NetListener, TrustPolicy};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// A listener of [`MsQuicTransport`](crate::MsQuicTransport).
#[derive(Debug)]
pub struct MsQuicListener {
    instance: Arc<Listener>,
    local_addr: SocketAddr,
    alpn: Arc<[String]>,
    identity: Arc<RwLock<Identity>>,
    /// Held while the credential changes.
    updating: Mutex<()>,
    context: Context,
}

impl MsQuicListener {
    pub(crate) fn start(
        context: Context,
        identity: Identity,
        bind_addr: SocketAddr,
        alpn: &[&str],
    ) -> Result<Self, ListenError> {
        let failed = |error| match error {
            msquic_async::ListenError::AddressInUse => ListenError::AddressInUse(bind_addr),
            error => ListenError::Transport(Cause::new(io::Error::from(error))),
        };
        let Identity { credential, configuration } = identity.clone();
        let registration = context.core.registration.registration();
        let instance = Listener::new(registration, configuration, credential).map_err(failed)?;
        instance.set_backlog(context.core.config.backlog);
        let admission = context.core.registry.admission().clone();
        instance.set_refused_hook(move |remote_addr| {
            admission.refuse(remote_addr.unwrap_or(UNKNOWN), Limit::Backlog);
        });
        instance.start(&versions(alpn), Some(bind_addr)).map_err(failed)?;
        let local_addr = instance.local_addr().map_err(failed)?;
        let instance = Arc::new(instance);
        context.add_listener(&instance);
        Ok(Self {
            instance,
            local_addr,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            identity: Arc::new(RwLock::new(identity)),
            updating: Mutex::default(),
            context,
        })
    }

    /// Returns how many attempts were refused because the
    /// [`backlog`](crate::MsQuicTransportConfig::backlog) was full.
    pub fn refused_waiting(&self) -> u64 {
        self.instance.refused()
    }

    /// Waits for an attempt. Meanwhile it counts those that msquic refuses without a word.
    async fn incoming(&self) -> Result<Incoming, AcceptError> {
        let telemetry = self.context.core.registry.telemetry();
        let closed = |_| AcceptError::Closed;
        if !telemetry.has_recorder() {
            return self.instance.accept_incoming().await.map_err(closed);
        }
        loop {
            let total = attempts_without_protocol().unwrap_or(0);
            let before = WITHOUT_PROTOCOL.fetch_max(total, Ordering::Relaxed);
            telemetry.without_protocol(total.saturating_sub(before));
            if let Ok(incoming) = timeout(COUNTED, self.instance.accept_incoming()).await {
                return incoming.map_err(closed);
            }
        }
    }
}

/// How many attempts without a common protocol are in the metrics. msquic counts for the whole process.
static WITHOUT_PROTOCOL: AtomicU64 = AtomicU64::new(0);

/// How often they are counted while a listener waits.
const COUNTED: Duration = Duration::from_secs(10);

/// The address of a peer that msquic does not report; it always does.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[async_trait]
impl NetListener for MsQuicListener {
    type Connection = MsQuicNetConnection;
    type IncomingRequest = MsQuicNetIncomingRequest;

    async fn accept(&self) -> Result<MsQuicNetIncomingRequest, AcceptError> {
        coop::spend().await;
        loop {
            let incoming = self.incoming().await?;
            if self.context.core.registry.is_shut_down() {
                return Err(AcceptError::Closed); // attempts that waited have ended
            }
            let remote_addr = incoming.remote_addr().unwrap_or(UNKNOWN);
            match self.context.core.registry.admission().admit(remote_addr) {
                Ok(place) => {
                    return Ok(MsQuicNetIncomingRequest {
                        incoming,
                        remote_addr,
                        attempt: place.attempt(),
                        place,
                        identity: self.identity.clone(),
                        alpn: self.alpn.clone(),
                        context: self.context.clone(),
                    });
                }
                Err(limit) => incoming.refuse(limit.code()),
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        let alpn = self.alpn.iter().map(String::as_str).collect::<Vec<_>>();
        if self.context.core.config.resumption {
            self.context.forget(&credential); // a new configuration has new keys for tickets
        }
        let configuration = self.context.server(&alpn, &credential)?;
        let now = Identity { credential: credential.clone(), configuration: configuration.clone() };
        let _one_at_a_time = self.updating.lock();
        self.instance
            .set_credential(configuration, credential)
            .map_err(|error| ListenError::Transport(Cause::new(error)))?;
        let before = std::mem::replace(&mut *self.identity.write(), now);
        self.context.forget_tickets();
        self.context.forget(&before.credential);
        Ok(())
    }

    fn set_trust(&self, trust: TrustPolicy) {
        let _one_at_a_time = self.updating.lock();
        let Identity { credential, configuration } = self.identity.read().clone();
        let credential = credential.with_trust(trust);
        *self.identity.write() =
            Identity { credential: credential.clone(), configuration: configuration.clone() };
        // This cannot fail, since the configuration of the listener's registration is kept.
        let kept = self.instance.set_credential(configuration, credential);
        debug_assert!(kept.is_ok(), "{kept:?}");
        self.context.forget_tickets();
    }
}
