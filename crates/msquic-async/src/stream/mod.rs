//! Streams: ordered bytes in one direction or both.
//!
//! Bytes out: `write → bounded queue → one gather send → completion → wake`. Bytes in: `arrival →
//! budget of the stream → read`, or `arrival → `[`ReceiveSink`]. Past the budget nothing is taken
//! from msquic, so flow control reaches the peer.

mod error;
mod event;
#[cfg(test)]
mod event_orders;
mod future;
mod handle;
mod inner;
mod io;
mod progress;
mod read;
mod receiving;
mod recv_buffer;
mod sending;
mod sink;
mod sink_stream;
mod state;
mod stream_type;
mod write;

pub use error::{ReadError, ReadToEndError, StartError, WriteError};
pub use future::{
    Enqueue, FinishWrite, Flush, ReadChunk, ReceivedReset, Stopped, WriteChunk, WriteChunks,
};
pub(crate) use inner::StreamInner;
pub(crate) use progress::Place as ProgressPlace;
pub use read::ReadStream;
pub use recv_buffer::StreamRecvBuffer;
pub use sink::{ReceiveEnd, ReceiveSink};
pub(crate) use sink_stream::MakeSink;
pub use sink_stream::SinkStream;
pub use stream_type::StreamType;
pub use write::WriteStream;

use crate::waker_check::checked;
use bytes::Bytes;
use handle::{KeepsConnection, StreamHandle};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A stream, with the directions that this side can use.
///
/// [`split`](Self::split) returns a [`ReadStream`] and a [`WriteStream`] that different tasks can use.
///
/// Dropping the receiving direction before its end asks the peer to stop sending (code 0). Dropping the sending
/// direction before it was [finished](WriteStream::finish) resets it (code 0); what was written last may then not
/// arrive.
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// use msquic_async::StreamType;
///
/// let mut stream = connection.open_outbound_stream(StreamType::Bidirectional, false).await?;
/// stream.write_chunk(&"question".into(), true).await?;
/// while let Some(chunk) = stream.read_chunk().await? {
///     println!("{} bytes", chunk.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Stream {
    inner: StreamHandle,
    read: Option<ReadStream>,
    write: Option<WriteStream>,
}

impl Stream {
    /// Creates a handle of the stream.
    pub(crate) fn new(inner: Arc<StreamInner>, connection: KeepsConnection) -> Self {
        let (is_local, is_bidi) = (inner.is_local, inner.stream_type == StreamType::Bidirectional);
        let inner = StreamHandle::new(inner, connection);
        let read = (is_bidi || !is_local).then(|| ReadStream(inner.clone()));
        let write = (is_bidi || is_local).then(|| WriteStream(inner.clone()));
        Self { inner, read, write }
    }

