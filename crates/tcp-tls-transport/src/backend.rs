//! Listens, dials and closes with TCP sockets and TLS.

use crate::config::TcpTlsConfig;
use crate::native::{Native, TcpTls, outbox};
use crate::requests::Question;
use crate::{driver, handshake};
use net_kit::admission::{ListenerAdmission, Place};
use net_kit::backend::{Backend, Secured, Session, cannot_listen, listen_tcp};
use net_kit::handshake::Handshake;
use net_kit::tls::TlsIdentity;
use net_traits::{
    Bytes, Cause, CloseOutcome, CloseReason, ConnectError, Limit, ListenError, RequestError,
};
#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::is_rt_shutdown_err;
use tokio::time::sleep;
use tokio_rustls::TlsStream;

/// Delay before the next `accept` when the system is out of sockets.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

impl Backend for TcpTls {
    const NAME: &'static str = "tcp";
    const CONFIRMED: CloseOutcome = CloseOutcome::Delivered;

    type Config = TcpTlsConfig;
    type Socket = Arc<TcpListener>;
    type Attempt = TcpStream;
    type Native = Native;
    type Io = TlsStream<TcpStream>;
    type Question = Question;

    fn new(_: &TcpTlsConfig) -> Self {
        Self
    }

    async fn listen(
        &self,
        bind_addr: SocketAddr,
        _: &[String],
        _: &TlsIdentity,
    ) -> Result<(Arc<TcpListener>, SocketAddr), ListenError> {
        let failed = |error| cannot_listen(bind_addr, error);
        let socket = listen_tcp(bind_addr).and_then(TcpListener::from_std).map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        Ok((Arc::new(socket), local_addr))
    }

    async fn accept(
        socket: &Arc<TcpListener>,
        listener: &ListenerAdmission,
    ) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match socket.accept().await {
                Ok(accepted) => return Some(accepted),
                // The peer has disconnected already.
                Err(error) if handshake::is_gone(&error) => {}
                // The runtime of the socket has ended.
                Err(error) if is_rt_shutdown_err(&error) => return None,
                Err(error) => {
                    listener.admission().cannot_accept(&error);
                    sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }

    /// Closes the socket. The code cannot be sent before the handshake.
    fn refuse(_: TcpStream, _code: u64) {}

    fn stop(_: Arc<TcpListener>) {}

    async fn handshake(
        &self,
        attempt: TcpStream,
        _: SocketAddr,
        identity: &TlsIdentity,
        handshake: &Handshake,
        place: Place,
    ) -> Result<(Secured<Self>, Place), ConnectError> {
        handshake::accept(attempt, identity, handshake, place).await
    }

    fn reject(secured: Secured<Self>, limit: Limit, place: Place) {
        handshake::reject(secured.io, limit, place);
    }

    async fn dial(
        &self,
        identity: &TlsIdentity,
        handshake: &Handshake,
    ) -> Result<Secured<Self>, ConnectError> {
        let remote_addr = handshake.remote_addr;
        let stream = TcpStream::connect(remote_addr).await;
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|error| unreachable(error, remote_addr))?;
        handshake::dial(stream, identity, handshake).await
    }

    async fn drive(session: Arc<Session<Self>>, io: TlsStream<TcpStream>, handshake: Handshake) {
        let mut io = io;
        driver::drive(&session, &mut io, &handshake).await;
        limit_delivery(io.get_ref().0, session.config().no_progress_timeout);
    }

    fn abort(session: &Session<Self>, code: u64, reason: &str) {
        session.abort_lanes(code, reason);
        driver::end(session, CloseReason::TimedOut); // the local close takes precedence
    }

    async fn request(session: &Session<Self>, question: Bytes) -> Result<Bytes, RequestError> {
        session.native().requests()?.ask(outbox(session), question).await
    }

    async fn accept_request(session: &Session<Self>) -> Result<Question, RequestError> {
        Ok(session.native().requests()?.accept().await)
    }
}

/// Limits how long the system tries to deliver what remains after the end of a connection, while the peer takes
/// nothing. Otherwise a peer that reads nothing would leave a socket and its data behind for each connection.
fn limit_delivery(stream: &TcpStream, timeout: Duration) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(timeout)); // it may have ended
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, timeout); // other systems have limits of their own
}

/// Maps the error of a failed TCP connection attempt.
fn unreachable(error: io::Error, remote_addr: SocketAddr) -> ConnectError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            ConnectError::Refused(remote_addr)
        }
        _ => ConnectError::Closed(CloseReason::Transport(Cause::new(error))),
    }
}
