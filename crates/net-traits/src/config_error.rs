//! `ConfigError`: why a configuration cannot be used.

/// An option has a value that a transport cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {value}: set it to {allowed}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The option's name, which is that of its setter.
    pub option: &'static str,
    /// Its value.
    pub value: String,
    /// The values that are allowed.
    pub allowed: String,
}

impl ConfigError {
    /// Describes a value that is not `allowed`.
    pub fn new(option: &'static str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { option, value: value.into(), allowed: allowed.into() }
    }
}