    /// Opens the stream. It is ready once the peer's limit of streams allows it, in order of arrival; with
    /// `failed_on_block` it fails instead of waiting, and may be tried again. Nothing can be written before.
    ///
    /// A stream that waits keeps its place in the queue of its connection until it is dropped, split or aborted.
    /// Poll it again when its task is woken, since it may hold credit that other openers wait for.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_start(cx, true)).await?;
    /// println!("stream {:?}", stream.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn poll_start(
        &mut self,
        cx: &mut Context<'_>,
        failed_on_block: bool,
    ) -> Poll<Result<(), StartError>> {
        checked(|| {
            loop {
                let started = ready!(self.inner.poll_start(cx, failed_on_block));
                let Some(successor) = self.inner.successor(!failed_on_block) else {
                    return Poll::Ready(started);
                };
                *self = Self::new(successor, self.inner.connection());
                if failed_on_block {
                    return Poll::Ready(started);
                }
            }
        })
    }

    /// The QUIC stream id, once the stream has one.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = connection.accept_inbound_stream().await?;
    /// println!("stream {:?}", stream.id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(&self) -> Option<u64> {
        self.inner.id.get().copied()
    }

    /// Splits the stream into the directions that this side can use.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// if let (Some(mut read), Some(mut write)) = stream.split() {
    ///     tokio::spawn(async move { write.write_chunk(&"question".into(), true).await });
    ///     let answer = read.read_to_end(64 * 1024).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(self) -> (Option<ReadStream>, Option<WriteStream>) {
        (self.read, self.write)
    }

    /// Reads bytes into `buf` and returns how many; 0 at the end. See [`ReadStream::poll_read`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buf = [0; 1024];
    /// let length = std::future::poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
    /// println!("{:?}", &buf[..length]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, ReadError>> {
        self.reader()?.poll_read(cx, buf)
    }

    /// See [`ReadStream::poll_read_chunk`].
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(chunk) = std::future::poll_fn(|cx| stream.poll_read_chunk(cx)).await? {
    ///     println!("{} bytes", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn poll_read_chunk(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<StreamRecvBuffer>, ReadError>> {
        self.reader()?.poll_read_chunk(cx)
    }

    /// See [`ReadStream::read_chunk`].
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// while let Some(chunk) = stream.read_chunk().await? {
    ///     println!("{} bytes", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses nothing.
    pub fn read_chunk(&self) -> ReadChunk<'_> {
        ReadChunk::new(&self.inner)
    }

    /// See [`WriteStream::poll_write`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// let length = std::future::poll_fn(|cx| stream.poll_write(cx, b"hello", false)).await?;
    /// println!("{length} bytes queued");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.writer()?.poll_write(cx, buf, fin)
    }

    /// See [`WriteStream::poll_write_chunk`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// let chunk = "hello".into();
    /// std::future::poll_fn(|cx| stream.poll_write_chunk(cx, &chunk, true)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &Bytes,
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.writer()?.poll_write_chunk(cx, chunk, fin)
    }

    /// See [`WriteStream::write_chunk`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunk(&"hello".into(), true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunk` or nothing.
    pub fn write_chunk<'a>(&'a mut self, chunk: &'a Bytes, fin: bool) -> WriteChunk<'a> {
        WriteChunk::new(&self.inner, chunk, fin)
    }

    /// See [`WriteStream::poll_write_chunks`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// let chunks = ["head".into(), "body".into()];
    /// std::future::poll_fn(|cx| stream.poll_write_chunks(cx, &chunks, true)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[Bytes],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.writer()?.poll_write_chunks(cx, chunks, fin)
    }

    /// See [`WriteStream::write_chunks`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunks(&["head".into(), "body".into()], true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn write_chunks<'a>(&'a mut self, chunks: &'a [Bytes], fin: bool) -> WriteChunks<'a> {
        WriteChunks::new(&self.inner, chunks, fin)
    }

    /// See [`WriteStream::poll_finish_write`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_finish_write(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_finish_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.writer()?.poll_finish_write(cx)
    }

    /// See [`WriteStream::poll_abort_write`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_abort_write(cx, 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_abort_write(
        &mut self,
        cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), WriteError>> {
        self.writer()?.poll_abort_write(cx, error_code)
    }

    /// See [`WriteStream::abort_write`].
    ///
    /// ```no_run
    /// # fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.abort_write(7)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] when this side cannot write.
    pub fn abort_write(&mut self, error_code: u64) -> Result<(), WriteError> {
        self.writer()?.abort_write(error_code)
    }

    /// See [`ReadStream::poll_abort_read`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_abort_read(cx, 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn poll_abort_read(
        &mut self,
        cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), ReadError>> {
        self.reader()?.poll_abort_read(cx, error_code)
    }

    /// See [`ReadStream::abort_read`].
    ///
    /// ```no_run
    /// # fn example(mut stream: msquic_async::Stream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.abort_read(7)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] when this side cannot read.
    pub fn abort_read(&mut self, error_code: u64) -> Result<(), ReadError> {
        self.reader()?.abort_read(error_code)
    }

    pub(crate) fn inner(&self) -> &StreamInner {
        &self.inner
    }

    fn reader(&self) -> Result<&ReadStream, ReadError> {
        self.read.as_ref().ok_or(ReadError::Closed)
    }

    pub(crate) fn writer(&self) -> Result<&WriteStream, WriteError> {
        self.write.as_ref().ok_or(WriteError::Closed)
    }
}
