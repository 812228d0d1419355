//! `Configuration`: protocols, settings and the TLS credential of connections.

mod error;

pub use error::ConfigurationError;

use crate::ffi::configuration::{NativeConfiguration, Role, Tls};
use crate::ffi::raw::{FromRaw, Raw, kind};
use crate::resumption::{Scope, missing_patch};
use crate::{DatagramLimits, KeyLog, Registration, Settings, Status, StreamLimits, pkcs12};
use net_traits::{Cause, CredentialError, NetCredential, TrustError, TrustPolicy};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The configuration of connections: application protocols, settings, and the certificate.
///
/// Cloning is cheap. Creating a configuration reads the key and sets up TLS, so create it once and keep it.
///
/// ```
/// use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
///
/// let registration = Registration::new("example")?;
/// let credential = NetCredential::self_signed(TrustPolicy::reject_all())?;
/// let configuration =
///     Configuration::client(&registration, &["chat/1"], &Settings::new(), &credential)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Configuration {
    native: Arc<NativeConfiguration>,
    limits: StreamLimits,
    datagram_limits: DatagramLimits,
    key_log: Option<KeyLog>,
    serves_in_turn: bool,
    /// Of the settings; attempts that wait to be accepted have no configuration yet.
    handshake_idle_timeout: Option<Duration>,
    /// The tickets with which sessions are resumed, if they are.
    tickets: Option<Arc<Scope>>,
}

impl Configuration {
    /// Creates a configuration for connections that this side starts.
    ///
    /// ```
    /// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
    /// # use std::time::Duration;
    /// # let registration = Registration::new("example")?;
    /// # let credential = NetCredential::self_signed(TrustPolicy::reject_all())?;
    /// let settings = Settings::new().keep_alive_interval(Duration::from_secs(20));
    /// let alpn = ["chat/2", "chat/1"];
    /// let configuration = Configuration::client(&registration, &alpn, &settings, &credential)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationError`] when the credential cannot be used or an argument is refused.
    pub fn client<A: AsRef<[u8]>>(
        registration: &Registration,
        alpn: &[A],
        settings: &Settings,
        credential: &NetCredential,
    ) -> Result<Self, ConfigurationError> {
        Self::new(registration, alpn, settings, credential, Role::Client)
    }

    /// Creates a configuration for connections that this side accepts. Peers have to present a
    /// certificate.
    ///
    /// ```
    /// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
    /// # let registration = Registration::new("example")?;
    /// # let credential = NetCredential::self_signed(TrustPolicy::reject_all())?;
    /// let settings = Settings::new().peer_bidi_streams(16).peer_uni_streams(16);
    /// let configuration =
    ///     Configuration::server(&registration, &["chat/1"], &settings, &credential)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigurationError`] when the credential cannot be used or an argument is refused.
    pub fn server<A: AsRef<[u8]>>(
        registration: &Registration,
        alpn: &[A],
        settings: &Settings,
        credential: &NetCredential,
    ) -> Result<Self, ConfigurationError> {
        Self::new(registration, alpn, settings, credential, Role::Server)
    }

    /// Sets the limits for the streams of its connections.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) {
    /// use msquic_async::StreamLimits;
    ///
    /// let limits = StreamLimits::new().send_buffer(64 * 1024);
    /// let configuration = configuration.with_stream_limits(limits);
    /// # }
    /// ```
    #[must_use]
    pub fn with_stream_limits(mut self, limits: StreamLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the limits for the datagrams of its connections.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) {
    /// use msquic_async::DatagramLimits;
    ///
    /// let limits = DatagramLimits::new().receive_queue(64 * 1024);
    /// let configuration = configuration.with_datagram_limits(limits);
    /// # }
    /// ```
    #[must_use]
    pub fn with_datagram_limits(mut self, limits: DatagramLimits) -> Self {
        self.datagram_limits = limits;
        self
    }

    /// Serves streams of equal priority in turn, one packet each, so that a stream with much to send does not
    /// delay the others. By default the data of the stream that was started first is sent first.
    ///
    /// ```
    /// # fn example(configuration: msquic_async::Configuration) {
    /// let configuration = configuration.with_streams_in_turn();
    /// # }
    /// ```
    #[must_use]
    pub fn with_streams_in_turn(mut self) -> Self {
        self.serves_in_turn = true;
        self
    }

    pub(crate) fn serves_in_turn(&self) -> bool {
        self.serves_in_turn
    }

    /// Writes the TLS secrets of its connections to a file. For accepted connections, set it on the
    /// configuration of the listener.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::KeyLog;
    ///
    /// let configuration = configuration.with_key_log(KeyLog::file("keys.log".as_ref())?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_key_log(mut self, key_log: KeyLog) -> Self {
        self.key_log = Some(key_log);
        self
    }

