//! The named futures of connections.

use super::dial::{self, Dial};
use super::{Connection, ConnectionError, StartError};
use crate::Configuration;
use crate::send_stream::SendStream;
use crate::stream::{self, ReadStream, Stream, StreamType};
use crate::waiters::wait_future;
use rustls_pki_types::CertificateDer;
use std::fmt;
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
    pub(super) fn new(connection: Connection, configuration: Configuration, dial: Dial) -> Self {
        let start = async move {
            dial::start(&connection, configuration, dial, None).await?;
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
