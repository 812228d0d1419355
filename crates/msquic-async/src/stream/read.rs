//! `ReadStream`: the receiving direction of a stream.

use super::error::{ReadError, ReadToEndError};
use super::future::{ReadChunk, ReceivedReset};
use super::handle::StreamHandle;
use super::recv_buffer::StreamRecvBuffer;
use super::sink::ReceiveSink;
use std::task::{Context, Poll};

/// The receiving direction of a stream.
///
/// ```no_run
/// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
/// while let Some(chunk) = stream.read_chunk().await? {
///     println!("{} bytes", chunk.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReadStream(pub(super) StreamHandle);

impl ReadStream {
    /// The QUIC stream id, once the stream has one.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::ReadStream) {
    /// println!("stream {:?}", stream.id());
    /// # }
    /// ```
    pub fn id(&self) -> Option<u64> {
        self.0.id.get().copied()
    }

    /// Reads bytes into `buf` and returns how many: 0 at the end of the stream, or when `buf` is
    /// empty. Several tasks may wait; each byte goes to one of them.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut buf = [0; 1024];
    /// let length = std::future::poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
    /// println!("{:?}", &buf[..length]);
    /// # Ok(())
    /// # }
    /// ```
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
        let read = self.0.readable.poll_registered(cx, || self.0.try_read(|queue| queue.read(buf)));
        read.map_ok(Option::unwrap_or_default)
    }

    /// Takes bytes that have arrived, of any length; `None` at the end of the stream. Several tasks
    /// may wait; each byte goes to one of them.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(chunk) = std::future::poll_fn(|cx| stream.poll_read_chunk(cx)).await? {
    ///     println!("{} bytes", chunk.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`], after everything that arrived was read.
    pub fn poll_read_chunk(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<StreamRecvBuffer>, ReadError>> {
        self.0.readable.poll_registered(cx, || self.0.try_read_chunk())
    }

    /// Waits for bytes and takes them, of any length; `None` at the end of the stream. Several
    /// tasks may wait: the first to wait is woken first, and each byte goes to one of them.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
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
        ReadChunk::new(&self.0)
    }

    /// Asks the peer to stop sending, with a code of the application, and drops what was not
    /// read. Ready at once: nothing more is delivered.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_abort_read(cx, 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Asks the peer to stop sending, with a code of the application (below 2^62), and drops
    /// what was not read. Aborting again, or after the end, does nothing.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.abort_read(7)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::Closed`] when this side cannot read.
    pub fn abort_read(&self, error_code: u64) -> Result<(), ReadError> {
        self.0.abort_read(error_code)
    }

    /// Reads until the end of the stream, at most `limit` bytes.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// let message = stream.read_to_end(64 * 1024).await?;
    /// println!("{} bytes", message.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadToEndError::TooLong`] once more than `limit` bytes have arrived. The bytes read so far
    /// are lost, so abort the stream then. [`ReadToEndError::Read`] as for the other reads.
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

    /// Waits until the peer has finished the stream (`None`) or reset it (its code), without
    /// reading. That the peer has finished is known only after all bytes were read.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
    /// match stream.received_reset().await? {
    ///     Some(code) => println!("the peer reset the stream with code {code}"),
    ///     None => println!("the peer has sent everything"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError::ConnectionLost`], and [`ReadError::Closed`] after an abort by this side.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Any number of tasks may wait.
    pub fn received_reset(&self) -> ReceivedReset<'_> {
        ReceivedReset::new(&self.0)
    }

    /// Passes bytes to `sink` from now on, as they arrive, on msquic's thread, beginning with those
    /// that were not read. Reads then return nothing. A stream has at most one sink.
    ///
    /// ```no_run
    /// # fn example(
    /// #     stream: msquic_async::ReadStream,
    /// #     sink: impl msquic_async::ReceiveSink,
    /// # ) {
    /// if stream.set_sink(Box::new(sink)).is_err() {
    ///     println!("the stream has a sink already");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns `sink` if the stream has a sink already.
    pub fn set_sink(&self, sink: Box<dyn ReceiveSink>) -> Result<(), Box<dyn ReceiveSink>> {
        self.0.set_sink(sink)
    }

    /// Offers bytes to the sink again, after it took fewer than offered and now has room.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     stream: msquic_async::ReadStream,
    /// #     room: tokio::sync::Notify,
    /// # ) {
    /// // The sink took fewer bytes than offered; resume it when there is room.
    /// room.notified().await;
    /// stream.resume();
    /// # }
    /// ```
    pub fn resume(&self) {
        self.0.resume_sink();
    }
}

impl Drop for ReadStream {
    fn drop(&mut self) {
        self.0.reader_dropped();
    }
}
