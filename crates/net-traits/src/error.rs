//! What can go wrong, one type per operation, and why a connection ended.

use crate::{CertHash, CredentialError, TrustError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a connection ended. All operations that fail because of it carry the same value; those that do not wait may lack
/// the peer's words, which are known when the end is complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side with code {code} ({reason:?})")]
    Local {
        /// The code given to `close`; 0 when the last handle was dropped.
        code: u64,
        /// The reason given to `close`.
        reason: String,
    },
    /// The peer's application closed it.
    #[error("closed by the peer with code {code} ({reason:?})")]
    Peer {
        /// The peer's code.
        code: u64,
        /// The peer's reason, where it gave one; not to be trusted.
        reason: String,
    },
    /// One side did not accept the other's certificate.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing was heard from the peer for the idle timeout.
    #[error("nothing was heard from the peer for too long")]
    TimedOut,
    /// One side found that the other broke the rules of the protocol.
    #[error("the protocol was violated: {0}")]
    ProtocolViolation(String),
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(String),
}

impl CloseReason {
    /// Whether dialling again may help without anybody changing a configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Peer { .. } | Self::TimedOut | Self::Transport(_))
    }
}

/// Who did not accept whose certificate, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
#[non_exhaustive]
pub struct Rejection {
    /// Which side rejected.
    pub by: RejectionBy,
    /// The address of the peer.
    pub remote_addr: SocketAddr,
    /// The identity that was rejected, where it is known.
    pub identity: Option<CertHash>,
    /// Why, in words: the policy's reason, or the TLS alert that the peer sent.
    pub reason: String,
    /// The TLS alert (RFC 8446, section 6) that crossed the wire, where it is known.
    pub alert: Option<u8>,
    /// What this side's policy found, where this side rejected.
    pub cause: Option<Arc<TrustError>>,
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
    /// Puts the facts together.
    pub fn new(by: RejectionBy, remote_addr: SocketAddr, reason: impl Into<String>) -> Self {
        Self { by, remote_addr, identity: None, reason: reason.into(), alert: None, cause: None }
    }

    /// This side's rejection of the peer's certificate.
    pub fn by_policy(remote_addr: SocketAddr, cause: TrustError) -> Self {
        let rejection = Self::new(RejectionBy::Us, remote_addr, cause.to_string());
        Self { identity: cause.identity(), cause: Some(Arc::new(cause)), ..rejection }
    }

    /// The peer's rejection of this side's certificate, which it told by a TLS alert (RFC 8446, section 6.2).
    /// `None` if that alert says nothing about a certificate.
    pub fn by_alert(remote_addr: SocketAddr, local_identity: CertHash, alert: u8) -> Option<Self> {
        let why = match alert {
            42 => "it is not trusted or damaged",
            43 => "its kind is not supported",
            44 => "it was revoked",
            45 => "it has expired or is not yet valid",
            46 => "it is not accepted",
            48 => "its issuer is not known",
            49 => "it gives no access",
            51 => "its signature does not verify",
            116 => "a certificate is required",
            _ => return None,
        };
        let reason = format!("{why} (TLS alert {alert})");
        let rejection = Self::new(RejectionBy::Peer, remote_addr, reason);
        Some(rejection.with_identity(Some(local_identity)).with_alert(Some(alert)))
    }

    /// Adds the identity that was rejected.
    #[must_use]
    pub fn with_identity(mut self, identity: Option<CertHash>) -> Self {
        self.identity = identity;
        self
    }

    /// Adds the TLS alert.
    #[must_use]
    pub fn with_alert(mut self, alert: Option<u8>) -> Self {
        self.alert = alert;
        self
    }

    fn describe(&self) -> String {
        let Self { remote_addr, reason, .. } = self;
        let identity = self.identity.map(|hash| format!(" {hash}")).unwrap_or_default();
        match self.by {
            RejectionBy::Us => {
                format!("rejected the certificate{identity} of {remote_addr}: {reason}")
            }
            RejectionBy::Peer => {
                format!("{remote_addr} rejected our certificate{identity}: {reason}")
            }
        }
    }
}

/// Why no listener could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another socket has the port.
    #[error("{0} is already in use")]
    AddressInUse(SocketAddr),
    /// An argument makes no sense, such as an empty list of protocols.
    #[error("invalid argument: {0}")]
    InvalidInput(String),
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The transport failed.
    #[error("cannot listen: {0}")]
    Transport(String),
}

impl ListenError {
    /// Whether trying again may help without anybody changing a configuration.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::AddressInUse(_) | Self::Transport(_))
    }
}

