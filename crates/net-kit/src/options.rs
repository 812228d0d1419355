//! `options!`: defines configurations with private fields, setters, defaults and allowed ranges.

use crate::admission::ConnectionLimits;
use crate::memory_budget::MemoryLimits;
use crate::progress::Timeouts;
use net_traits::{ConfigError, KeyLog};
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The allowed durations of timeouts: 1 ms to one day. Shorter ones always expire, longer ones
/// never.
pub const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// The default of `operation_timeout`.
pub const OPERATION: Duration = Duration::from_secs(10 * 60);

/// The default of `no_progress_timeout`.
pub const NO_PROGRESS: Duration = Duration::from_secs(12);

/// The default of `linger`.
pub const LINGER: Duration = Duration::from_secs(5);

/// The default of `handshake_timeout`.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// The default of `message_timeout`.
pub const MESSAGE: Duration = Duration::from_secs(30);

/// The allowed sizes of queues, in bytes.
pub const QUEUE: RangeInclusive<usize> = 1..=1024 * 1024 * 1024;

/// The allowed limits on connections; the largest means no limit.
pub const COUNT: RangeInclusive<usize> = 1..=usize::MAX;

/// The default of `max_memory`, in bytes: 512 MiB.
pub const MEMORY: usize = 512 * 1024 * 1024;

/// The allowed limits on unanswered requests of a peer; with 0 it gets no answer.
pub const REQUESTS: RangeInclusive<u16> = 0..=u16::MAX;

/// Defines a configuration. Each option has its documentation, type, default, and, where not every
/// value of its type can be used, its allowed range.
///
/// The struct gets `new`, `Default`, a setter per option, and a private method `check_ranges` for
/// the crate's own `validate`. A function after the struct, `check |config: &Config| ...`, checks
/// constraints between options.
///
/// ```
/// use net_traits::ConfigError;
///
/// net_kit::options! {
///     /// Limits of an example.
///     pub struct Config {
///         /// The number of attempts. Default: 3.
///         attempts: usize = 3, 1..=10;
///         /// Whether attempts are logged. Default: true.
///         is_logged: bool = true;
///     }
/// }
///
/// impl Config {
///     /// Checks the values of all options.
///     pub fn validate(&self) -> Result<(), ConfigError> {
///         self.check_ranges()
///     }
/// }
///
/// assert!(Config::new().attempts(10).validate().is_ok());
/// let error = Config::new().attempts(11).validate().unwrap_err();
/// assert_eq!(error.to_string(), "attempts is 11: set it to 1..=10");
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$about:meta])*
        pub struct $config:ident {
            $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr $(, $range:expr)?;)*
        }
        $(check $check:expr)?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $config {
            $(pub(crate) $name: $type,)*
        }

        impl Default for $config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl $config {
            /// Creates a configuration with the default values.
            pub fn new() -> Self {
                Self::default()
            }

            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$name = value;
                self
            })*

            fn check_ranges(&self) -> Result<(), ::net_traits::ConfigError> {
                $($($crate::options::check(stringify!($name), &self.$name, &$range)?;)?)*
                $(($check)(self)?;)?
                Ok(())
            }
        }
    };
}

