//! `Status`: the status codes of libmsquic.

use msquic::ffi;
use std::fmt;
use std::io;

/// A status code of libmsquic (`QUIC_STATUS`).
///
/// The numbers differ between platforms: they are `errno` values on Linux and `HRESULT`s on
/// Windows. Compare with the constants here.
///
/// ```
/// use msquic_async::{Registration, Status};
///
/// let status = Registration::new("no zero byte\0").unwrap_err();
/// assert_eq!(status, Status::INVALID_PARAMETER);
/// assert_eq!(status.to_string(), "invalid parameter");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(ffi::QUIC_STATUS);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $raw:ident, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self(ffi::$raw);)*
        }

        impl fmt::Display for Status {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str($text),)*
                    Self(raw) => match self.tls_alert() {
                        Some(48) => f.write_str("the issuer of the certificate is not known"),
                        Some(49) => f.write_str("access is denied to the holder of the certificate"),
                        Some(alert) => write!(f, "TLS alert {alert}"),
                        None => match self.system_error() {
                            Some(error) => write!(f, "{error}"),
                            None => write!(f, "msquic status {raw:#x}"),
                        },
                    },
                }
            }
        }
    };
}

statuses! {
    /// Success.
    SUCCESS = QUIC_STATUS_SUCCESS, "success";
    /// The operation has begun; its result is reported later.
    PENDING = QUIC_STATUS_PENDING, "pending";
    /// Out of memory.
    OUT_OF_MEMORY = QUIC_STATUS_OUT_OF_MEMORY, "out of memory";
    /// An argument was refused.
    INVALID_PARAMETER = QUIC_STATUS_INVALID_PARAMETER, "invalid parameter";
    /// The call is not valid in the handle's current state.
    INVALID_STATE = QUIC_STATUS_INVALID_STATE, "invalid state";
    /// The library or the platform does not support it.
    NOT_SUPPORTED = QUIC_STATUS_NOT_SUPPORTED, "not supported";
    /// It does not exist.
    NOT_FOUND = QUIC_STATUS_NOT_FOUND, "not found";
    /// The handshake failed.
    HANDSHAKE_FAILURE = QUIC_STATUS_HANDSHAKE_FAILURE, "the handshake failed";
    /// The operation was cancelled.
    ABORTED = QUIC_STATUS_ABORTED, "aborted";
    /// Another socket has the address.
    ADDRESS_IN_USE = QUIC_STATUS_ADDRESS_IN_USE, "the address is in use";
    /// The address cannot be used.
    INVALID_ADDRESS = QUIC_STATUS_INVALID_ADDRESS, "the address is invalid";
    /// The handshake took too long.
    CONNECTION_TIMEOUT = QUIC_STATUS_CONNECTION_TIMEOUT, "the connection timed out";
    /// Nothing was received for the idle timeout.
    CONNECTION_IDLE = QUIC_STATUS_CONNECTION_IDLE, "the connection was idle for too long";
    /// The peer cannot be reached.
    UNREACHABLE = QUIC_STATUS_UNREACHABLE, "the peer is unreachable";
    /// An internal error of libmsquic.
    INTERNAL_ERROR = QUIC_STATUS_INTERNAL_ERROR, "internal error of msquic";
    /// The peer refused the connection.
    CONNECTION_REFUSED = QUIC_STATUS_CONNECTION_REFUSED, "the peer refused the connection";
    /// The peer violated the protocol.
    PROTOCOL_ERROR = QUIC_STATUS_PROTOCOL_ERROR, "the QUIC protocol was violated";
    /// No common version of QUIC.
    VER_NEG_ERROR = QUIC_STATUS_VER_NEG_ERROR, "no common version of QUIC";
    /// TLS failed.
    TLS_ERROR = QUIC_STATUS_TLS_ERROR, "TLS failed";
    /// The application cancelled the operation.
    USER_CANCELED = QUIC_STATUS_USER_CANCELED, "cancelled by the application";
    /// No common application protocol.
    ALPN_NEG_FAILURE = QUIC_STATUS_ALPN_NEG_FAILURE, "no common application protocol";
    /// The peer allows no more streams for now.
    STREAM_LIMIT_REACHED = QUIC_STATUS_STREAM_LIMIT_REACHED, "the stream limit is reached";
    /// A listener with this port and application protocol exists.
    ALPN_IN_USE = QUIC_STATUS_ALPN_IN_USE, "another listener has this port and protocol";
    /// TLS alert 42: the certificate was not accepted.
    BAD_CERTIFICATE = QUIC_STATUS_BAD_CERTIFICATE, "the certificate was not accepted";
    /// TLS alert 43: the kind of certificate is not supported.
    UNSUPPORTED_CERTIFICATE = QUIC_STATUS_UNSUPPORTED_CERTIFICATE, "unsupported kind of certificate";
    /// TLS alert 44: the certificate was revoked.
    REVOKED_CERTIFICATE = QUIC_STATUS_REVOKED_CERTIFICATE, "the certificate was revoked";
    /// TLS alert 45: the certificate has expired.
    EXPIRED_CERTIFICATE = QUIC_STATUS_EXPIRED_CERTIFICATE, "the certificate has expired";
    /// TLS alert 46: the certificate was not accepted for another reason.
    UNKNOWN_CERTIFICATE = QUIC_STATUS_UNKNOWN_CERTIFICATE, "the certificate was refused";
    /// TLS alert 116: a certificate is required.
    REQUIRED_CERTIFICATE = QUIC_STATUS_REQUIRED_CERTIFICATE, "a certificate is required";
}

