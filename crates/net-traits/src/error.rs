//! Errors, one type per operation, and the reasons for which a connection ends.

use crate::cause::chain;
use crate::close_code::{self, Described};
use crate::{Cause, CertHash, CredentialError, TrustError, WithCauses};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

/// Why a connection ended.
///
/// All operations that fail because of the end return the same value. Only an operation that does
/// not wait may lack the peer's reason, which can arrive later than the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side with {}", Described(*code, reason))]
    Local {
        /// The code given to `close`; 0 if the last handle was dropped.
        code: u64,
        /// The reason given to `close`.
        reason: String,
    },
    /// The peer's application closed it.
    #[error("closed by the peer with {}", Described(*code, reason))]
    Peer {
        /// The peer's code.
        code: u64,
        /// The peer's reason, possibly empty. It is untrusted text.
        reason: String,
    },
    /// One side did not accept the other's certificate.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The peer sent nothing within the idle timeout: it has gone, or the network has failed.
    /// Dial again.
    #[error("the peer sent nothing within the idle timeout")]
    TimedOut,
    /// One side detected a protocol violation by the other. The peer is faulty, hostile, or not of
    /// this protocol; the source says what it did.
    #[error("protocol violation")]
    ProtocolViolation(#[source] Cause),
    /// The transport failed. The source has the error of the system or the library.
    #[error("the transport failed")]
    Transport(#[source] Cause),
}

impl CloseReason {
    /// Returns whether dialling again may succeed without a change of configuration.
    ///
    /// If the peer closed, that is true for all codes except [`REVOKED`](close_code::REVOKED):
    /// limits and shutdowns are temporary, and the codes of applications count as retryable.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Peer { code, .. } => close_code::is_retryable(*code),
            Self::TimedOut => true,
            Self::Transport(cause) => is_temporary(cause),
            Self::Rejected(rejection) => rejection.is_retryable,
            Self::Local { .. } | Self::ProtocolViolation(_) => false,
        }
    }
}

/// Which side rejected the other's certificate, and why.
///
/// If this side did, the source says why. If the peer did, its TLS alert is all that this side knows: the
/// peer's log has the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// Which side rejected.
    pub by: RejectionBy,
    /// The address of the peer.
    pub remote_addr: SocketAddr,
    /// The rejected identity, if known.
    pub identity: Option<CertHash>,
    /// The reason in words: that of the local policy, or a description of the peer's TLS alert.
    pub reason: String,
    /// The TLS alert (RFC 8446, section 6) that was sent or received, if known.
    pub alert: Option<u8>,
    /// The error of the local policy, if this side rejected; the `source` of this error.
    pub cause: Option<Arc<TrustError>>,
    /// Whether another attempt may succeed without a change of configuration: another transport
    /// that was dialled too was only refused, see `FallbackTransport`. Otherwise false.
    pub is_retryable: bool,
}

/// The side that rejected a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionBy {
    /// This side did not accept the peer's certificate.
    Us,
    /// The peer did not accept this side's certificate.
    Peer,
}

impl Rejection {
    /// Creates a rejection without identity, alert and cause.
    pub fn new(by: RejectionBy, remote_addr: SocketAddr, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let (identity, alert, cause) = (None, None, None);
        Self { by, remote_addr, identity, reason, alert, cause, is_retryable: false }
    }

    /// Creates the rejection of the peer's certificate by the local policy.
    pub fn by_policy(remote_addr: SocketAddr, cause: TrustError) -> Self {
        let rejection = Self::new(RejectionBy::Us, remote_addr, WithCauses(&cause).to_string());
        Self { identity: cause.identity(), cause: Some(Arc::new(cause)), ..rejection }
    }

