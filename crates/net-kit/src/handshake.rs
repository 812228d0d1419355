//! `Handshake`: the two sides of a handshake, and what its errors mean. Pure.

use crate::admission;
use net_traits::close_code::{self, sent_reason};
use net_traits::{
    Cause, CertHash, CloseReason, ConnectError, Limit, PeerIdentity, Rejection, TrustError,
};
use std::net::SocketAddr;
use std::time::Duration;

/// `decrypt_error` (RFC 8446, section 6.2): the signature of the handshake does not verify.
const DECRYPT_ERROR: u8 = 51;

/// `certificate_required` (RFC 8446, section 6.2).
const CERTIFICATE_REQUIRED: u8 = 116;

/// `no_application_protocol` (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The two sides of one handshake, which error messages name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// The identity of this side.
    pub local_identity: CertHash,
    /// The address of the peer.
    pub remote_addr: SocketAddr,
    /// The protocols that this side offers or supports.
    pub alpn: Vec<String>,
    /// How long the handshake may take.
    pub timeout: Duration,
}

/// A TLS alert (RFC 8446, section 6), by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// This side ended the handshake with it.
    Sent(u8),
    /// The peer ended the handshake or the connection with it.
    Received(u8),
}

/// Returns whether a transport error of QUIC is a protocol violation (RFC 9000, section 20.1). A
/// stale token, a refusal and a close by the application are not.
pub fn is_violation(code: u64) -> bool {
    matches!(code, 0x03..=0x0a | 0x0d..=0x0e)
}

/// How a connection ended, as the library below reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The alert that ended it.
    pub alert: Option<Alert>,
    /// The reason, apart from the alert.
    pub reason: CloseReason,
    /// Whether, during a handshake, it means that the peer refused the connection or left.
    pub is_refusal: bool,
}

impl Ended {
    /// Creates an end without an alert that is not a refusal.
    pub fn new(reason: CloseReason) -> Self {
        Self { alert: None, reason, is_refusal: false }
    }

    /// Creates the end by a close of the peer's application, whose code and reason are limited as those
    /// that this side sends.
    pub fn by_peer(code: u64, reason: &[u8]) -> Self {
        let reason = sent_reason(&String::from_utf8_lossy(reason)); // which may be longer
        Self::new(CloseReason::Peer { code: code.min(close_code::MAX), reason })
    }

    /// Creates the end by a transport error of QUIC (RFC 9000, section 20.1), with its cause.
    /// `alert` is the variant of [`Alert`] for the side that sent it.
    pub fn by_quic(code: u64, alert: fn(u8) -> Alert, cause: Cause) -> Self {
        // RFC 9001, section 4.8.
        let alert = code.checked_sub(0x100).and_then(|it| it.try_into().ok()).map(alert);
        // CONNECTION_REFUSED; and APPLICATION_ERROR, a close by the peer's application before the
        // handshake is complete, whose code QUIC does not send then (RFC 9000, section 10.2.3).
        let is_refusal = matches!(code, 0x02 | 0x0c);
        let reason = match is_violation(code) {
            true => CloseReason::ProtocolViolation(cause),
            false => CloseReason::Transport(cause),
        };
        Self { alert, reason, is_refusal }
    }
}

/// The result of this side's policy about the peer; `None` before the certificate was verified.
pub type Verdict = Option<Result<PeerIdentity, TrustError>>;

impl Handshake {
    /// Creates a description. `alpn` are the protocols that this side offers or supports.
    pub fn new(
        local_identity: CertHash,
        remote_addr: SocketAddr,
        alpn: Vec<String>,
        timeout: Duration,
    ) -> Self {
        Self { local_identity, remote_addr, alpn, timeout }
    }

    /// Returns the error for a handshake that took longer than the timeout.
    pub fn timed_out(&self) -> ConnectError {
        ConnectError::TimedOut { remote_addr: self.remote_addr, after: self.timeout }
    }

    /// Returns the error for a handshake that reached `limit`.
    pub fn stopped_by(&self, limit: Limit) -> ConnectError {
        match limit {
            Limit::HandshakeTimeout => self.timed_out(),
            limit => ConnectError::Closed(admission::close_reason(limit)),
        }
    }

    /// Returns the error for sides that share no protocol.
    pub fn no_common_alpn(&self) -> ConnectError {
        ConnectError::NoCommonAlpn { remote_addr: self.remote_addr, offered: self.alpn.clone() }
    }

