//! Streams: ordered bytes in one direction or both.
//!
//! [`Stream`] opens and owns both directions; [`Stream::split`] gives a [`ReadStream`] and a
//! [`WriteStream`] that can go to different tasks. Each direction has one owner at a time.
//!
//! Bytes out: `write → bounded queue → one gather send → completion → wake`. Bytes in: `arrival →
//! budget of the stream → read`, or `arrival → `[`ReceiveSink`]. Past the budget nothing is taken
//! from msquic, so flow control reaches the peer.
//!
//! Dropping a [`ReadStream`] before its end tells the peer to stop (code 0). Dropping a
//! [`WriteStream`] that was not [finished](WriteStream::finish) resets it (code 0), and the peer may
//! lose what was written last.

mod error;
mod event;
mod future;
mod inner;
mod io;
#[cfg(test)]
mod player;
mod state;

pub use error::{ReadError, ReadToEndError, StartError, WriteError};
pub use future::{
    Enqueue, FinishWrite, Flush, ReadChunk, ReceivedReset, Stopped, WriteChunk, WriteChunks,
};
pub(crate) use inner::StreamInner;

use crate::Status;
use crate::connection::{Connection, ConnectionHandle};
use crate::ffi::may_block::unblock;
use bytes::{Buf, Bytes};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The kind of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamType {
    /// Both sides send.
    Bidirectional,
    /// Only the side that opened it sends.
    Unidirectional,
}

/// A stream with the directions that this side has of it.
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

/// The receiving direction of a stream.
#[derive(Debug)]
pub struct ReadStream(StreamHandle);

/// The sending direction of a stream.
#[derive(Debug)]
pub struct WriteStream(StreamHandle);

/// What the directions of a stream share: the stream, and that its connection stays.
#[derive(Clone)]
struct StreamHandle {
    inner: Arc<StreamInner>,
    _connection: Arc<ConnectionHandle>,
}

impl Deref for StreamHandle {
    type Target = Arc<StreamInner>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl std::fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = &self.inner;
        write!(f, "{:?} stream {:?}", inner.stream_type, inner.id.get())
    }
}

impl Stream {
    /// Makes a stream of `connection`; [`poll_start`](Self::poll_start) opens it.
    /// [`Connection::open_outbound_stream`] does both.
    ///
    /// # Errors
    ///
    /// [`StartError::ConnectionLost`] when the connection is over or was not started.
    pub fn open(connection: &Connection, stream_type: StreamType) -> Result<Self, StartError> {
        let inner = connection.inner();
        inner.check_usable().map_err(StartError::ConnectionLost)?;
        Ok(Self::new(StreamInner::new(inner, stream_type, true), connection.handle()))
    }

    /// A handle of a stream that exists.
    pub(crate) fn new(inner: Arc<StreamInner>, connection: Arc<ConnectionHandle>) -> Self {
        let (is_local, is_bidi) = (inner.is_local, inner.stream_type == StreamType::Bidirectional);
        let inner = StreamHandle { inner, _connection: connection };
        let read = (is_bidi || !is_local).then(|| ReadStream(inner.clone()));
        let write = (is_bidi || is_local).then(|| WriteStream(inner.clone()));
        Self { inner, read, write }
    }

