//! The TLS handshake on a TCP socket, and the mapping of its errors.

use crate::native::{Native, TcpTls};
use crate::record;
use net_kit::admission::{self, Place};
use net_kit::alpn::{RECEIPTS, without_version};
use net_kit::backend::Secured;
use net_kit::handshake::{Ended, Handshake};
use net_kit::tls::{self, TlsIdentity, Verifier, alert_of};
use net_traits::{Cause, CloseReason, ConnectError, Limit};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How long the socket of a rejected peer is kept, so that a reset does not discard the alert or
/// the code.
const LINGER: Duration = Duration::from_secs(1);

/// How many such sockets the process keeps at once, whatever its transports are.
const MOST_LINGERING: usize = 256;

/// The suffix of a name in TLS that says that a side supports requests.
const WITH_REQUESTS: &str = "+requests/1";

/// Returns the names that TLS offers, in order of preference: each with requests and receipts, then
/// for older peers with requests, and without either. Names that a suffix would make longer than
/// 255 bytes are left out.
fn versions(alpn: &[String]) -> Vec<String> {
    let all = |name: &String| {
        let with_requests = format!("{name}{WITH_REQUESTS}");
        [format!("{with_requests}{RECEIPTS}"), with_requests, name.clone()]
    };
    alpn.iter().flat_map(all).filter(|name| name.len() <= 255).collect()
}

/// Performs the dialler's side of a handshake.
pub(crate) async fn dial(
    stream: TcpStream,
    identity: &TlsIdentity,
    handshake: &Handshake,
) -> Result<Secured<TcpTls>, ConnectError> {
    let (config, verifier) = identity.client(&versions(&handshake.alpn))?;
    let name = handshake.remote_addr.ip().into();
    let connect = TlsConnector::from(Arc::new(config)).connect(name, stream).into_fallible();
    match connect.await {
        Ok(stream) => secured(stream.into(), handshake, &verifier),
        Err((error, stream)) => {
            linger(stream, Vec::new());
            Err(handshake.failed(verifier.verdict(), ended(error)))
        }
    }
}

/// Performs the listener's side of a handshake.
pub(crate) async fn accept(
    stream: TcpStream,
    identity: &TlsIdentity,
    handshake: &Handshake,
    place: Place,
) -> Result<(Secured<TcpTls>, Place), ConnectError> {
    stream.set_nodelay(true).map_err(|_| ConnectError::Refused(handshake.remote_addr))?;
    let (config, verifier) = identity.server(&versions(&handshake.alpn))?;
    match TlsAcceptor::from(Arc::new(config)).accept(stream).into_fallible().await {
        Ok(stream) => Ok((secured(stream.into(), handshake, &verifier)?, place)),
        Err((error, stream)) => {
            drop(place); // the attempt has its outcome: it must not keep others out
            linger(stream, Vec::new());
            Err(handshake.failed(verifier.verdict(), ended(error)))
        }
    }
}

/// Closes a connection beyond a limit, with the limit's code.
pub(crate) fn reject(stream: TlsStream<TcpStream>, limit: Limit, place: Place) {
    let last = record::close(limit.code(), admission::reason(limit));
    drop(place);
    linger(stream, last);
}

fn secured(
    stream: TlsStream<TcpStream>,
    handshake: &Handshake,
    verifier: &Verifier,
) -> Result<Secured<TcpTls>, ConnectError> {
    let (socket, session) = stream.get_ref();
    let local_addr =
        socket.local_addr().map_err(|_| ConnectError::Refused(handshake.remote_addr))?;
    let (certificates, alpn) = (session.peer_certificates(), session.alpn_protocol());
    let (name, has_receipts) = without_version(alpn.unwrap_or_default());
    let with_requests = name.strip_suffix(WITH_REQUESTS.as_bytes());
    let (alpn, has_requests) = (alpn.and(with_requests.or(Some(name))), with_requests.is_some());
    let facts = tls::facts(handshake, local_addr, verifier, certificates, alpn)?;
    let facts = facts.with_receipts(has_receipts);
    Ok(Secured { native: Native::new(has_requests), io: stream, facts })
}

/// Converts the error with which a connection ended.
pub(crate) fn ended(error: io::Error) -> Ended {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let (alert, is_refusal) = (of_tls.and_then(alert_of), of_tls.is_none() && is_gone(&error));
    let reason = match error.kind() {
        io::ErrorKind::TimedOut => CloseReason::TimedOut,
        _ => CloseReason::Transport(match error.downcast::<rustls::Error>() {
            Ok(error) => Cause::new(error),
            Err(error) => Cause::new(error),
        }),
    };
    Ended { alert, reason, is_refusal }
}

/// Returns whether the error means that the peer ended the connection without a TLS alert.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// Sends `last`, and keeps the socket open until the peer has read that and the alert before it.
/// Closing a socket with unread bytes would reset the connection and discard both, as it does beyond the limit.
fn linger<S>(mut stream: S, last: Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    static SOCKETS: Semaphore = Semaphore::const_new(MOST_LINGERING);
    let Ok(socket) = SOCKETS.try_acquire() else { return };
    tokio::spawn(async move {
        let _socket = socket;
        let read_to_end = async {
            let _ = stream.write_all(&last).await;
            let _ = stream.shutdown().await;
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        };
        let _ = timeout(LINGER, read_to_end).await; // a peer that keeps sending is disconnected
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};
    use tokio::time::sleep;

    const LAST: &[u8] = b"why";

    /// The socket of a peer whose handshake has failed.
    fn failed() -> DuplexStream {
        let (socket, peer) = duplex(64);
        linger(socket, LAST.to_vec());
        peer
    }

    /// Returns what the peer reads until the end.
    async fn read(peer: &mut DuplexStream) -> Vec<u8> {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        read
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_of_failed_handshakes_are_kept_up_to_a_limit_and_for_a_time() {
        let mut kept: Vec<_> = (0..MOST_LINGERING).map(|_| failed()).collect();
        assert!(read(&mut failed()).await.is_empty(), "it is closed at once");
        for peer in &mut kept {
            assert_eq!(read(peer).await, LAST);
            peer.write_all(b"data that would reset a closed connection").await.unwrap();
        }
        drop(kept.pop()); // the peer has closed
        sleep(LINGER / 2).await;
        let mut next = failed();
        assert_eq!(read(&mut next).await, LAST, "it has the place of the one that was closed");
        sleep(LINGER / 4 * 3).await;
        for peer in &mut kept {
            peer.write_all(b"data").await.unwrap_err(); // too late
        }
        next.write_all(b"data").await.unwrap();
        assert_eq!(read(&mut failed()).await, LAST, "there is room again");
    }
}