    /// Creates the peer's rejection of the local certificate from its TLS alert (RFC 8446, section
    /// 6.2).
    ///
    /// Returns `None` if the alert is not about a certificate.
    pub fn by_alert(remote_addr: SocketAddr, local_identity: CertHash, alert: u8) -> Option<Self> {
        let why = match alert {
            42 => "it is damaged or not trusted",
            43 => "its kind is not supported",
            44 => "it is revoked",
            45 => "it has expired or is not yet valid",
            46 => "it is not accepted",
            48 => "its issuer is not known",
            49 => "access is denied",
            51 => "its signature does not verify",
            116 => "a certificate is required",
            _ => return None,
        };
        let reason = format!("{why} (TLS alert {alert})");
        let rejection = Self::new(RejectionBy::Peer, remote_addr, reason);
        Some(rejection.with_identity(Some(local_identity)).with_alert(Some(alert)))
    }

    /// Sets the rejected identity.
    #[must_use]
    pub fn with_identity(mut self, identity: Option<CertHash>) -> Self {
        self.identity = identity;
        self
    }

    /// Sets the TLS alert.
    #[must_use]
    pub fn with_alert(mut self, alert: Option<u8>) -> Self {
        self.alert = alert;
        self
    }

    /// Sets whether another attempt may succeed without a change of configuration.
    #[must_use]
    pub fn with_retryable(mut self, is_retryable: bool) -> Self {
        self.is_retryable = is_retryable;
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remote_addr, reason, .. } = self;
        let identity = self.identity.map(|hash| format!(" {hash}")).unwrap_or_default();
        let why = match self.cause {
            Some(_) => String::new(), // the source has it
            None => format!(": {reason}"),
        };
        match self.by {
            RejectionBy::Us => {
                write!(f, "rejected the certificate{identity} of {remote_addr}{why}")
            }
            RejectionBy::Peer => write!(f, "{remote_addr} rejected our certificate{identity}{why}"),
        }
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// Why a listener could not be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another socket uses the address. End that program, or choose port 0 for a free one.
    #[error("address {0} is already in use")]
    AddressInUse(SocketAddr),
    /// An argument is invalid, such as an empty list of protocols.
    #[error("invalid argument: {0}")]
    InvalidInput(String),
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The transport failed, for instance because this host does not have the address. The source
    /// has the error of the system.
    #[error("the transport cannot listen")]
    Transport(#[source] Cause),
}

impl ListenError {
    /// Returns whether another attempt may succeed without a change of configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AddressInUse(_) => true,
            Self::Transport(cause) => is_temporary(cause),
            Self::InvalidInput(_) | Self::Credential(_) => false,
        }
    }
}

/// Why a listener yields no more requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was closed.
    #[error("the listener is closed")]
    Closed,
}

impl AcceptError {
    /// Returns whether the same listener may accept again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Closed => false,
        }
    }
}

/// Why a connection was not established, for the dialler and the listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An argument is invalid, such as port 0.
    #[error("invalid argument: {0}")]
    InvalidInput(String),
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The handshake did not finish in time: no host has the address, its application does not
    /// accept, or the network drops the packets (a firewall that blocks UDP). Try again, or over TCP.
    #[error("the handshake with {remote_addr} did not finish within {after:?}")]
    TimedOut {
        /// The address of the peer.
        remote_addr: SocketAddr,
        /// The timeout that expired.
        after: Duration,
    },
    /// No listener has that address, or the peer refused or aborted the attempt, for instance at a
    /// limit. Check the port; try again later.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// The two sides share no application protocol. Offer one that the peer offers.
    #[error("{remote_addr} supports none of the offered protocols {offered:?}")]
    NoCommonAlpn {
        /// The address of the peer.
        remote_addr: SocketAddr,
        /// The protocols that this side offered.
        offered: Vec<String>,
    },
    /// One side did not accept the other's certificate.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The connection was closed before it was established, for the reason in the source.
    #[error("closed during the handshake")]
    Closed(#[source] CloseReason),
    /// Both transports of a `FallbackTransport` failed. Act on `specific`, which stays until the
    /// configuration changes; or try again, since the transport of the source may connect then.
    #[error("{}; over the other transport", WithCauses(&**specific))]
    BothFailed {
        /// The error that tells most specifically what to do.
        specific: Box<ConnectError>,
        /// The error of the other transport.
        #[source]
        retryable: Box<ConnectError>,
    },
}