/// Why a listener gives no more requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The listener was closed.
    #[error("the listener is closed")]
    Closed,
}

/// Why no connection came about, as dialler or as listener.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An argument makes no sense, such as port 0.
    #[error("invalid argument: {0}")]
    InvalidInput(String),
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The handshake did not finish in time.
    #[error("no connection with {remote_addr} within {after:?}")]
    TimedOut {
        /// The address of the peer.
        remote_addr: SocketAddr,
        /// The limit that ran out.
        after: Duration,
    },
    /// Nobody listens there, the peer takes no more connections, or it gave up during the handshake.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// The two sides share no application protocol.
    #[error("{remote_addr} speaks none of the protocols {offered:?}")]
    NoCommonAlpn {
        /// The address of the peer.
        remote_addr: SocketAddr,
        /// What this side offered.
        offered: Vec<String>,
    },
    /// One side did not accept the other's certificate.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The connection was closed before it was up.
    #[error("closed during the handshake: {0}")]
    Closed(#[source] CloseReason),
}

impl ConnectError {
    /// Whether trying again may help without anybody changing a configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Refused(_) => true,
            Self::Closed(reason) => reason.is_retryable(),
            _ => false,
        }
    }
}

/// Why a message was not sent. Nothing of it reaches the peer as a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is longer than allowed; the connection goes on.
    #[error("a message of {size} bytes is longer than the limit of {limit}")]
    TooLarge {
        /// Bytes in the message.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// There is no room, or no way yet; trying again later may work.
    #[error("nothing can be queued now")]
    WouldBlock,
    /// The peer took nothing for too long; the connection goes on.
    #[error("the peer took no data for {after:?}")]
    TimedOut {
        /// The limit that ran out.
        after: Duration,
    },
    /// The peer stopped reading this stream of messages; the next message uses a fresh one. What had been queued on the
    /// stream before, and not been received yet, is lost too.
    #[error("the peer stopped receiving with code {code}")]
    Stopped {
        /// The peer's code.
        code: u64,
    },
    /// The transport failed; the connection may go on.
    #[error("the transport failed: {0}")]
    Transport(String),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    Closed(#[source] CloseReason),
}

impl SendError {
    /// Whether sending again, perhaps over a new connection, may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } => false,
            Self::WouldBlock
            | Self::TimedOut { .. }
            | Self::Stopped { .. }
            | Self::Transport(_) => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// Why no message was received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer announced a message longer than allowed, which is not received. Its stream was stopped where a connection
    /// has several; what stood behind it on that stream is lost then.
    #[error("the peer announced a message of {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes announced.
        size: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// A stream ended inside a message; the rest of the connection goes on.
    #[error("a message ended after {received} of {announced} bytes")]
    Truncated {
        /// Bytes of the message that came, header included where that is what was cut.
        received: u64,
        /// Bytes that were due.
        announced: u64,
    },
    /// The peer reset a stream inside a message; the rest of the connection goes on.
    #[error("the peer gave up a message with code {code}")]
    Reset {
        /// The peer's code.
        code: u64,
    },
    /// The connection is over, and every message that came before was handed out, unless this side had closed.
    #[error("the connection is over: {0}")]
    Closed(#[source] CloseReason),
}

impl RecvError {
    /// Whether the connection is over: no later `recv` can succeed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Whether receiving again, perhaps over a new connection, may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Truncated { .. } | Self::Reset { .. } => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_say_who_rejected_whom_and_why() {
        let addr = "127.0.0.1:7".parse().unwrap();
        let hash = CertHash::from_bytes([0xab; 32]);
        let ours = Rejection::new(RejectionBy::Us, addr, "not trusted").with_identity(Some(hash));
        let text = format!("rejected the certificate {hash} of 127.0.0.1:7: not trusted");
        assert_eq!(ours.to_string(), text);
        let ours = Rejection::by_policy(addr, TrustError::UntrustedIdentity(hash));
        assert_eq!((ours.identity, ours.by), (Some(hash), RejectionBy::Us));
        assert_eq!(ours.cause.as_deref(), Some(&TrustError::UntrustedIdentity(hash)));
        assert!(ours.to_string().ends_with(&ours.cause.unwrap().to_string()));
        let theirs = Rejection::new(RejectionBy::Peer, addr, "unknown CA").with_alert(Some(48));
        assert_eq!(theirs.to_string(), "127.0.0.1:7 rejected our certificate: unknown CA");
        assert!(!ConnectError::Rejected(theirs.clone()).is_retryable());
        assert!(!SendError::Closed(CloseReason::Rejected(theirs)).is_retryable());
    }
}
