//! `ConfigFactory`: msquic configurations from ours.

use crate::MsQuicTransportConfig;
use msquic_async::{Configuration, ConfigurationError, Registration, Settings, StreamLimits};
use net_traits::{CredentialError, NetCredential};

/// How many bytes of a stream the peer may send ahead; msquic raises it while reading keeps up.
const STREAM_WINDOW: u32 = 512 * 1024;

/// Makes msquic configurations for both roles.
pub(crate) struct ConfigFactory<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) config: &'a MsQuicTransportConfig,
    pub(crate) alpn: &'a [&'a str],
    pub(crate) credential: &'a NetCredential,
}

/// Why there is no configuration.
pub(crate) enum ConfigFailure {
    InvalidInput(String),
    Credential(CredentialError),
    Transport(String),
}

impl ConfigFactory<'_> {
    pub(crate) fn client(&self) -> Result<Configuration, ConfigFailure> {
        self.check()?;
        let Self { registration, alpn, credential, .. } = self;
        self.finish(Configuration::client(registration, alpn, &self.settings(), credential))
    }

    pub(crate) fn server(&self) -> Result<Configuration, ConfigFailure> {
        self.check()?;
        let Self { registration, alpn, credential, .. } = self;
        self.finish(Configuration::server(registration, alpn, &self.settings(), credential))
    }

    fn check(&self) -> Result<(), ConfigFailure> {
        let invalid = |what: &str| Err(ConfigFailure::InvalidInput(what.to_owned()));
        if self.alpn.is_empty() {
            return invalid("at least one application protocol (ALPN) is needed");
        }
        if self.alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
            return invalid("the name of an application protocol (ALPN) has 1 to 255 bytes");
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        let config = self.config;
        Settings::new()
            .handshake_idle_timeout(config.handshake_timeout)
            .idle_timeout(config.idle_timeout)
            .keep_alive_interval(config.keep_alive_interval)
            .peer_uni_streams(config.max_inbound_streams)
            .stream_receive_window(STREAM_WINDOW)
    }

    fn finish(
        &self,
        configuration: Result<Configuration, ConfigurationError>,
    ) -> Result<Configuration, ConfigFailure> {
        let limits = StreamLimits {
            send_buffer: self.config.send_queue,
            // Holds bytes only until the stream is accepted; then the frame decoder takes them.
            receive_buffer: StreamLimits::default().receive_buffer,
        };
        match configuration {
            Ok(configuration) => Ok(configuration.with_stream_limits(limits)),
            Err(ConfigurationError::Credential(error)) => Err(ConfigFailure::Credential(error)),
            Err(error) => Err(ConfigFailure::Transport(describe(&error))),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
