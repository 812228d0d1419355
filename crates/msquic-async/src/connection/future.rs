//! The named futures of connections.

use super::{Connection, ConnectionError, ConnectionInner, StartError};
use crate::ffi::may_block::{MayBlock, detach};
use crate::send_stream::SendStream;
use crate::stream::{self, ReadStream, Stream, StreamType};
use crate::waiters::wait_future;
use crate::{Configuration, Status};
use rustls_pki_types::CertificateDer;
use std::ffi::CString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

wait_future! {
    /// Future of [`Connection::accept`].
    ConnectionAccept(connection: &Connection) -> Result<(), StartError>,
    on connection.inner().changed, until connection.connected()
}

wait_future! {
    /// Future of [`Connection::watch_shutdown`].
    WatchShutdown(connection: &Connection) -> ConnectionError,
    on connection.inner().changed, until connection.shut_down()
}

wait_future! {
    /// Future of [`Connection::receive_remote_certificate`].
    RemoteCertificateReceiver(connection: &Connection)
        -> Result<CertificateDer<'static>, StartError>,
    on connection.inner().changed, until connection.certificate()
}

wait_future! {
    /// Future of [`Connection::accept_inbound_stream`].
    AcceptInboundStream(connection: &Connection) -> Result<Stream, ConnectionError>,
    on connection.inner().inbound.bidirectional,
    until connection.next_inbound(StreamType::Bidirectional)
}

wait_future! {
    /// Future of [`Connection::accept_inbound_uni_stream`].
    AcceptInboundUniStream(connection: &Connection) -> Result<ReadStream, ConnectionError>,
    on connection.inner().inbound.unidirectional, until connection.next_inbound_uni()
}

/// Future of [`Connection::start`].
#[must_use = "futures do nothing unless polled"]
pub struct ConnectionStart {
    start: Pin<Box<dyn Future<Output = Result<(), StartError>> + Send>>,
}

impl ConnectionStart {
    pub(super) fn new(
        connection: Connection,
        configuration: Configuration,
        host: String,
        port: u16,
    ) -> Self {
        let start = async move {
            start(&connection, configuration, host, port).await?;
            connection.accept().await
        };
        Self { start: Box::pin(start) }
    }
}

impl fmt::Debug for ConnectionStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionStart").finish_non_exhaustive()
    }
}

impl Future for ConnectionStart {
    type Output = Result<(), StartError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.start.as_mut().poll(cx)
    }
}

/// Begins the handshake.
async fn start(
    connection: &Connection,
    configuration: Configuration,
    host: String,
    port: u16,
) -> Result<(), StartError> {
    let invalid = |what: &str| StartError::InvalidInput(what.to_owned());
    if port == 0 {
        return Err(invalid("port 0 cannot be connected to"));
    }
    let name = CString::new(host.as_str()).map_err(|_| invalid("the host contains a zero byte"))?;
    let inner = connection.inner().clone();
    let address = literal(&host, port);
    if !inner.begin(&configuration) {
        return Err(inner.error().map_or(StartError::AlreadyStarted, StartError::ConnectionLost));
    }
    let ticket = address.and_then(|address| inner.dial(&name, address));
    if let (Some(address), None, None) = (address, configuration.key_log(), &ticket) {
        inner.set_addrs(None, Some(address));
        let started = inner.native().start(configuration.native(), &name, port);
        return started_or_failed(&inner, started);
    }
    // The resolver waits, and so does setting parameters. The attempt goes on, and its end is told to
    // the connection, also when this future is dropped.
    let (done, result) = tokio::sync::oneshot::channel();
    let is_name = address.is_none();
    let begin = move |address: SocketAddr, may_block: &MayBlock| {
        inner.set_addrs(None, Some(address));
        let (native, calls) = (inner.native(), inner.native().calls(may_block));
        // Of a name the address is known only now.
        let ticket = ticket.or_else(|| inner.dial(&name, address));
        let log_keys = configuration.key_log().map_or(Ok(()), |_| calls.log_keys());
        let started = log_keys
            // An address in `name` is known to msquic: setting it here would wait once more.
            .and_then(|()| if is_name { calls.set_remote_addr(address) } else { Ok(()) })
            // C31: if that fails, the connection cannot be started any more.
            .and_then(|()| ticket.map_or(Ok(()), |ticket| calls.set_ticket(&ticket)))
            .and_then(|()| native.start(configuration.native(), &name, port));
        started_or_failed(&inner, started)
    };
    match address {
        Some(address) => {
            detach(move |may_block| {
                let _ = done.send(begin(address, may_block));
            });
        }
        None => {
            let inner = connection.inner().clone();
            let attempt = move || match resolve(&host, port) {
                Ok(address) => detach(move |may_block| {
                    let _ = done.send(begin(address, may_block));
                }),
                Err(error) => {
                    inner.start_failed(Status::NOT_FOUND);
                    let _ = done.send(Err(error));
                }
            };
            blocking::unblock(attempt).detach();
        }
    }
    result.await.unwrap_or(Err(StartError::Other(Status::ABORTED)))
}

