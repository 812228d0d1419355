//! `Cause`: the error of a lower layer, as the source of a public error.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The error of a lower layer, such as the operating system or a library.
///
/// It is the [`source`](Error::source) of the error that contains it, and callers can downcast it
/// to its own type. Cloning is cheap. Two causes are equal if one is a clone of the other, or if
/// their `Debug` output is equal.
///
/// ```
/// use net_traits::{Cause, CloseReason};
/// use std::error::Error;
/// use std::io;
///
/// let error = io::Error::from(io::ErrorKind::NetworkUnreachable);
/// let reason = CloseReason::Transport(Cause::new(error));
/// assert_eq!(reason.to_string(), "the transport failed");
///
/// let cause: Option<&io::Error> = reason.source().and_then(|cause| cause.downcast_ref());
/// assert_eq!(cause.unwrap().kind(), io::ErrorKind::NetworkUnreachable);
/// ```
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error, or a text that describes one.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }
}

impl Deref for Cause {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for Cause {}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

/// Prints an error and its causes in one line, separated by colons.
///
/// The errors of this crate do not repeat their [`source`](Error::source) in their message. Use
/// this type to log an error together with its causes.
///
/// ```
/// use net_traits::{CloseReason, RecvError, WithCauses};
///
/// let error = RecvError::Closed(CloseReason::TimedOut);
/// let line = WithCauses(&error).to_string();
/// assert_eq!(line, "the connection has ended: the peer sent nothing within the idle timeout");
/// ```
#[derive(Debug)]
pub struct WithCauses<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        chain(self.0).skip(1).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// Returns an error and its causes.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}
