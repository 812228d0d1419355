//! The end of a handshake, and what its errors mean.

use crate::native::{Native, Quinn};
use net_kit::backend::Secured;
use net_kit::handshake::{Alert, Ended, Handshake};
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
    let connection =
        connecting.await.map_err(|error| handshake.failed(verifier.verdict(), ended(error)))?;
    let certificates =
        connection.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'_>>>().ok());
    let data = connection.handshake_data().and_then(|it| it.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|data| data.protocol);
    let local_addr = (connection.local_ip().unwrap_or(bound.ip()), bound.port()).into();
    let certificates = certificates.as_deref().map(Vec::as_slice);
    let facts = tls::facts(handshake, local_addr, verifier, certificates, alpn.as_deref())?;
    Ok(Secured { native: Native::new(connection), io: (), facts })
}

/// Says how a connection ended.
pub(crate) fn ended(error: ConnectionError) -> Ended {
    let (code, alert): (_, fn(u8) -> Alert) = match &error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            let code = close.error_code.into_inner();
            return Ended::new(CloseReason::Peer { code, reason });
        }
        ConnectionError::LocallyClosed => {
            return Ended::new(CloseReason::Local { code: 0, reason: String::new() });
        }
        ConnectionError::TimedOut => return Ended::new(CloseReason::TimedOut),
        ConnectionError::TransportError(error) => (error.code, Alert::Sent),
        ConnectionError::ConnectionClosed(close) => (close.error_code, Alert::Received),
        _ => (Code::INTERNAL_ERROR, Alert::Sent),
    };
    Ended::by_quic(code.into(), alert, Cause::new(error))
}
