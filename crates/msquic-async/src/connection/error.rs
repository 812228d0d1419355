//! Errors of connections, one type per operation.

use crate::Status;
use crate::buffer::Refused;
use crate::ffi::library::has_patch;
use net_traits::TrustError;
use std::io;
use std::net::SocketAddr;

/// Why a connection has ended or cannot be used.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) {
/// use msquic_async::ConnectionError;
///
/// match connection.watch_shutdown().await {
///     ConnectionError::ClosedByPeer { code, .. } => println!("the peer closed with code {code}"),
///     ConnectionError::Untrusted(error) => println!("not trusted: {error}"),
///     error => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// It was not started. Call [`start`](crate::Connection::start) first.
    #[error("the connection was not started")]
    NotStarted,
    /// This side closed it.
    #[error("this side closed the connection with code {code} ({reason:?})")]
    ClosedLocally {
        /// The code given; 0 when the last handle was dropped.
        code: u64,
        /// The reason given.
        reason: String,
    },
    /// The peer's application closed it.
    #[error("the peer closed the connection with code {code} ({reason:?})")]
    ClosedByPeer {
        /// The peer's code.
        code: u64,
        /// The peer's reason, not to be trusted. It becomes known when the shutdown is complete.
        reason: String,
    },
    /// QUIC or TLS ended it, on this side or on the peer's: an idle timeout, a refusal, a rejected
    /// certificate ([`certificate_alert`](Self::certificate_alert)), or a violation of the protocol.
    #[error("the connection failed: {status} (QUIC error {code:#x})")]
    ClosedByTransport {
        /// The status that msquic reports.
        status: Status,
        /// The error code of RFC 9000, section 20.1.
        code: u64,
    },
    /// This side did not trust the peer's certificate. The source says why.
    #[error("the peer's certificate was rejected")]
    Untrusted(#[source] TrustError),
}

impl ConnectionError {
    /// The error of operations on a connection that is closing for a reason that is not known yet.
    pub(crate) fn closing() -> Self {
        Self::ClosedLocally { code: 0, reason: String::new() }
    }

    /// The TLS alert (RFC 8446, section 6.2) with which one side rejected the other's certificate: this side's
    /// for [`Untrusted`](Self::Untrusted), the peer's for [`ClosedByTransport`](Self::ClosedByTransport). A library without the patch N15 sends `bad_certificate`
    /// (42) for all that it leaves to the trust policy.
    ///
    /// ```
    /// use msquic_async::{ConnectionError, Status};
    ///
    /// let error = ConnectionError::ClosedByTransport {
    ///     status: Status::EXPIRED_CERTIFICATE,
    ///     code: 0x100 + 45,
    /// };
    /// assert_eq!(error.certificate_alert(), Some(45));
    /// ```
    pub fn certificate_alert(&self) -> Option<u8> {
        match self {
            Self::ClosedByTransport { status, .. } => {
                status.tls_alert().filter(|alert| matches!(alert, 42..=46 | 48 | 49 | 51 | 116))
            }
            // TLS itself sends these two.
            Self::Untrusted(error @ (TrustError::NoCertificate | TrustError::Unproven { .. })) => {
                Some(error.tls_alert())
            }
            Self::Untrusted(error) if has_patch("N15") => Some(error.tls_alert()),
            Self::Untrusted(_) => Some(BAD_CERTIFICATE),
            _ => None,
        }
    }

    pub(super) fn with_reason(mut self, late: Option<String>) -> Self {
        if let (Self::ClosedByPeer { reason, .. }, Some(late)) = (&mut self, late) {
            *reason = late;
        }
        self
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::NotStarted => io::ErrorKind::NotConnected,
            Self::ClosedLocally { .. } => io::ErrorKind::ConnectionAborted,
            Self::ClosedByPeer { .. } => io::ErrorKind::ConnectionReset,
            Self::Untrusted(_) => io::ErrorKind::PermissionDenied,
            Self::ClosedByTransport { status, .. } => match *status {
                Status::CONNECTION_IDLE | Status::CONNECTION_TIMEOUT => io::ErrorKind::TimedOut,
                Status::CONNECTION_REFUSED => io::ErrorKind::ConnectionRefused,
                Status::UNREACHABLE => io::ErrorKind::HostUnreachable,
                status => status.io_kind().unwrap_or(io::ErrorKind::ConnectionAborted),
            },
        }
    }
}

/// The alert that libmsquic sends by itself for a certificate that is rejected.
const BAD_CERTIFICATE: u8 = 42;

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        Self::new(error.io_kind(), error)
    }
}

/// Why a connection was not closed by this side.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ShutdownError;
///
/// match std::future::poll_fn(|cx| connection.poll_shutdown(cx, 0)).await {
///     Err(ShutdownError::ConnectionLost(error)) => println!("it had ended before: {error}"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// It ended for another reason first.
    #[error("the connection ended for another reason")]
    ConnectionLost(#[source] ConnectionError),
}

impl From<ShutdownError> for io::Error {
    fn from(ShutdownError::ConnectionLost(error): ShutdownError) -> Self {
        error.into()
    }
}

