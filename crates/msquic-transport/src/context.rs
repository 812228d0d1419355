//! `Context`: the state that the listeners and connections of a transport share.

use crate::MsQuicTransportConfig;
use crate::address_validation::under_pressure;
use crate::connection::TransportCore;
use crate::quic_settings::{ConfigCache, ConfigFactory, ConfigFailure};
use crate::registration::RegistrationWrapper;
use msquic_async::{Configuration, Dial, Listener, Registration, Resumption, Status};
use net_kit::admission::Admission;
use net_kit::registry::Registry;
use net_kit::telemetry::Telemetry;
use net_traits::{CloseReason, ConnectError, ListenError, NetCredential};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

/// State that the listeners and connections of a transport share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) core: TransportCore,
    configurations: Arc<ConfigCache>,
    /// The tickets of all configurations, if resumption is enabled.
    resumption: Option<Resumption>,
    listeners: Arc<Mutex<Vec<Weak<Listener>>>>,
}

impl Context {
    /// Starts msquic, and fails with its status.
    pub(crate) fn new(config: MsQuicTransportConfig) -> Result<Self, Status> {
        let telemetry = Telemetry::new("quic");
        let admission =
            under_pressure(Admission::new(config.connection_limits(), telemetry.clone()));
        let registration =
            Registration::with_profile("msquic-transport", config.execution_profile)?;
        Ok(Self {
            resumption: config.resumption.then(Resumption::new),
            core: TransportCore {
                registration: Arc::new(RegistrationWrapper::new(registration)),
                registry: Registry::with_memory(admission, telemetry, config.memory_limits()),
                config: Arc::new(config),
            },
            configurations: Arc::default(),
            listeners: Arc::default(),
        })
    }

    /// Removes the configurations of a credential that is no longer in use.
    pub(crate) fn forget(&self, credential: &NetCredential) {
        self.configurations.forget(credential);
    }

    /// Invalidates all tickets after a change of trust. Resuming peers are verified anyway; this is
    /// a second safeguard.
    pub(crate) fn forget_tickets(&self) {
        if let Some(resumption) = &self.resumption {
            resumption.forget();
        }
    }

    /// Returns the msquic configuration of a listener.
    pub(crate) fn server(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ListenError> {
        self.factory(alpn, credential).server().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ListenError::InvalidInput(what),
            ConfigFailure::Credential(error) => ListenError::Credential(error),
            ConfigFailure::Transport(cause) => ListenError::Transport(cause),
        })
    }

    /// Returns the msquic configuration of a dialler.
    pub(crate) fn client(
        &self,
        alpn: &[&str],
        credential: &NetCredential,
    ) -> Result<Configuration, ConnectError> {
        self.factory(alpn, credential).client().map_err(|failure| match failure {
            ConfigFailure::InvalidInput(what) => ConnectError::InvalidInput(what),
            ConfigFailure::Credential(error) => ConnectError::Credential(error),
            ConfigFailure::Transport(cause) => ConnectError::Closed(CloseReason::Transport(cause)),
        })
    }

    /// Returns the settings for dialling `remote_addr`.
    pub(crate) fn dial(&self, remote_addr: SocketAddr) -> Dial {
        let dial = Dial::from(remote_addr).share_binding(self.core.config.share_sockets);
        let of_listener = || {
            let listeners = self.listeners.lock();
            let mut live = listeners.iter().filter_map(Weak::upgrade);
            live.find_map(|it| it.local_addr().ok().filter(|local| reaches(*local, remote_addr)))
        };
        let from_listener = self.core.config.dial_from_listener.then(of_listener).flatten();
        let from_config =
            || self.core.config.local_addr.filter(|local| reaches(*local, remote_addr));
        match from_listener.or_else(from_config) {
            Some(local_addr) => dial.local_addr(local_addr),
            None => dial,
        }
    }

    fn factory<'a>(
        &'a self,
        alpn: &'a [&'a str],
        credential: &'a NetCredential,
    ) -> ConfigFactory<'a> {
        ConfigFactory {
            registration: self.core.registration.registration(),
            config: &self.core.config,
            cache: &self.configurations,
            resumption: self.resumption.as_ref(),
            alpn,
            credential,
        }
    }

    pub(crate) fn add_listener(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Returns the listeners that exist.
    pub(crate) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// The credential of a listener and its msquic configuration.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) credential: NetCredential,
    pub(crate) configuration: Configuration,
}

/// Whether a socket with the address `local` can send to `remote`.
fn reaches(local: SocketAddr, remote: SocketAddr) -> bool {
    let takes_both = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    takes_both || local.is_ipv4() == remote.is_ipv4()
}
