//! The error of listeners.

use crate::Status;
use std::io;

/// Why a listener could not listen or accept.
///
/// ```no_run
/// # fn example(listener: msquic_async::Listener) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ListenError;
///
/// match listener.start(&["chat/1"], Some("[::]:4433".parse()?)) {
///     Err(ListenError::AddressInUse) => println!("another socket has port 4433"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It was not started. Call [`start`](crate::Listener::start) first.
    #[error("the listener was not started")]
    NotStarted,
    /// It was started before. A listener starts once; create another one.
    #[error("the listener was started before")]
    AlreadyStarted,
    /// It was stopped, and accepts nothing any more.
    #[error("the listener was stopped")]
    Finished,
    /// Another socket has the address, or another listener the port and the protocol. Port 0 is a free
    /// one.
    #[error("the address is in use")]
    AddressInUse,
    /// msquic refused. The status says why, such as an address that this host does not have.
    #[error("msquic could not listen")]
    Other(#[source] Status),
}

impl From<ListenError> for io::Error {
    fn from(error: ListenError) -> Self {
        let kind = match &error {
            ListenError::NotStarted | ListenError::Finished => io::ErrorKind::NotConnected,
            ListenError::AlreadyStarted => io::ErrorKind::InvalidInput,
            ListenError::AddressInUse => io::ErrorKind::AddrInUse,
            ListenError::Other(status) => status.io_kind().unwrap_or(io::ErrorKind::Other),
        };
        Self::new(kind, error)
    }
}