impl ConnectError {
    /// Returns whether another attempt may succeed without a change of configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Refused(_) | Self::BothFailed { .. } => true,
            Self::Closed(reason) => reason.is_retryable(),
            Self::Rejected(rejection) => rejection.is_retryable,
            Self::InvalidInput(_) | Self::Credential(_) | Self::NoCommonAlpn { .. } => false,
        }
    }
}

/// Why a message was not sent. The peer receives no part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message exceeds the limit of this side. The connection remains usable. Split the message,
    /// or raise `max_message_size` on both sides.
    #[error("a message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Size of the message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The send queue is full, or the stream to the peer is not open yet. Try again later.
    #[error("the send queue is full, or its stream is not open yet")]
    WouldBlock,
    /// The peer accepted no data for too long, for instance because its application does not receive.
    /// The connection remains usable: try again, or close it.
    #[error("the peer accepted no data for {after:?}")]
    TimedOut {
        /// The timeout that expired.
        after: Duration,
    },
    /// The peer stopped the stream of this message. The next message opens another stream. Earlier
    /// messages on the stopped stream are lost if the peer had not received them.
    #[error("the peer stopped the stream with code {code}")]
    Stopped {
        /// The peer's code.
        code: u64,
    },
    /// The transport failed. The connection may remain usable.
    #[error("the transport failed")]
    Transport(#[source] Cause),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

impl SendError {
    /// Returns whether sending again, possibly over a new connection, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } => false,
            Self::WouldBlock | Self::TimedOut { .. } | Self::Stopped { .. } => true,
            Self::Transport(cause) => is_temporary(cause),
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// Why [`send_acked`](crate::NetConnection::send_acked) returned no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendAckedError {
    /// The transport, or the version of it that the peer uses, has no receipts. Nothing was sent.
    #[error("the transport or the peer's version of it does not support receipts")]
    Unsupported,
    /// The peer's application does not receive the message: it was not queued, or the peer's
    /// transport rejected it, with [`SendError::Stopped`].
    #[error("the message was not sent")]
    NotSent(#[source] SendError),
    /// The message was queued and there is no receipt: the peer's application may or may not have
    /// taken it.
    #[error("it is not known whether the peer's application has received the message")]
    Unknown(#[source] SendError),
}

impl SendAckedError {
    /// Returns whether sending again, possibly over a new connection, may succeed. After
    /// [`Unknown`](Self::Unknown) the peer may receive the message twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unsupported => false,
            Self::NotSent(error) | Self::Unknown(error) => error.is_retryable(),
        }
    }
}

/// Why a message was not received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer announced a message that exceeds the limit. The message is not received. A
    /// transport over QUIC stops the stream, and later messages on it are lost. If the peer may send
    /// such messages, raise `max_message_size`.
    #[error("the peer announced a message of {size} bytes, more than {limit}")]
    TooLarge {
        /// The announced size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A stream ended inside a message. The connection remains usable.
    #[error("the stream ended after {received} of {announced} bytes of a message")]
    Truncated {
        /// Received bytes of the message, or of its header if that is incomplete.
        received: u64,
        /// Announced bytes of the message, or the size of the header.
        announced: u64,
    },
    /// The peer reset a stream inside a message. The connection remains usable.
    #[error("the peer reset the stream inside a message with code {code}")]
    Reset {
        /// The peer's code.
        code: u64,
    },
    /// The connection has ended. Messages received before were delivered, unless this side closed.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

impl RecvError {
    /// Returns whether the connection has ended: no later `recv` can succeed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Returns whether receiving again, possibly over a new connection, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Truncated { .. } | Self::Reset { .. } => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// Returns whether a failure of the transport may be temporary. It is not if the system denies the
/// operation or does not support it.
fn is_temporary(cause: &Cause) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    !chain(&**cause).any(|cause| {
        let kind = cause.downcast_ref().map(io::Error::kind);
        matches!(kind, Some(InvalidInput | PermissionDenied | Unsupported))
    })
}

#[cfg(test)]
mod tests;
