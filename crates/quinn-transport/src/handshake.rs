//! The end of a handshake, and what its errors mean.

use crate::link::{Link, Quinn};
use net_kit::backend::Secured;
use net_kit::handshake::{Alert, Handshake, is_violation};
use net_kit::tls::{self, Verifier};
use net_traits::{Cause, CertificateDer, CloseReason, ConnectError};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connecting, ConnectionError, TransportErrorCode as Code};
use std::net::SocketAddr;

/// Completes a handshake.
pub(crate) async fn complete(
    connecting: Connecting,
    handshake: &Handshake,
    verifier: &Verifier,
    bound: SocketAddr,
) -> Result<Secured<Quinn>, ConnectError> {
    let connection = connecting.await.map_err(|error| failed(handshake, error, verifier))?;
    let certificates =
        connection.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'_>>>().ok());
    let data = connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol);
    let local_addr = (connection.local_ip().unwrap_or(bound.ip()), bound.port()).into();
    let certificates = certificates.as_deref().map(Vec::as_slice);
    let facts = tls::facts(handshake, local_addr, verifier, certificates, alpn.as_deref())?;
    Ok(Secured { link: Link::new(connection), io: (), facts })
}

/// Maps the error of a failed handshake.
pub(crate) fn failed(
    handshake: &Handshake,
    error: ConnectionError,
    verifier: &Verifier,
) -> ConnectError {
    if let Some(error) = handshake.rejected(verifier.verdict(), alert(&error)) {
        return error;
    }
    match &error {
        // The second is a close by the peer's application before the handshake is complete: QUIC
        // does not send its code then (RFC 9000, section 10.2.3).
        ConnectionError::ConnectionClosed(close)
            if matches!(close.error_code, Code::CONNECTION_REFUSED | Code::APPLICATION_ERROR) =>
        {
            ConnectError::Refused(handshake.remote_addr)
        }
        ConnectionError::TimedOut => handshake.timed_out(),
        _ => ConnectError::Closed(lost(handshake, error)),
    }
}

/// Maps the error of a lost connection.
pub(crate) fn lost(handshake: &Handshake, error: ConnectionError) -> CloseReason {
    if let Some(Alert::Received(alert)) = alert(&error)
        && let Some(reason) = handshake.closed_by(alert)
    {
        return reason;
    }
    let code = match &error {
        ConnectionError::ApplicationClosed(close) => {
            return CloseReason::Peer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            };
        }
        ConnectionError::LocallyClosed => {
            return CloseReason::Local { code: 0, reason: String::new() };
        }
        ConnectionError::TimedOut => return CloseReason::TimedOut,
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => Code::INTERNAL_ERROR,
    };
    match is_violation(code.into()) {
        true => CloseReason::ProtocolViolation(Cause::new(error)),
        false => CloseReason::Transport(Cause::new(error)),
    }
}

/// Returns the TLS alert that ended a connection (RFC 9001, section 4.8).
fn alert(error: &ConnectionError) -> Option<Alert> {
    let alert = |code: Code| u64::from(code).checked_sub(0x100).and_then(|it| it.try_into().ok());
    match error {
        ConnectionError::TransportError(error) => alert(error.code).map(Alert::Sent),
        ConnectionError::ConnectionClosed(close) => alert(close.error_code).map(Alert::Received),
        _ => None,
    }
}