/// Errors of the operating system that msquic passes on.
#[cfg(unix)]
impl Status {
    /// The process has no file descriptor left, see `ulimit -n`.
    pub const TOO_MANY_OPEN_FILES: Self = Self(libc::EMFILE as ffi::QUIC_STATUS);
    /// The machine has no file descriptor left.
    pub const TOO_MANY_OPEN_FILES_IN_SYSTEM: Self = Self(libc::ENFILE as ffi::QUIC_STATUS);
    /// The system has no memory for sockets left.
    pub const NO_BUFFER_SPACE: Self = Self(libc::ENOBUFS as ffi::QUIC_STATUS);
    /// The machine does not have the local address.
    pub const ADDRESS_NOT_AVAILABLE: Self = Self(libc::EADDRNOTAVAIL as ffi::QUIC_STATUS);
    /// The process may not do that, for instance use a port below 1024.
    pub const PERMISSION_DENIED: Self = Self(libc::EACCES as ffi::QUIC_STATUS);
    /// There is no route to the peer's network.
    pub const NETWORK_UNREACHABLE: Self = Self(libc::ENETUNREACH as ffi::QUIC_STATUS);
    /// There is no such interface.
    pub const NO_SUCH_DEVICE: Self = Self(libc::ENODEV as ffi::QUIC_STATUS);
}

/// The first status that is msquic's own and not an `errno` value, on systems with `errno`.
const FIRST_OWN_STATUS: ffi::QUIC_STATUS = 4096;

/// `QUIC_STATUS_TLS_ALERT(0)`: alerts are this number plus their own (0 to 255).
const FIRST_TLS_ALERT: ffi::QUIC_STATUS = ffi::QUIC_STATUS_CLOSE_NOTIFY;

impl Status {
    /// The number that libmsquic uses.
    ///
    /// ```
    /// assert_eq!(msquic_async::Status::SUCCESS.raw(), 0);
    /// ```
    pub const fn raw(self) -> i64 {
        self.0 as i64
    }

    /// The TLS alert (RFC 8446, section 6) that this status stands for, if it is one.
    ///
    /// ```
    /// use msquic_async::Status;
    ///
    /// assert_eq!(Status::EXPIRED_CERTIFICATE.tls_alert(), Some(45));
    /// assert_eq!(Status::CONNECTION_IDLE.tls_alert(), None);
    /// ```
    pub fn tls_alert(self) -> Option<u8> {
        self.0.checked_sub(FIRST_TLS_ALERT).and_then(|alert| u8::try_from(alert).ok())
    }

    pub(super) fn from_tls_alert(alert: u8) -> Self {
        Self(FIRST_TLS_ALERT + ffi::QUIC_STATUS::from(alert))
    }

