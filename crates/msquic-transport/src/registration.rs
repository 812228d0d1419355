//! `RegistrationWrapper`: the msquic registration of a transport.

use msquic_async::Registration;
use std::fmt;

/// An msquic registration that is shut down on drop, without waiting.
pub struct RegistrationWrapper(Registration);

impl RegistrationWrapper {
    pub(crate) fn new(registration: Registration) -> Self {
        Self(registration)
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.0
    }
}

impl Drop for RegistrationWrapper {
    fn drop(&mut self) {
        self.0.shutdown(0);
    }
}

impl fmt::Debug for RegistrationWrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
