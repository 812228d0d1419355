//! Opening streams, and accepting those of the peer.

use super::peer_streams::Install;
use super::state::ConnectionState;
use super::{Connection, ConnectionError};
use crate::coop;
use crate::send_stream::SendStream;
use crate::stream::{
    self, MakeSink, ReadStream, ReceiveSink, SinkStream, Stream, StreamInner, StreamType,
};
use crate::waiters::wait_future;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

impl Connection {
    /// Opens a stream. While the peer allows no further stream it waits, or fails if
    /// `fail_on_blocked`. Waiting callers get their streams in order of arrival.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::StreamType;
    ///
    /// let mut stream = connection.open_outbound_stream(StreamType::Unidirectional, false).await?;
    /// stream.write_chunk(&"news".into(), true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`stream::StartError`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up its place in the queue. If its stream was being started, the stream is aborted, and
    /// still counts against the peer's limit.
    pub fn open_outbound_stream(
        &self,
        stream_type: StreamType,
        fail_on_blocked: bool,
    ) -> OpenOutboundStream<'_> {
        OpenOutboundStream::new(self, stream_type, fail_on_blocked)
    }

    /// Opens a unidirectional stream for messages. While the peer allows no further stream it waits, in order of
    /// arrival.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = connection.open_send_stream().await?;
    /// stream.send("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`stream::StartError`].
    ///
    /// # Cancel safety
    ///
    /// As for [`open_outbound_stream`](Self::open_outbound_stream).
    pub fn open_send_stream(&self) -> OpenSendStream<'_> {
        OpenSendStream::new(self)
    }

    /// Waits for the next bidirectional stream of the peer.
    ///
    /// ```no_run
    /// # async fn answer(stream: msquic_async::Stream) {}
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// loop {
    ///     let stream = connection.accept_inbound_stream().await?;
    ///     tokio::spawn(answer(stream));
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], after all streams that had arrived were delivered.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no stream.
    pub fn accept_inbound_stream(&self) -> AcceptInboundStream<'_> {
        AcceptInboundStream::new(self)
    }

    /// Waits for the next unidirectional stream of the peer.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = connection.accept_inbound_uni_stream().await?;
    /// let message = stream.read_to_end(64 * 1024).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], after all streams that had arrived were delivered.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no stream.
    pub fn accept_inbound_uni_stream(&self) -> AcceptInboundUniStream<'_> {
        AcceptInboundUniStream::new(self)
    }

    /// Gives each unidirectional stream of the peer a sink, which `make` creates when the stream
    /// starts.
    ///
    /// The stream then counts as accepted, and its bytes are passed to the sink on msquic's thread
    /// without being queued. The peer may open another stream in its place once the sink has
    /// received the end. Streams that wait to be accepted get their sinks first, in the order of
    /// their starts, on the thread that calls this. Streams that were accepted before are not
    /// changed; [`accept_inbound_uni_stream`](Self::accept_inbound_uni_stream) then gets no stream.
    /// To give sinks to all streams, call this before the handshake, or before the first stream is
    /// accepted. A second call replaces `make` for the streams that start after it.
    ///
    /// `make` has the same rules as a [`ReceiveSink`]: it must be quick, and neither block nor
    /// panic. The [`SinkStream`] that it gets resumes or stops the stream.
    ///
    /// # Closing
    ///
    /// Sinks do not keep the connection open: it is closed when the last handle is dropped, and then the sinks
    /// receive the end. Neither `make` nor the sinks should therefore hold a handle of the connection. `make` is
    /// dropped when the connection has ended, a sink after its stream has ended. A sink that is paused at that
    /// time receives the end once it was [resumed](SinkStream::resume) and has taken the remaining bytes, or when
    /// the last handle of the connection is dropped.
    ///
    /// ```no_run
    /// use msquic_async::{Connection, ReceiveEnd, ReceiveSink};
    ///
    /// struct Counter(u64, usize);
    ///
    /// impl ReceiveSink for Counter {
    ///     fn receive(&mut self, data: &[u8]) -> usize {
    ///         self.1 += data.len();
    ///         data.len()
    ///     }
    ///
    ///     fn end(&mut self, end: ReceiveEnd) {
    ///         println!("stream {}: {} bytes, {end:?}", self.0, self.1);
    ///     }
    /// }
    ///
    /// fn count(connection: &Connection) {
    ///     connection.set_inbound_uni_sinks(|stream| Box::new(Counter(stream.id(), 0)));
    /// }
    /// ```
    pub fn set_inbound_uni_sinks(
        &self,
        make: impl Fn(SinkStream) -> Box<dyn ReceiveSink> + Send + Sync + 'static,
    ) {
        let make: Arc<MakeSink> = Arc::new(make);
        loop {
            let install = self.inner().exclusive.lock().peer_streams.install(&make);
            match install {
                Install::Next(stream) => stream.accept_with_sink(&*make),
                Install::Done(_before) => return,
            }
        }
    }

    /// [`accept_inbound_stream`](Self::accept_inbound_stream) for pollers. Any number of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = std::future::poll_fn(|cx| connection.poll_accept_inbound_stream(cx)).await?;
    /// println!("stream {:?}", stream.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept_inbound_stream`](Self::accept_inbound_stream).
    pub fn poll_accept_inbound_stream(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let arrived = &self.inner().inbound.bidirectional;
        arrived.poll_registered(cx, || self.next_inbound(StreamType::Bidirectional))
    }

    /// [`accept_inbound_uni_stream`](Self::accept_inbound_uni_stream) for pollers. Any number of tasks
    /// may wait.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::future::poll_fn;
    ///
    /// let mut stream = poll_fn(|cx| connection.poll_accept_inbound_uni_stream(cx)).await?;
    /// let message = stream.read_to_end(64 * 1024).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`accept_inbound_uni_stream`](Self::accept_inbound_uni_stream).
    pub fn poll_accept_inbound_uni_stream(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReadStream, ConnectionError>> {
        self.inner().inbound.unidirectional.poll_registered(cx, || self.next_inbound_uni())
    }

    /// The next stream of the peer, or why there will be none; `None`: wait.
    fn next_inbound(&self, stream_type: StreamType) -> Option<Result<Stream, ConnectionError>> {
        let inner = {
            let mut exclusive = self.inner().exclusive.lock();
            match exclusive.peer_streams.accept(stream_type) {
                Some(inner) => inner,
                None => match &exclusive.state {
                    ConnectionState::Open => return Some(Err(ConnectionError::NotStarted)),
                    state => return state.error().map(|error| Err(error.clone())),
                },
            }
        };
        inner.release();
        Some(Ok(Stream::new(inner, self.handle())))
    }

    fn next_inbound_uni(&self) -> Option<Result<ReadStream, ConnectionError>> {
        let stream = match self.next_inbound(StreamType::Unidirectional)? {
            Ok(stream) => stream,
            Err(error) => return Some(Err(error)),
        };
        stream.split().0.map(Ok)
    }
}

