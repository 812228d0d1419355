//! `options!`: configurations with private fields, setters, defaults and allowed ranges.

use net_traits::ConfigError;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The durations that timeouts may have: longer ones are no limit, shorter ones never succeed.
pub const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// The sizes that queues may have, in bytes.
pub const QUEUE: RangeInclusive<usize> = 1..=1024 * 1024 * 1024;

/// The numbers that limits on connections may have; the largest means no limit.
pub const COUNT: RangeInclusive<usize> = 1..=usize::MAX;

/// Defines a configuration. Each option has its documentation, type, default, and, where not every
/// value of its type can be used, its allowed range.
///
/// The structure gets `new`, `Default`, a setter per option, and a method `check_ranges` for the
/// crate's own `validate`.
///
/// ```
/// use net_traits::ConfigError;
///
/// net_kit::options! {
///     /// Limits of an example.
///     pub struct Config {
///         /// How many there may be. Default: 3.
///         count: usize = 3, 1..=10;
///         /// Whether there are any. Default: true.
///         any: bool = true;
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
/// assert!(Config::new().count(10).validate().is_ok());
/// let error = Config::new().count(11).validate().unwrap_err();
/// assert_eq!(error.to_string(), "count is 11: set it to 1..=10");
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$about:meta])*
        pub struct $config:ident {
            $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr $(, $range:expr)?;)*
        }
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
                Ok(())
            }
        }
    };
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