    /// Returns the error for a handshake that failed after `verdict` and with `alert`; `None` if
    /// neither is about certificates or application protocols.
    pub fn rejected(&self, verdict: Verdict, alert: Option<Alert>) -> Option<ConnectError> {
        let cause = match (verdict, alert) {
            (Some(Err(cause)), _) => cause,
            // The certificate is trusted, but the peer does not have its key.
            (Some(Ok(peer)), Some(Alert::Sent(DECRYPT_ERROR))) => {
                TrustError::Unproven { identity: peer.hash }
            }
            (_, Some(Alert::Sent(CERTIFICATE_REQUIRED))) => TrustError::NoCertificate,
            (_, Some(Alert::Sent(NO_APPLICATION_PROTOCOL))) => return Some(self.no_common_alpn()),
            (_, Some(Alert::Received(NO_APPLICATION_PROTOCOL))) => {
                return Some(self.no_common_alpn());
            }
            (_, Some(Alert::Received(alert))) => return self.by_peer(alert).map(Into::into),
            _ => return None,
        };
        let alert = match cause {
            TrustError::NoCertificate => CERTIFICATE_REQUIRED,
            _ => cause.tls_alert(),
        };
        Some(Rejection::by_policy(self.remote_addr, cause).with_alert(Some(alert)).into())
    }

    /// Returns the error for a handshake that ended after `verdict`.
    pub fn failed(&self, verdict: Verdict, ended: Ended) -> ConnectError {
        if let Some(error) = self.rejected(verdict, ended.alert) {
            return error;
        }
        match ended.reason {
            _ if ended.is_refusal => ConnectError::Refused(self.remote_addr),
            CloseReason::TimedOut => self.timed_out(),
            reason => ConnectError::Closed(reason),
        }
    }

    /// Returns why an established connection ended.
    pub fn lost(&self, ended: Ended) -> CloseReason {
        let by_alert = match ended.alert {
            Some(Alert::Received(alert)) => self.closed_by(alert),
            _ => None,
        };
        by_alert.unwrap_or(ended.reason)
    }

    /// Returns why an established connection ended with an alert of the peer; `None` if the alert
    /// is not about certificates. With TLS 1.3 the server verifies the certificate of the client
    /// after the client's handshake is complete.
    pub fn closed_by(&self, alert: u8) -> Option<CloseReason> {
        self.by_peer(alert).map(Into::into)
    }

    fn by_peer(&self, alert: u8) -> Option<Rejection> {
        Rejection::by_alert(self.remote_addr, self.local_identity, alert)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::RejectionBy;

    const ME: CertHash = CertHash::from_bytes([1; 32]);
    const PEER: CertHash = CertHash::from_bytes([2; 32]);

    fn handshake() -> Handshake {
        Handshake {
            local_identity: ME,
            remote_addr: ([10, 0, 0, 1], 1).into(),
            alpn: vec!["test/1".to_owned()],
            timeout: Duration::from_secs(1),
        }
    }

    fn rejection(verdict: Verdict, alert: Option<Alert>) -> Rejection {
        match handshake().rejected(verdict, alert) {
            Some(ConnectError::Rejected(rejection)) => rejection,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_local_verdict_takes_precedence_over_alerts() {
        let cause = TrustError::UntrustedIdentity(PEER);
        for alert in [None, Some(Alert::Sent(42)), Some(Alert::Received(48))] {
            let found = rejection(Some(Err(cause.clone())), alert);
            assert_eq!((found.by, found.identity), (RejectionBy::Us, Some(PEER)));
            assert_eq!(found.cause.as_deref(), Some(&cause));
            assert_eq!(found.alert, Some(cause.tls_alert()));
        }
        let missing = rejection(None, Some(Alert::Sent(116)));
        assert_eq!(missing.cause.as_deref(), Some(&TrustError::NoCertificate));
        assert_eq!(missing.alert, Some(116));
    }

    #[test]
    fn alerts_of_the_peer_name_the_local_identity() {
        let found = rejection(None, Some(Alert::Received(45)));
        assert_eq!((found.by, found.alert), (RejectionBy::Peer, Some(45)));
        assert_eq!(found.identity, Some(ME));
        assert!(matches!(handshake().closed_by(45), Some(CloseReason::Rejected(_))));
    }

    #[test]
    fn ends_of_quic_are_explained_by_their_code() {
        let end = |code, alert| Ended::by_quic(code, alert, Cause::new("the end"));
        let untrusted = handshake().lost(end(0x100 + 48, Alert::Received));
        assert!(matches!(untrusted, CloseReason::Rejected(_)), "{untrusted:?}");
        let violation = handshake().lost(end(0x07, Alert::Received));
        assert!(matches!(violation, CloseReason::ProtocolViolation(_)), "{violation:?}");
        let refusal = end(0x02, Alert::Received);
        assert!(matches!(handshake().lost(refusal.clone()), CloseReason::Transport(_)));
        let refused = handshake().failed(None, refusal);
        assert_eq!(refused, ConnectError::Refused(handshake().remote_addr));
        let late = handshake().failed(None, Ended::new(CloseReason::TimedOut));
        assert_eq!(late, handshake().timed_out());
    }

    #[test]
    fn alerts_about_protocols_and_other_alerts_are_distinguished() {
        for alert in [Alert::Sent(120), Alert::Received(120)] {
            let error = handshake().rejected(None, Some(alert));
            assert!(matches!(error, Some(ConnectError::NoCommonAlpn { .. })), "{error:?}");
        }
        for alert in [None, Some(Alert::Sent(10)), Some(Alert::Received(80))] {
            assert_eq!(handshake().rejected(None, alert), None);
        }
    }
}
