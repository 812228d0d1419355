//! `ConfigFactory`: creates msquic configurations from `MsQuicTransportConfig`.

use crate::MsQuicTransportConfig;
use msquic_async::{
    Configuration, ConfigurationError, DatagramLimits, Registration, Resumption, Settings,
    StreamLimits,
};
use net_kit::alpn::{protocol_names, versions};
use net_traits::{Cause, CredentialError, NetCredential, TrustPolicy};
use parking_lot::Mutex;

/// Creates msquic configurations for both roles.
pub(crate) struct ConfigFactory<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) config: &'a MsQuicTransportConfig,
    pub(crate) cache: &'a ConfigCache,
    pub(crate) resumption: Option<&'a Resumption>,
    pub(crate) alpn: &'a [&'a str],
    pub(crate) credential: &'a NetCredential,
}

/// Recently used configurations, since creating one parses the key and sets up TLS.
#[derive(Debug, Default)]
pub(crate) struct ConfigCache(Mutex<Vec<(Key, Configuration)>>);

/// How many configurations are kept.
const CACHED: usize = 16;

/// The key of a cached configuration. The trust policy is not part of it.
#[derive(Debug)]
struct Key {
    is_server: bool,
    credential: NetCredential,
    alpn: Vec<String>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.is_server == other.is_server
            && self.alpn == other.alpn
            && same_certificate(&self.credential, &other.credential)
    }
}

/// Returns whether two credentials have the same certificates and key.
fn same_certificate(one: &NetCredential, other: &NetCredential) -> bool {
    one.certificate_chain() == other.certificate_chain()
        && one.private_key().secret_der() == other.private_key().secret_der()
}

impl ConfigCache {
    /// Removes the configurations of a credential. If it is still in use elsewhere, they are
    /// created again.
    pub(crate) fn forget(&self, credential: &NetCredential) {
        let mut cached = self.0.lock();
        let of_it = |(key, _): &mut (Key, _)| same_certificate(&key.credential, credential);
        let forgotten: Vec<_> = cached.extract_if(.., of_it).collect();
        drop(cached);
        drop(forgotten); // after unlocking, since the drop may close configurations
    }

    fn get_or_make(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Configuration, ConfigFailure>,
    ) -> Result<Configuration, ConfigFailure> {
        let mut cached = self.0.lock();
        let configuration = match cached.iter().position(|(known, _)| *known == key) {
            Some(place) => cached.remove(place).1,
            None => {
                drop(cached);
                let made = make()?;
                cached = self.0.lock();
                made
            }
        };
        cached.push((key, configuration.clone()));
        let forgotten = (cached.len() > CACHED).then(|| cached.remove(0));
        drop(cached);
        drop(forgotten);
        Ok(configuration)
    }
}

/// Why a configuration could not be created.
pub(crate) enum ConfigFailure {
    InvalidInput(String),
    Credential(CredentialError),
    Transport(Cause),
}

impl ConfigFactory<'_> {
    pub(crate) fn client(&self) -> Result<Configuration, ConfigFailure> {
        let (Self { registration, credential, .. }, alpn) = (self, versions(self.alpn));
        self.make(false, || {
            Configuration::client(registration, &alpn, &self.settings(), credential)
        })
    }

    pub(crate) fn server(&self) -> Result<Configuration, ConfigFailure> {
        let (Self { registration, credential, .. }, alpn) = (self, versions(self.alpn));
        self.make(true, || Configuration::server(registration, &alpn, &self.settings(), credential))
    }

    fn make(
        &self,
        is_server: bool,
        make: impl FnOnce() -> Result<Configuration, ConfigurationError>,
    ) -> Result<Configuration, ConfigFailure> {
        self.check()?;
        let alpn = self.alpn.iter().map(|name| (*name).to_owned()).collect();
        let credential = self.credential.with_trust(TrustPolicy::reject_all());
        let key = Key { is_server, credential, alpn };
        self.cache.get_or_make(key, || self.finish(make()))
    }

    fn check(&self) -> Result<(), ConfigFailure> {
        protocol_names(self.alpn).map(|_| ()).map_err(ConfigFailure::InvalidInput)
    }

    fn settings(&self) -> Settings {
        self.config.settings().resumption(self.resumption.cloned())
    }

    fn finish(
        &self,
        configuration: Result<Configuration, ConfigurationError>,
    ) -> Result<Configuration, ConfigFailure> {
        // The receive buffer is used only until the frame decoder consumes the stream.
        let limits = StreamLimits::new()
            .send_buffer(self.config.send_queue)
            .max_send_buffer(self.config.max_send_queue.max(self.config.send_queue));
        match configuration {
            Ok(configuration) => {
                let queue = self.config.datagram_queue;
                let datagrams = DatagramLimits::new().send_queue(queue).receive_queue(queue);
                let configuration = configuration
                    .with_datagram_limits(datagrams)
                    .with_stream_limits(limits)
                    .with_streams_in_turn();
                Ok(match self.config.key_log.clone() {
                    Some(key_log) => configuration.with_key_log(key_log),
                    None => configuration,
                })
            }
            Err(ConfigurationError::Credential(error)) => Err(ConfigFailure::Credential(error)),
            Err(error) => Err(ConfigFailure::Transport(Cause::new(error))),
        }
    }
}