    /// Opens the stream. It is ready once the peer's limit of streams allows it; with
    /// `failed_on_block` it fails instead of waiting. One task at a time may wait.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn poll_start(
        &mut self,
        cx: &mut Context<'_>,
        failed_on_block: bool,
    ) -> Poll<Result<(), StartError>> {
        self.inner.poll_start(cx, failed_on_block)
    }

    /// The QUIC stream id, once the stream has one.
    pub fn id(&self) -> Option<u64> {
        self.inner.id.get().copied()
    }

    /// The directions that this side has.
    pub fn split(self) -> (Option<ReadStream>, Option<WriteStream>) {
        (self.read, self.write)
    }

    /// Reads bytes into `buf` and tells how many; 0 at the end. See [`ReadStream::poll_read`].
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
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses nothing.
    pub fn read_chunk(&self) -> ReadChunk<'_> {
        ReadChunk::new(self.read.as_ref())
    }

    /// See [`WriteStream::poll_write`].
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
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunk` or nothing.
    pub fn write_chunk<'a>(&'a mut self, chunk: &'a Bytes, fin: bool) -> WriteChunk<'a> {
        WriteChunk::new(self.write.as_ref(), chunk, fin)
    }

    /// See [`WriteStream::poll_write_chunks`].
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
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn write_chunks<'a>(&'a mut self, chunks: &'a [Bytes], fin: bool) -> WriteChunks<'a> {
        WriteChunks::new(self.write.as_ref(), chunks, fin)
    }

    /// See [`WriteStream::poll_finish_write`].
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_finish_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.writer()?.poll_finish_write(cx)
    }

    /// See [`WriteStream::poll_abort_write`].
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
    /// # Errors
    ///
    /// [`WriteError::Closed`] when this side cannot write.
    pub fn abort_write(&mut self, error_code: u64) -> Result<(), WriteError> {
        self.writer()?.abort_write(error_code)
    }

    /// See [`ReadStream::poll_abort_read`].
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
    /// # Errors
    ///
    /// [`ReadError::Closed`] when this side cannot read.
    pub fn abort_read(&mut self, error_code: u64) -> Result<(), ReadError> {
        self.reader()?.abort_read(error_code)
    }

    fn reader(&self) -> Result<&ReadStream, ReadError> {
        self.read.as_ref().ok_or(ReadError::Closed)
    }

    pub(crate) fn writer(&self) -> Result<&WriteStream, WriteError> {
        self.write.as_ref().ok_or(WriteError::Closed)
    }
}

impl ReadStream {
    /// The QUIC stream id, once the stream has one.
    pub fn id(&self) -> Option<u64> {
        self.0.id.get().copied()
    }

    /// Reads bytes into `buf` and tells how many: 0 at the end of the stream, or when `buf` is
    /// empty. One task at a time may wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`], after everything that arrived was read.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, ReadError>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let read = self.0.poll_read(cx, |queue| queue.read(buf));
        read.map_ok(Option::unwrap_or_default)
    }

    /// Takes what has arrived; `None` at the end of the stream. One task at a time may wait.
    ///
    /// # Errors
    ///
    /// [`ReadError`], after everything that arrived was read.
    pub fn poll_read_chunk(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<StreamRecvBuffer>, ReadError>> {
        self.0.poll_read(cx, |queue| StreamRecvBuffer(queue.chunk(usize::MAX)))
    }

    /// Waits for bytes and takes what has arrived; `None` at the end of the stream.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses nothing.
    pub fn read_chunk(&self) -> ReadChunk<'_> {
        ReadChunk::new(Some(self))
    }

    /// Tells the peer to stop sending, with a code of the application, and gives up what was not
    /// read. Ready at once: nothing more is delivered.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] when this side cannot read.
    pub fn poll_abort_read(
        &self,
        _cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), ReadError>> {
        Poll::Ready(self.abort_read(error_code))
    }

    /// Tells the peer to stop sending, with a code of the application (below 2^62), and gives up
    /// what was not read. Aborting again, or after the end, does nothing.
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] when this side cannot read.
    pub fn abort_read(&self, error_code: u64) -> Result<(), ReadError> {
        self.0.abort_read(error_code)
    }

    /// Reads until the end of the stream, at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`ReadToEndError::TooLong`] once more than `limit` bytes have come; the stream is then in an
    /// unknown place, so abort it. [`ReadToEndError::Read`] as for the other reads.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: a dropped future loses what it has read.
    pub async fn read_to_end(&mut self, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.read_chunk().await.map_err(ReadToEndError::Read)? {
            if chunk.len() > limit - all.len() {
                return Err(ReadToEndError::TooLong { limit });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Waits until the peer has finished the stream (`None`) or reset it (its code), without reading.
    /// The finish is known once everything before it was read.
    ///
    /// # Errors
    ///
    /// [`ReadError::ConnectionLost`], and [`ReadError::Closed`] after an abort by this side.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Any number of tasks may wait.
    pub fn received_reset(&self) -> ReceivedReset<'_> {
        ReceivedReset::new(self)
    }

    /// From now on gives bytes to `sink` as they arrive, on msquic's thread, beginning with what
    /// was not read; reads then find nothing. A stream takes one sink.
    ///
    /// # Errors
    ///
    /// Gives `sink` back when the stream has one.
    pub fn set_sink(&self, sink: Box<dyn ReceiveSink>) -> Result<(), Box<dyn ReceiveSink>> {
        self.0.set_sink(sink)
    }

    /// Offers bytes to the sink again, after it took fewer than offered and now has room.
    pub fn resume(&self) {
        self.0.run_sink();
    }
}

impl WriteStream {
    /// The QUIC stream id, once the stream has one.
    pub fn id(&self) -> Option<u64> {
        self.0.id.get().copied()
    }

    /// Copies bytes of `buf` into the queue of the stream and tells how many; waits while it is
    /// full. With `fin`, once all of `buf` is taken, the stream is finished behind it. One task at
    /// a time may wait.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.0.poll_write(cx, |queue, send| {
            let length = buf.len().min(queue.room());
            queue.push_copy(&buf[..length]);
            if fin && length == buf.len() {
                send.apply(state::SendInput::Finish);
                queue.finish();
            }
            length
        })
    }

    /// Puts all of `chunk` into the queue of the stream, large ones without a copy, and tells how
    /// many bytes that were; waits while the queue is full. With `fin` the stream is finished
    /// behind it. One task at a time may wait.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write_chunk(
        &self,
        cx: &mut Context<'_>,
        chunk: &Bytes,
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.poll_write_chunks(cx, std::slice::from_ref(chunk), fin)
    }

    /// [`poll_write_chunk`](Self::poll_write_chunk) for several chunks in one go.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_write_chunks(
        &self,
        cx: &mut Context<'_>,
        chunks: &[Bytes],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.0.poll_write(cx, |queue, send| {
            chunks.iter().for_each(|chunk| queue.push(chunk));
            if fin {
                send.apply(state::SendInput::Finish);
                queue.finish();
            }
            chunks.iter().map(Bytes::len).sum()
        })
    }

    /// Puts `message` into the queue and tells the offset behind it.
    pub(crate) fn poll_queue(
        &self,
        cx: &mut Context<'_>,
        message: &Bytes,
    ) -> Poll<Result<u64, WriteError>> {
        self.0.poll_write(cx, |queue, _| {
            queue.push(message);
            queue.queued()
        })
    }

    /// Ready when all bytes up to `offset` are completed.
    pub(crate) fn poll_completed(
        &self,
        cx: &mut Context<'_>,
        offset: u64,
    ) -> Poll<Result<(), WriteError>> {
        self.0.poll_completed(cx, offset)
    }

    /// Writes all of `chunk`, see [`poll_write_chunk`](Self::poll_write_chunk).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunk` or nothing.
    pub fn write_chunk<'a>(&'a mut self, chunk: &'a Bytes, fin: bool) -> WriteChunk<'a> {
        WriteChunk::new(Some(self), chunk, fin)
    }

    /// Writes all of `chunks`, see [`poll_write_chunks`](Self::poll_write_chunks).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn write_chunks<'a>(&'a mut self, chunks: &'a [Bytes], fin: bool) -> WriteChunks<'a> {
        WriteChunks::new(Some(self), chunks, fin)
    }

    /// Writes all of `chunks` in one go and tells the offset behind them. **Any number of tasks**
    /// may do this at once; the chunks of one call stay together.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn enqueue<'a>(&'a self, chunks: &'a [Bytes]) -> Enqueue<'a> {
        Enqueue::new(self, chunks)
    }

    /// Waits until msquic has taken over all bytes written so far. With send buffering (the
    /// default) that is when it has copied them, without it when the peer has acknowledged them.
    /// Any number of tasks may do this at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn flush(&self) -> Flush<'_> {
        Flush::new(self, self.0.queued())
    }

    /// How many bytes were taken over so far, see [`flush`](Self::flush).
    pub fn completed(&self) -> u64 {
        self.0.completed_offset()
    }

    /// Waits until the peer has stopped reading (its code), or has acknowledged the end of the stream
    /// (`None`).
    ///
    /// # Errors
    ///
    /// [`WriteError::ConnectionLost`], and [`WriteError::Closed`] after an abort by this side.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Any number of tasks may wait.
    pub fn stopped(&self) -> Stopped<'_> {
        Stopped::new(self)
    }

    /// Says how urgent the stream is among those of the connection: higher goes first. Default:
    /// 0x7fff. Done on a thread that may wait, since msquic answers on the connection's own thread.
    ///
    /// # Errors
    ///
    /// [`Status::INVALID_STATE`] before the start and after the end of the stream.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have set the priority.
    pub async fn set_priority(&self, priority: u16) -> Result<(), Status> {
        let inner = self.0.inner.clone();
        unblock(move |may_block| inner.native.set_priority(priority, may_block)).await
    }

    /// Finishes the stream behind what was written, without waiting.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the stream is over already; finishing twice is fine.
    pub fn finish(&self) -> Result<(), WriteError> {
        self.0.finish()
    }

    /// Finishes the stream and waits until the peer has acknowledged everything.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the stream is finished all the same once the future was polled.
    pub fn finish_write(&mut self) -> FinishWrite<'_> {
        FinishWrite::new(self)
    }

    /// Finishes the stream; ready when the peer has acknowledged everything. One task at a time
    /// may wait.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_finish_write(&self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.0.finish()?;
        self.0.poll_finished(cx)
    }

    /// Resets the stream with a code of the application. Ready at once: nothing more is sent.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] when this side cannot write.
    pub fn poll_abort_write(
        &self,
        _cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), WriteError>> {
        Poll::Ready(self.abort_write(error_code))
    }

    /// Resets the stream with a code of the application (below 2^62). What was written and not yet
    /// acknowledged may be lost. Aborting again, or after the end, does nothing.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] when this side cannot write.
    pub fn abort_write(&self, error_code: u64) -> Result<(), WriteError> {
        self.0.abort_write(error_code)
    }
}