impl Stream {
    /// Creates a stream of `connection`, which [`poll_start`](Self::poll_start) opens.
    /// [`Connection::open_outbound_stream`] does both.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// use msquic_async::{Stream, StreamType};
    ///
    /// let mut stream = Stream::open(&connection, StreamType::Bidirectional)?;
    /// std::future::poll_fn(|cx| stream.poll_start(cx, false)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StreamStartError::ConnectionLost`](stream::StartError::ConnectionLost) when the connection has ended or was not started.
    pub fn open(
        connection: &Connection,
        stream_type: StreamType,
    ) -> Result<Self, stream::StartError> {
        let inner = connection.inner();
        inner.check_usable().map_err(stream::StartError::ConnectionLost)?;
        Ok(Self::new(StreamInner::new(inner.clone(), stream_type, true), connection.handle()))
    }
}

impl SendStream {
    /// Creates a stream of `connection`, which [`poll_start`](Self::poll_start) opens.
    /// [`Connection::open_send_stream`] does both.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut stream = msquic_async::SendStream::open(&connection)?;
    /// std::future::poll_fn(|cx| stream.poll_start(cx, false)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StreamStartError::ConnectionLost`](stream::StartError::ConnectionLost) when the connection has ended or was not started.
    pub fn open(connection: &Connection) -> Result<Self, stream::StartError> {
        Ok(Self::from_stream(Stream::open(connection, StreamType::Unidirectional)?))
    }
}

wait_future! {
    /// Future of [`Connection::accept_inbound_stream`].
    AcceptInboundStream(connection: &Connection) -> Result<Stream, ConnectionError>,
    on connection.inner().inbound.bidirectional,
    take connection.next_inbound(StreamType::Bidirectional)
}

wait_future! {
    /// Future of [`Connection::accept_inbound_uni_stream`].
    AcceptInboundUniStream(connection: &Connection) -> Result<ReadStream, ConnectionError>,
    on connection.inner().inbound.unidirectional, take connection.next_inbound_uni()
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
        coop::poll(cx, |cx| {
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
        })
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