/// Why a connection was not established.
///
/// ```no_run
/// # async fn example(
/// #     connection: msquic_async::Connection,
/// #     configuration: msquic_async::Configuration,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::ConnectionStartError;
///
/// match connection.start(&configuration, "node.example", 4433).await {
///     Err(ConnectionStartError::Resolve { host, .. }) => println!("{host} has no address"),
///     Err(ConnectionStartError::ConnectionLost(error)) => println!("not connected: {error}"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It was started before. A connection starts once; create another one.
    #[error("the connection was started before")]
    AlreadyStarted,
    /// An argument is invalid.
    #[error("invalid argument: {0}")]
    InvalidInput(String),
    /// The name of the host has no address, or the resolver of the system failed.
    #[error("cannot resolve {host}: {message}")]
    Resolve {
        /// The name.
        host: String,
        /// The error message of the system.
        message: String,
    },
    /// The name of the host has several addresses, and no attempt succeeded.
    #[error("no address of {host} can be connected to: {}", describe(errors))]
    NoAddress {
        /// The name.
        host: String,
        /// The addresses that were tried, with what went wrong.
        errors: Vec<(SocketAddr, StartError)>,
    },
    /// The handshake failed, or either side closed the connection. A certificate that this side
    /// rejects is [`ConnectionError::Untrusted`].
    #[error("the connection was not established")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not start the connection")]
    Other(#[source] Status),
}

/// One sentence with each address and its error.
fn describe(errors: &[(SocketAddr, StartError)]) -> String {
    let text = |(address, error): &(SocketAddr, StartError)| match error {
        StartError::ConnectionLost(cause) => format!("{address}: {cause}"),
        StartError::Other(status) => format!("{address}: {status}"),
        error => format!("{address}: {error}"),
    };
    errors.iter().map(text).collect::<Vec<_>>().join("; ")
}

impl StartError {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::AlreadyStarted | Self::InvalidInput(_) => io::ErrorKind::InvalidInput,
            Self::Resolve { .. } => io::ErrorKind::NotFound,
            Self::NoAddress { errors, .. } => {
                errors.first().map_or(io::ErrorKind::Other, |(_, error)| error.io_kind())
            }
            Self::ConnectionLost(error) => error.io_kind(),
            Self::Other(status) => status.io_kind().unwrap_or(io::ErrorKind::Other),
        }
    }
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        Self::new(error.io_kind(), error)
    }
}

/// Why no datagram was received.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::DgramReceiveError;
///
/// match connection.receive_datagram().await {
///     Err(DgramReceiveError::ConnectionLost(error)) => println!("no more datagrams: {error}"),
///     result => println!("{} bytes", result?.len()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DgramReceiveError {
    /// The connection was not started.
    #[error("the connection was not started")]
    NotStarted,
    /// The connection has ended, and every datagram that came before was delivered.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a datagram was not sent.
///
/// ```no_run
/// # fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::DgramSendError;
///
/// match connection.send_datagram(&"position 4 2".into()) {
///     Err(DgramSendError::Full) => println!("skipped: a newer one follows"),
///     Err(DgramSendError::TooBig { max, .. }) => println!("only {max} bytes fit"),
///     result => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DgramSendError {
    /// The connection is not established. Wait for [`start`](crate::Connection::start) or
    /// [`accept`](crate::Connection::accept).
    #[error("the connection is not established")]
    NotConnected,
    /// The peer does not receive datagrams. It has to enable them in its
    /// [`Settings`](crate::Settings::datagrams).
    #[error("the peer does not receive datagrams")]
    Denied,
    /// It does not fit into a packet on the current path.
    #[error("a datagram of {size} bytes is larger than the {max} that fit")]
    TooBig {
        /// Bytes in the datagram.
        size: usize,
        /// Bytes that fit at the moment.
        max: usize,
    },
    /// The [limits](crate::DatagramLimits) of datagrams that wait to be sent or are in flight are reached.
    /// Leave it out, or wait with [`send_datagram_wait`](crate::Connection::send_datagram_wait).
    #[error("too many datagrams wait to be sent or are in flight")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    ConnectionLost(#[source] ConnectionError),
    /// msquic failed.
    #[error("msquic could not send the datagram")]
    Other(#[source] Status),
}

impl From<Refused> for DgramSendError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Denied => Self::Denied,
            Refused::TooBig { size, max } => Self::TooBig { size, max },
            Refused::Full => Self::Full,
        }
    }
}

impl From<DgramReceiveError> for io::Error {
    fn from(error: DgramReceiveError) -> Self {
        let kind = match &error {
            DgramReceiveError::NotStarted => io::ErrorKind::NotConnected,
            DgramReceiveError::ConnectionLost(error) => error.io_kind(),
        };
        Self::new(kind, error)
    }
}

impl From<DgramSendError> for io::Error {
    fn from(error: DgramSendError) -> Self {
        let kind = match &error {
            DgramSendError::NotConnected => io::ErrorKind::NotConnected,
            DgramSendError::Denied => io::ErrorKind::Unsupported,
            DgramSendError::TooBig { .. } => io::ErrorKind::InvalidInput,
            DgramSendError::Full => io::ErrorKind::WouldBlock,
            DgramSendError::ConnectionLost(error) => error.io_kind(),
            DgramSendError::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
