//! `Configuration`: protocols, settings and the TLS credential of connections.

use crate::connection::DatagramLimits;
use crate::ffi::configuration::{NativeConfiguration, Role};
use crate::resumption::{Scope, missing_patch};
use crate::settings::Holding;
use crate::{KeyLog, Registration, Settings, Status, pkcs12};
use net_traits::{Cause, CredentialError, NetCredential};
use std::fmt;
use std::sync::Arc;

/// How connections talk: application protocols, settings, and the certificate that they show.
///
/// Cloning is cheap. Making one reads the key and prepares TLS, so make one and keep it.
///
/// ```
/// use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
///
/// let registration = Registration::new("example")?;
/// let credential = NetCredential::self_signed(TrustPolicy::nobody())?;
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
    holding: Holding,
    serves_in_turn: bool,
    /// The tickets with which sessions are resumed, if they are.
    tickets: Option<Arc<Scope>>,
}

/// How many bytes each stream may hold in memory.
///
/// ```
/// use msquic_async::StreamLimits;
///
/// let limits = StreamLimits { receive_buffer: 4 * 1024 * 1024, ..StreamLimits::default() };
/// assert_eq!(limits.send_buffer, 1024 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes written and not yet completed; a single larger write may exceed it. Default: 1 MiB.
    pub send_buffer: usize,
    /// What [`send_buffer`](Self::send_buffer) grows to by itself when the path carries more at once, so
    /// that long and fast paths are filled. Default: 16 MiB.
    pub max_send_buffer: usize,
    /// Bytes received and not yet read. msquic holds up to the
    /// [stream's window](Settings::stream_receive_window) besides. Default: 256 KiB.
    pub receive_buffer: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            send_buffer: 1024 * 1024,
            max_send_buffer: 16 * 1024 * 1024,
            receive_buffer: 256 * 1024,
        }
    }
}

impl Configuration {
    /// For connections that this side starts.
    ///
    /// ```
    /// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
    /// # use std::time::Duration;
    /// # let registration = Registration::new("example")?;
    /// # let credential = NetCredential::self_signed(TrustPolicy::nobody())?;
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

    /// For connections that this side accepts. Peers have to show a certificate.
    ///
    /// ```
    /// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
    /// # let registration = Registration::new("example")?;
    /// # let credential = NetCredential::self_signed(TrustPolicy::nobody())?;
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

    /// The same with other limits for the streams of its connections.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) {
    /// use msquic_async::StreamLimits;
    ///
    /// let limits = StreamLimits { send_buffer: 64 * 1024, ..StreamLimits::default() };
    /// let configuration = configuration.with_stream_limits(limits);
    /// # }
    /// ```
    #[must_use]
    pub fn with_stream_limits(mut self, limits: StreamLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same with other limits for the datagrams of its connections.
    ///
    /// ```no_run
    /// # fn example(configuration: msquic_async::Configuration) {
    /// use msquic_async::DatagramLimits;
    ///
    /// let limits = DatagramLimits { receive_queue: 64 * 1024, ..DatagramLimits::default() };
    /// let configuration = configuration.with_datagram_limits(limits);
    /// # }
    /// ```
    #[must_use]
    pub fn with_datagram_limits(mut self, limits: DatagramLimits) -> Self {
        self.datagram_limits = limits;
        self
    }

    /// The same with streams of equal priority served in turn, a packet each, so that a stream with much
    /// to send does not hold up the others. Otherwise the one that began first goes first.
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

    /// The same with the TLS secrets of its connections written to a file. A listener's connections
    /// need it in the configuration of the listener.
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
        settings.check()?;
        if let (Some(_), Some(fault)) = (&settings.resumption, missing_patch()) {
            return Err(ConfigurationError::ResumptionUnavailable(fault));
        }
        let alpn = alpn.iter().map(AsRef::as_ref).collect::<Vec<_>>();
        let bundle = pkcs12::bundle(credential)?;
        let native =
            NativeConfiguration::open(registration.native(), &alpn, settings, role, &bundle)
                .map_err(|status| match status {
                    Status::TLS_ERROR => CredentialError::Unusable(Cause::new(
                        "TLS does not take the certificate with this key",
                    ))
                    .into(),
                    status => ConfigurationError::Other(status),
                })?;
        let (holding, tickets) = (settings.holding(), settings.resumption.clone());
        Ok(Self { holding, tickets: tickets.map(Scope::new), ..Self::from_native(native) })
    }

    pub(crate) fn from_native(native: Arc<NativeConfiguration>) -> Self {
        let datagram_limits = DatagramLimits::default();
        Self {
            native,
            limits: StreamLimits::default(),
            datagram_limits,
            key_log: None,
            holding: Holding::No,
            serves_in_turn: false,
            tickets: None,
        }
    }

    pub(crate) fn native(&self) -> &NativeConfiguration {
        &self.native
    }

    pub(crate) fn stream_limits(&self) -> StreamLimits {
        self.limits
    }

    /// How streams hold what they receive, see [`Settings::zero_copy_receive`].
    pub(crate) fn holding(&self) -> Holding {
        self.holding
    }

    pub(crate) fn key_log(&self) -> Option<&KeyLog> {
        self.key_log.as_ref()
    }

    pub(crate) fn tickets(&self) -> Option<&Arc<Scope>> {
        self.tickets.as_ref()
    }

    pub(crate) fn datagram_limits(&self) -> DatagramLimits {
        self.datagram_limits
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why a configuration could not be made.
///
/// ```
/// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
/// # let registration = Registration::new("example")?;
/// # let credential = NetCredential::self_signed(TrustPolicy::nobody())?;
/// use msquic_async::ConfigurationError;
///
/// match Configuration::client(&registration, &[""], &Settings::new(), &credential) {
///     Err(ConfigurationError::Credential(error)) => println!("look at the key: {error}"),
///     Err(ConfigurationError::Other(status)) => println!("look at the settings: {status}"),
///     result => drop(result?),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A setting has a value that msquic cannot use.
    #[error("the setting {name} is {value}, outside of {range}")]
    InvalidSetting {
        /// The name of the setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// The values that are allowed.
        range: &'static str,
    },
    /// Sessions cannot be [resumed](crate::Resumption): the libmsquic of this program lacks the patch for this fault.
    #[error(
        "this libmsquic cannot resume sessions, it lacks the patch {0}: use the feature `vendored`"
    )]
    ResumptionUnavailable(&'static str),
    /// msquic refused, for instance a protocol name that is empty or longer than 255 bytes, or a
    /// setting out of range.
    #[error("msquic refused the configuration")]
    Other(#[source] Status),
}