    /// Whether the process or the machine has run out of descriptors or memory. A later attempt may
    /// succeed, after other work has ended.
    ///
    /// ```
    /// use msquic_async::Status;
    ///
    /// assert!(Status::OUT_OF_MEMORY.is_exhaustion());
    /// assert!(!Status::CONNECTION_REFUSED.is_exhaustion());
    /// ```
    pub fn is_exhaustion(self) -> bool {
        #[cfg(unix)]
        let is_system = matches!(
            self,
            Self::TOO_MANY_OPEN_FILES | Self::TOO_MANY_OPEN_FILES_IN_SYSTEM | Self::NO_BUFFER_SPACE
        );
        #[cfg(not(unix))]
        let is_system = false;
        is_system || self == Self::OUT_OF_MEMORY
    }

    /// Returns the status for an error of the operating system about an address.
    pub(super) fn of_system(error: &io::Error) -> Self {
        let code = error.raw_os_error().filter(|_| cfg!(unix));
        code.map_or(Self::INVALID_ADDRESS, |code| Self(code as ffi::QUIC_STATUS))
    }

    /// Returns the error of the operating system, if it is one.
    fn system_error(self) -> Option<io::Error> {
        let is_system = cfg!(unix) && self.0 != 0 && self.0 < FIRST_OWN_STATUS;
        is_system.then(|| io::Error::from_raw_os_error(self.0 as i32))
    }

    /// Returns the `io::ErrorKind` of errors that the operating system reports too.
    pub(crate) fn io_kind(self) -> Option<io::ErrorKind> {
        Some(match self {
            Self::OUT_OF_MEMORY => io::ErrorKind::OutOfMemory,
            Self::ADDRESS_IN_USE => io::ErrorKind::AddrInUse,
            #[cfg(unix)]
            Self::ADDRESS_NOT_AVAILABLE => io::ErrorKind::AddrNotAvailable,
            #[cfg(unix)]
            Self::PERMISSION_DENIED => io::ErrorKind::PermissionDenied,
            #[cfg(unix)]
            Self::NETWORK_UNREACHABLE => io::ErrorKind::NetworkUnreachable,
            _ => return None,
        })
    }

    /// Returns `Err` for a failure; pending is not a failure.
    pub(crate) fn ok(raw: ffi::QUIC_STATUS) -> Result<(), Self> {
        msquic::Status::ok_from_raw(raw).map_err(|status| Self(status.0))
    }

    pub(super) const fn from_raw(raw: ffi::QUIC_STATUS) -> Self {
        Self(raw)
    }

    pub(super) const fn to_raw(self) -> ffi::QUIC_STATUS {
        self.0
    }

    pub(crate) fn is_ok(self) -> bool {
        Self::ok(self.0).is_ok()
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#x}: {self})", self.0)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_alerts_are_recognized() {
        assert_eq!(Status::BAD_CERTIFICATE.tls_alert(), Some(42));
        assert_eq!(Status::REQUIRED_CERTIFICATE.tls_alert(), Some(116));
        assert_eq!(Status(FIRST_TLS_ALERT + 80).to_string(), "TLS alert 80");
        assert_eq!(Status::from_tls_alert(49).tls_alert(), Some(49));
        assert_eq!(Status::UNREACHABLE.tls_alert(), None);
        assert_eq!(Status(FIRST_TLS_ALERT + 256).tls_alert(), None);
        assert!(Status::SUCCESS.is_ok() && !Status::ABORTED.is_ok());
        assert!(Status(ffi::QUIC_STATUS_PENDING).is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn errors_of_the_system_have_names() {
        let text = Status::TOO_MANY_OPEN_FILES.to_string();
        assert!(text.contains("open files"), "{text}");
        assert!(Status::TOO_MANY_OPEN_FILES.is_exhaustion());
        assert_eq!(Status::PERMISSION_DENIED.io_kind(), Some(io::ErrorKind::PermissionDenied));
        assert_eq!(Status::ADDRESS_IN_USE.io_kind(), Some(io::ErrorKind::AddrInUse));
        assert_eq!(Status::USER_CANCELED.io_kind(), None);
    }
}