fn started_or_failed(
    inner: &ConnectionInner,
    started: Result<(), Status>,
) -> Result<(), StartError> {
    started.map_err(|status| {
        inner.start_failed(status);
        StartError::Other(status)
    })
}

/// The address that `host` is, if it is no name. The zone of a link-local address is a number (RFC 4007, section 11).
fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let without_zone = host.parse().map(|ip: IpAddr| SocketAddr::new(ip, port));
    without_zone.or_else(|_| format!("[{host}]:{port}").parse()).ok()
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let failed = |message: String| StartError::Resolve { host: host.to_owned(), message };
    let mut addresses =
        (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("it has no address".to_owned()))
}

/// Future of [`Connection::open_outbound_stream`].
#[must_use = "futures do nothing unless polled"]
pub struct OpenOutboundStream<'a> {
    connection: &'a Connection,
    stream_type: StreamType,
    fail_on_blocked: bool,
    stream: Option<Stream>,
}

impl<'a> OpenOutboundStream<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        stream_type: StreamType,
        fail_on_blocked: bool,
    ) -> Self {
        Self { connection, stream_type, fail_on_blocked, stream: None }
    }
}

impl Future for OpenOutboundStream<'_> {
    type Output = Result<Stream, stream::StartError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut stream = match this.stream.take() {
            Some(stream) => stream,
            None => Stream::open(this.connection, this.stream_type)?,
        };
        match stream.poll_start(cx, this.fail_on_blocked) {
            Poll::Pending => {
                this.stream = Some(stream);
                Poll::Pending
            }
            Poll::Ready(started) => Poll::Ready(started.map(|()| stream)),
        }
    }
}

impl fmt::Debug for OpenOutboundStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOutboundStream").finish_non_exhaustive()
    }
}

/// Future of [`Connection::open_send_stream`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct OpenSendStream<'a> {
    open: OpenOutboundStream<'a>,
}

impl<'a> OpenSendStream<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { open: OpenOutboundStream::new(connection, StreamType::Unidirectional, false) }
    }
}

impl Future for OpenSendStream<'_> {
    type Output = Result<SendStream, stream::StartError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = ready!(Pin::new(&mut self.get_mut().open).poll(cx))?;
        Poll::Ready(Ok(SendStream::from_stream(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn addresses_are_told_from_names() {
        let text = |host| literal(host, 7).map(|address| address.to_string());
        assert_eq!(text("10.0.0.1").as_deref(), Some("10.0.0.1:7"));
        assert_eq!(text("::1").as_deref(), Some("[::1]:7"));
        assert_eq!(text("fe80::1%4").as_deref(), Some("[fe80::1%4]:7"));
        for name in ["localhost", "fe80::1%eth0", "[::1]", "::1]:5", ""] {
            assert_eq!(text(name), None, "{name}");
        }
    }
}
