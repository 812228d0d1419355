//! Errors of configurations.

use crate::Status;
use net_traits::CredentialError;

/// Why a configuration could not be created.
///
/// ```
/// # use msquic_async::{Configuration, NetCredential, Registration, Settings, TrustPolicy};
/// # let registration = Registration::new("example")?;
/// # let credential = NetCredential::self_signed(TrustPolicy::reject_all())?;
/// use msquic_async::ConfigurationError;
///
/// match Configuration::client(&registration, &[""], &Settings::new(), &credential) {
///     Err(ConfigurationError::Credential(error)) => println!("unusable credential: {error}"),
///     Err(ConfigurationError::Other(status)) => println!("unusable arguments: {status}"),
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
    /// Sessions cannot be [resumed](crate::Resumption): the libmsquic of this program lacks this
    /// patch.
    #[error(
        "this libmsquic cannot resume sessions, it lacks the patch {0}: use the feature `vendored`"
    )]
    ResumptionUnavailable(&'static str),
    /// msquic refused, for instance a protocol name that is empty or longer than 255 bytes, or a
    /// setting out of range.
    #[error("msquic refused the configuration")]
    Other(#[source] Status),
}