    fn new<A: AsRef<[u8]>>(
        registration: &Registration,
        alpn: &[A],
        settings: &Settings,
        credential: &NetCredential,
        role: Role,
    ) -> Result<Self, ConfigurationError> {
        settings.validate()?;
        if let (Some(_), Some(fault)) = (&settings.resumption, missing_patch()) {
            return Err(ConfigurationError::ResumptionUnavailable(fault));
        }
        let alpn = alpn.iter().map(AsRef::as_ref).collect::<Vec<_>>();
        check_key(credential)?;
        let bundle = pkcs12::bundle(credential)?;
        let native = NativeConfiguration::open(
            registration.native(),
            &alpn,
            settings.to_native(),
            settings.holding(),
            &Tls { role, pkcs12: &bundle, cipher_suites: settings.cipher_suites.as_deref() },
        )
        .map_err(|status| match status {
            Status::TLS_ERROR => CredentialError::Unusable(Cause::new(
                "TLS does not accept the certificate with this key",
            ))
            .into(),
            status => ConfigurationError::Other(status),
        })?;
        let tickets = settings.resumption.clone();
        Ok(Self {
            tickets: tickets.map(Scope::new),
            handshake_idle_timeout: settings.handshake_idle_timeout,
            ..Self::from_native(native)
        })
    }

    fn from_native(native: Arc<NativeConfiguration>) -> Self {
        let datagram_limits = DatagramLimits::default();
        Self {
            native,
            limits: StreamLimits::default(),
            datagram_limits,
            key_log: None,
            serves_in_turn: false,
            handshake_idle_timeout: None,
            tickets: None,
        }
    }

    pub(crate) fn native(&self) -> &NativeConfiguration {
        &self.native
    }

    pub(crate) fn stream_limits(&self) -> StreamLimits {
        self.limits
    }

    pub(crate) fn key_log(&self) -> Option<&KeyLog> {
        self.key_log.as_ref()
    }

    pub(crate) fn handshake_idle_timeout(&self) -> Option<Duration> {
        self.handshake_idle_timeout
    }

    pub(crate) fn tickets(&self) -> Option<&Arc<Scope>> {
        self.tickets.as_ref()
    }

    pub(crate) fn datagram_limits(&self) -> DatagramLimits {
        self.datagram_limits
    }
}

/// Checks that peers can verify the certificate. OpenSSL accepts keys for which TLS 1.3 has no signature
/// scheme, and then presents no certificate.
fn check_key(credential: &NetCredential) -> Result<(), CredentialError> {
    match TrustPolicy::reject_all().verify(credential.certificate_chain().first()) {
        Err(error @ TrustError::Unsupported { .. }) => {
            Err(CredentialError::Unusable(Cause::new(error)))
        }
        _ => Ok(()), // it was parsed, and is not otherwise verified
    }
}

impl FromRaw for Configuration {
    type Context<'a> = &'a Registration;
    type Error = Status;
    type Kind = kind::Configuration;

    fn adopt(raw: Raw<kind::Configuration>, registration: &Registration) -> Result<Self, Status> {
        Ok(Self::from_native(raw.adopt(registration.native())?))
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration").field("limits", &self.limits).finish_non_exhaustive()
    }
}