/// Defines the configuration of a transport: its own options, and those that have the same name,
/// default and range in each transport.
///
/// `max_connections_per_ip` must be among its own options, since the default differs. In addition
/// to the methods of [`options!`](crate::options!), the struct gets `connection_limits` and
/// `memory_limits`.
#[macro_export]
macro_rules! common_options {
    ($(#[$about:meta])* pub struct $config:ident { $($own:tt)* } $(check $check:expr)?) => {
        $crate::options! {
            $(#[$about])*
            pub struct $config {
                $($own)*
                /// Size of the receive queue in bytes; each message counts 1024 bytes more. While
                /// it is full, the peer is throttled. Messages being received, and data that the
                /// library or the system has not delivered, come on top. Default: 4 MiB.
                receive_queue: usize = 4 * 1024 * 1024, $crate::options::QUEUE;
                /// Memory in bytes that the unfinished messages of one connection may occupy: those
                /// whose last byte has not arrived. At the limit only the oldest of them, which may
                /// exceed it, is received further. Default: 16 MiB.
                max_unfinished: usize = 16 * 1024 * 1024, $crate::options::QUEUE;
                /// Memory in bytes that received messages of all connections may occupy, complete
                /// or not, until the application takes them; at least two of the longest ones.
                /// Unread datagrams, answers, handshakes, and data that msquic holds count too, but
                /// not what quinn or the system holds. Beyond it the connection that holds most is
                /// ended with [`Limit::Memory`](::net_traits::Limit::Memory). Default: 512 MiB.
                max_memory: usize = $crate::options::MEMORY, $crate::options::COUNT;
                /// How long a connection that has not finished a message may bring less than 16
                /// KiB. It is then ended with
                /// [`Limit::MessageTimeout`](::net_traits::Limit::MessageTimeout). While more than
                /// half of [`max_memory`](Self::max_memory) is used, it also has to bring a 64th of
                /// what its unfinished messages hold in that time, and each message a 64th of its
                /// own size, except for 64 KiB together. A question on a stream of its own that
                /// brings less than 16 KiB is refused. Time in which this side accepts no data does
                /// not count. Default: 30 s.
                message_timeout: ::std::time::Duration = $crate::options::MESSAGE,
                    $crate::options::TIMEOUT;
                /// The longest question or answer of a request, in bytes. Default: 1 MiB.
                max_request_size: usize = 1024 * 1024, $crate::options::QUEUE;
                /// How many accepted connections all listeners of the transport may have at once,
                /// including handshakes. Further attempts are refused. Default: 10 000.
                max_connections: usize = 10_000, $crate::options::COUNT;
                /// How many of them one identity may have; the newest replaces the oldest. It
                /// limits peers that are trusted by their identity; a peer that is trusted by an
                /// endorsing key can make more identities. Default: 16.
                max_connections_per_identity: usize = 16, $crate::options::COUNT;
                /// How many accepted connections may be in their handshake at once. Each counts as 64 KiB,
                /// and all may take a quarter of [`max_memory`](Self::max_memory). Default: 256.
                max_handshakes: usize = 256, $crate::options::COUNT;
                /// How many of them may be from one IPv4 address or IPv6 /64 network. At each of
                /// these limits the oldest handshake that counts for it gives way to a new one, if
                /// it has taken 100 ms; else the new one is refused. Default: 64.
                max_handshakes_per_ip: usize = 64, $crate::options::COUNT;
                /// How long one `send`, `flush`, `close` or `answer` may take in total, also if the
                /// peer makes progress. Default: 10 min, in which 64 MiB pass at 1 Mbit/s.
                operation_timeout: ::std::time::Duration = $crate::options::OPERATION,
                    $crate::options::TIMEOUT;
                /// How long a connection whose last handle was dropped sends what is queued, in the
                /// background; then it closes. Zero closes at once. Default: 5 s.
                linger: ::std::time::Duration = $crate::options::LINGER,
                    ::std::time::Duration::ZERO..=*$crate::options::TIMEOUT.end();
                /// How long a handshake may take. Default: 10 s.
                handshake_timeout: ::std::time::Duration = $crate::options::HANDSHAKE,
                    $crate::options::TIMEOUT;
                /// The file into which all connections write their TLS secrets, in the format of NSS
                /// (`SSLKEYLOGFILE`), for tools like Wireshark. **Who reads the file can decrypt everything
                /// that the connections of this transport send and receive**: use it for development
                /// alone. No environment variable enables it unless the application asks with
                /// [`KeyLog::from_env`](::net_traits::KeyLog::from_env). Default: none.
                key_log: Option<::net_traits::KeyLog> = None;
            }
            $(check $check)?
        }

        impl $config {
            pub(crate) fn connection_limits(&self) -> $crate::admission::ConnectionLimits {
                $crate::admission::ConnectionLimits {
                    connections: self.max_connections,
                    per_ip: self.max_connections_per_ip,
                    per_identity: self.max_connections_per_identity,
                    handshakes: self.max_handshakes,
                    handshakes_per_ip: self.max_handshakes_per_ip,
                }
            }

            pub(crate) fn memory_limits(&self) -> $crate::memory_budget::MemoryLimits {
                $crate::memory_budget::MemoryLimits {
                    total: self.max_memory,
                    unfinished: self.max_unfinished,
                    timeout: self.message_timeout,
                }
            }
        }
    };
}

/// Defines the configuration of a transport over a `Backend`: its own options, and those that all
/// these transports have.
///
/// `max_message_size` and `max_connections_per_ip` must be among its own options, since their
/// ranges and defaults differ. The struct also gets `validate` and implements [`TransportOptions`].
///
/// ```
/// use net_kit::options::{COUNT, CommonOptions, TransportOptions};
///
/// net_kit::transport_options! {
///     /// Limits and timeouts of an example.
///     pub struct Config {
///         /// The longest message, in bytes. Default: 1000.
///         max_message_size: usize = 1000, 1..=1000;
///         /// Default: 10.
///         max_connections_per_ip: usize = 10, COUNT;
///     }
/// }
///
/// assert_eq!(Config::new().common().max_message_size, 1000);
/// assert_eq!(Config::new().send_queue(0).validate().unwrap_err().option, "send_queue");
/// ```
#[macro_export]
macro_rules! transport_options {
    ($(#[$about:meta])* pub struct $config:ident { $($own:tt)* } $(check $check:expr)?) => {
        $crate::common_options! {
            $(#[$about])*
            pub struct $config {
                $($own)*
                /// Size of each send queue in bytes; each message counts 128 bytes more. While it
                /// is full, `send` waits. A single message may exceed it. Data that the library or
                /// the system holds comes on top. Default: 1 MiB.
                send_queue: usize = 1024 * 1024, $crate::options::QUEUE;
                /// How long an operation may make no progress. While the peer takes other data, or
                /// progress is not visible, it may take ten times as long. Default: 12 s.
                no_progress_timeout: ::std::time::Duration = $crate::options::NO_PROGRESS,
                    $crate::options::TIMEOUT;
            }
            $(check $check)?
        }

        impl $config {
            /// Checks the values of all options, as `with_config` of the transport does.
            ///
            /// # Errors
            ///
            /// [`ConfigError`](::net_traits::ConfigError) for the first option whose value cannot
            /// be used.
            pub fn validate(&self) -> Result<(), ::net_traits::ConfigError> {
                self.check_ranges()?;
                $crate::options::check_memory(self.max_memory, self.max_message_size)
            }
        }

        impl $crate::options::TransportOptions for $config {
            fn check(&self) -> Result<(), ::net_traits::ConfigError> {
                self.validate()
            }

            fn common(&self) -> $crate::options::CommonOptions {
                $crate::options::CommonOptions {
                    max_message_size: self.max_message_size,
                    send_queue: self.send_queue,
                    receive_queue: self.receive_queue,
                    max_request_size: self.max_request_size,
                    memory: self.memory_limits(),
                    connections: self.connection_limits(),
                    no_progress_timeout: self.no_progress_timeout,
                    operation_timeout: self.operation_timeout,
                    linger: self.linger,
                    handshake_timeout: self.handshake_timeout,
                }
            }

            fn key_log(&self) -> Option<&::net_traits::KeyLog> {
                self.key_log.as_ref()
            }
        }
    };
}

/// The configuration of a transport, see [`transport_options!`](crate::transport_options).
pub trait TransportOptions: Debug + Default + Send + Sync + 'static {
    /// Checks the values of all options.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for the first option whose value cannot be used.
    fn check(&self) -> Result<(), ConfigError>;

    /// Returns the options that all transports have.
    fn common(&self) -> CommonOptions;

    /// Returns where connections write their TLS secrets.
    fn key_log(&self) -> Option<&KeyLog>;
}

/// The options that all transports have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the setters of the same names describe them")]
pub struct CommonOptions {
    pub max_message_size: usize,
    pub send_queue: usize,
    pub receive_queue: usize,
    pub max_request_size: usize,
    pub memory: MemoryLimits,
    pub connections: ConnectionLimits,
    pub no_progress_timeout: Duration,
    pub operation_timeout: Duration,
    pub linger: Duration,
    pub handshake_timeout: Duration,
}

impl CommonOptions {
    /// Returns the timeouts of an operation that begins now.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts::begin(self.no_progress_timeout, self.operation_timeout)
    }
}

/// Returns the interval of keep-alives: `interval`, or a third of the idle timeout if that is
/// shorter, so that two of them may be lost. An idle timeout of zero means none.
pub fn keep_alive(interval: Duration, idle_timeout: Duration) -> Duration {
    match idle_timeout {
        Duration::ZERO => interval,
        idle_timeout => interval.min(idle_timeout / 3),
    }
}

/// Checks that the memory of a transport suffices for two messages of `max_message` bytes: one that
/// is queued, and the next one.
///
/// # Errors
///
/// [`ConfigError`] with the least value.
pub fn check_memory(max_memory: usize, max_message: usize) -> Result<(), ConfigError> {
    let least = max_message.saturating_mul(2);
    if max_memory >= least {
        return Ok(());
    }
    let expected = format!("{least} or more, twice the longest message");
    Err(ConfigError::new("max_memory", max_memory.to_string(), expected))
}

/// Checks that the value of an option is in a range.
///
/// # Errors
///
/// [`ConfigError`] with the range.
pub fn check<T: PartialOrd + Debug>(
    option: &'static str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(value) {
        return Ok(());
    }
    Err(ConfigError::new(option, format!("{value:?}"), format!("{range:?}")))
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro defines public items")]
pub(crate) mod tests {
    use super::*;

    crate::transport_options! {
        /// Options of a test.
        pub struct Config {
            /// The longest message.
            max_message_size: usize = 10, 1..=10;
            /// Connections of an address.
            max_connections_per_ip: usize = 10, COUNT;
        }
    }

    #[test]
    fn keep_alive_follows_a_shorter_idle_timeout() {
        let seconds = Duration::from_secs;
        for (interval, idle, expected) in [(10, 30, 10), (10, 6, 2), (10, 0, 10), (0, 6, 0)] {
            assert_eq!(keep_alive(seconds(interval), seconds(idle)), seconds(expected));
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        let config = Config::new;
        for (config, option) in [
            (config().max_message_size(11), "max_message_size"),
            (config().max_connections_per_ip(0), "max_connections_per_ip"),
            (config().send_queue(0), "send_queue"),
            (config().receive_queue(usize::MAX), "receive_queue"),
            (config().max_unfinished(0), "max_unfinished"),
            (config().max_memory(19), "max_memory"),
            (config().message_timeout(Duration::MAX), "message_timeout"),
            (config().max_request_size(0), "max_request_size"),
            (config().max_connections(0), "max_connections"),
            (config().max_connections_per_identity(0), "max_connections_per_identity"),
            (config().max_handshakes(0), "max_handshakes"),
            (config().max_handshakes_per_ip(0), "max_handshakes_per_ip"),
            (config().no_progress_timeout(Duration::ZERO), "no_progress_timeout"),
            (config().operation_timeout(Duration::MAX), "operation_timeout"),
            (config().linger(Duration::MAX), "linger"),
            (config().handshake_timeout(Duration::from_nanos(1)), "handshake_timeout"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        assert_eq!(config().validate(), Ok(()));
        assert_eq!(config().max_memory(20).key_log(None).validate(), Ok(()));
    }
}
