//! Maps the end of a connection to a reason: which side closed it, or rejected which certificate.

use msquic_async::ConnectionStartError;
use msquic_async::{Connection, ConnectionError, Status};
use net_kit::handshake::{Handshake, is_violation};
use net_traits::{Cause, CertHash, CloseReason, ConnectError, Rejection};
use std::net::SocketAddr;

/// Maps the error that ended a connection to its reason.
///
/// `remote_addr` is the peer's address and `local_identity` the certificate that this side
/// presented.
///
/// With TLS 1.3 a client is connected before the server has verified the client's certificate. A
/// rejection by the peer can therefore end an established connection.
pub fn resolve_bad_certificate(
    error: &ConnectionError,
    remote_addr: SocketAddr,
    local_identity: CertHash,
) -> CloseReason {
    match error {
        ConnectionError::ClosedLocally { code, reason } => {
            CloseReason::Local { code: *code, reason: reason.clone() }
        }
        ConnectionError::ClosedByPeer { code, reason } => {
            CloseReason::Peer { code: *code, reason: reason.clone() }
        }
        ConnectionError::Untrusted(cause) => {
            let rejection = Rejection::by_policy(remote_addr, cause.clone());
            rejection.with_alert(error.certificate_alert()).into()
        }
        ConnectionError::ClosedByTransport { status, code } => {
            let rejection = error
                .certificate_alert()
                .and_then(|alert| Rejection::by_alert(remote_addr, local_identity, alert));
            if let Some(rejection) = rejection {
                return rejection.into();
            }
            match *status {
                Status::CONNECTION_IDLE | Status::CONNECTION_TIMEOUT => CloseReason::TimedOut,
                _ if is_violation(*code) => {
                    CloseReason::ProtocolViolation(Cause::new(error.clone()))
                }
                _ => CloseReason::Transport(Cause::new(error.clone())),
            }
        }
        error => CloseReason::Transport(Cause::new(error.clone())),
    }
}

/// Maps the reason of a connection that ended right after its handshake.
pub(crate) fn lost(handshake: &Handshake, connection: &Connection) -> ConnectError {
    let error = connection.close_reason().unwrap_or(ConnectionError::NotStarted);
    failed(handshake, &ConnectionStartError::ConnectionLost(error))
}

/// Maps the error of a failed handshake.
pub(crate) fn failed(handshake: &Handshake, error: &ConnectionStartError) -> ConnectError {
    let error = match error {
        ConnectionStartError::InvalidInput(what) => {
            return ConnectError::InvalidInput(what.clone());
        }
        ConnectionStartError::ConnectionLost(error) => error,
        error => {
            return ConnectError::Closed(CloseReason::Transport(Cause::new(error.clone())));
        }
    };
    if let ConnectionError::ClosedByTransport { status, .. } = error {
        match *status {
            // The last is a close by the peer's application before the handshake is complete:
            // QUIC does not send its code then (RFC 9000, section 10.2.3).
            Status::UNREACHABLE | Status::CONNECTION_REFUSED | Status::USER_CANCELED => {
                return ConnectError::Refused(handshake.remote_addr);
            }
            Status::ALPN_NEG_FAILURE => {
                return handshake.no_common_alpn();
            }
            _ => {}
        }
    }
    match resolve_bad_certificate(error, handshake.remote_addr, handshake.local_identity) {
        CloseReason::Rejected(rejection) => ConnectError::Rejected(rejection),
        CloseReason::TimedOut => handshake.timed_out(),
        reason => ConnectError::Closed(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net_traits::{RejectionBy, TrustError, WithCauses};
    use std::time::Duration;

    const ME: CertHash = CertHash::from_bytes([1; 32]);

    fn resolve(error: &ConnectionError) -> CloseReason {
        resolve_bad_certificate(error, "127.0.0.1:1".parse().unwrap(), ME)
    }

    fn by_transport(status: Status) -> ConnectionError {
        ConnectionError::ClosedByTransport { status, code: 0x01 }
    }

    #[test]
    fn a_dial_that_runs_out_of_descriptors_may_succeed_later() {
        let error = ConnectionStartError::ConnectionLost(by_transport(Status::TOO_MANY_OPEN_FILES));
        let remote_addr = "127.0.0.1:1".parse().unwrap();
        let handshake = Handshake::new(ME, remote_addr, Vec::new(), Duration::from_secs(1));
        let error = failed(&handshake, &error);
        assert!(error.is_retryable(), "{error:?}");
        assert!(WithCauses(&error).to_string().contains("Too many open files"), "{error:?}");
    }

    #[test]
    fn certificate_alerts_are_rejections_by_the_peer() {
        for (status, alert) in [
            (Status::BAD_CERTIFICATE, 42),
            (Status::UNSUPPORTED_CERTIFICATE, 43),
            (Status::REVOKED_CERTIFICATE, 44),
            (Status::EXPIRED_CERTIFICATE, 45),
            (Status::UNKNOWN_CERTIFICATE, 46),
            (Status::REQUIRED_CERTIFICATE, 116),
        ] {
            let CloseReason::Rejected(rejection) = resolve(&by_transport(status)) else {
                panic!("{status} is not a rejection");
            };
            assert_eq!((rejection.by, rejection.alert), (RejectionBy::Peer, Some(alert)));
            assert_eq!(rejection.identity, Some(ME));
        }
    }

    #[test]
    fn a_rejection_by_this_side_names_the_peer() {
        let peer = CertHash::from_bytes([2; 32]);
        let error = ConnectionError::Untrusted(TrustError::UntrustedIdentity(peer));
        let CloseReason::Rejected(rejection) = resolve(&error) else { panic!("not a rejection") };
        assert_eq!((rejection.by, rejection.identity), (RejectionBy::Us, Some(peer)));
        assert!(rejection.to_string().contains(&peer.to_string()));
    }

    #[test]
    fn other_ends_are_distinguished() {
        assert_eq!(resolve(&by_transport(Status::CONNECTION_IDLE)), CloseReason::TimedOut);
        // msquic has a separate status for few of them.
        let status = Status::INTERNAL_ERROR;
        let violation = resolve(&ConnectionError::ClosedByTransport { status, code: 0x06 });
        assert!(
            matches!(violation, CloseReason::ProtocolViolation(_)) && !violation.is_retryable()
        );
        let failed = resolve(&by_transport(Status::INTERNAL_ERROR));
        assert!(matches!(failed, CloseReason::Transport(_)), "{failed:?}");
        let closed = ConnectionError::ClosedByPeer { code: 7, reason: "bye".into() };
        assert_eq!(resolve(&closed), CloseReason::Peer { code: 7, reason: "bye".into() });
    }
}