impl Drop for ReadStream {
    fn drop(&mut self) {
        self.0.reader_dropped();
    }
}

impl Drop for WriteStream {
    fn drop(&mut self) {
        self.0.writer_dropped();
    }
}

/// Bytes that were received, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamRecvBuffer(Bytes);

impl StreamRecvBuffer {
    /// The bytes; without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for StreamRecvBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for StreamRecvBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Buf for StreamRecvBuffer {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

impl From<StreamRecvBuffer> for Bytes {
    fn from(buffer: StreamRecvBuffer) -> Self {
        buffer.0
    }
}

/// Takes the bytes of a stream as they arrive, without a queue in between.
///
/// It runs on msquic's thread, never twice at once, and without any lock of this crate. It must be
/// quick, and must neither block nor panic: all streams of the connection wait meanwhile.
pub trait ReceiveSink: Send + 'static {
    /// Takes bytes of `data` from its front and tells how many. Taking fewer than all pauses the
    /// stream, so that the peer is slowed down, until [`ReadStream::resume`]; the rest is offered
    /// again then.
    fn receive(&mut self, data: &[u8]) -> usize;

    /// The stream has ended, after all bytes were taken. Called once, as the last thing.
    fn end(&mut self, end: ReceiveEnd);
}

/// How the receiving direction of a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer finished it.
    Finished,
    /// It was reset, stopped by this side, or the connection is over.
    Failed(ReadError),
}

impl ReceiveEnd {
    fn from_result(result: Result<(), ReadError>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Finished)
    }
}
