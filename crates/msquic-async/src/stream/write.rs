//! `WriteStream`: the sending direction of a stream.

use super::error::WriteError;
use super::future::{Enqueue, FinishWrite, Flush, Stopped, WriteChunk, WriteChunks};
use super::handle::StreamHandle;
use super::state::SendInput;
use crate::Status;
use crate::ffi::may_block::unblock;
use bytes::Bytes;
use std::task::{Context, Poll};

/// The sending direction of a stream.
///
/// ```no_run
/// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
/// stream.write_chunk(&"hello".into(), false).await?;
/// stream.finish_write().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WriteStream(pub(super) StreamHandle);

impl WriteStream {
    /// The QUIC stream id, once the stream has one.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) {
    /// println!("stream {:?}", stream.id());
    /// # }
    /// ```
    pub fn id(&self) -> Option<u64> {
        self.0.id.get().copied()
    }

    /// Copies bytes of `buf` into the queue of the stream and returns how many; waits while the
    /// queue is full. With `fin` the stream is finished once all of `buf` is copied. Several tasks
    /// may wait; the bytes of one call stay together.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
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
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.0.room.poll_registered(cx, || {
            self.0.try_write(|queue, send| {
                let length = buf.len().min(queue.room());
                queue.push_copy(&buf[..length]);
                if fin && length == buf.len() {
                    send.apply(SendInput::Finish);
                    queue.finish();
                }
                length
            })
        })
    }

    /// Puts all of `chunk` into the queue of the stream, a large one without a copy, and returns
    /// its length; waits while the queue is full. With `fin` the stream is finished after it.
    /// Several tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
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
        &self,
        cx: &mut Context<'_>,
        chunk: &Bytes,
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.poll_write_chunks(cx, std::slice::from_ref(chunk), fin)
    }

    /// Writes several chunks as [`poll_write_chunk`](Self::poll_write_chunk) does one.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
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
        &self,
        cx: &mut Context<'_>,
        chunks: &[Bytes],
        fin: bool,
    ) -> Poll<Result<usize, WriteError>> {
        self.0.room.poll_registered(cx, || self.0.try_write_chunks(chunks, fin))
    }

    /// Writes all of `chunk`, see [`poll_write_chunk`](Self::poll_write_chunk).
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunk(&"hello".into(), true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunk` or nothing.
    pub fn write_chunk<'a>(&'a mut self, chunk: &'a Bytes, fin: bool) -> WriteChunk<'a> {
        WriteChunk::new(&self.0, chunk, fin)
    }

    /// Writes all of `chunks`, see [`poll_write_chunks`](Self::poll_write_chunks).
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunks(&["head".into(), "body".into()], true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn write_chunks<'a>(&'a mut self, chunks: &'a [Bytes], fin: bool) -> WriteChunks<'a> {
        WriteChunks::new(&self.0, chunks, fin)
    }

    /// Writes all of `chunks` and returns the offset of their end in the stream. **Any number of
    /// tasks** may do this at the same time; the chunks of one call stay together.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// let offset = stream.enqueue(&["head".into(), "body".into()]).await?;
    /// println!("ends at byte {offset}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has written all of `chunks` or nothing.
    pub fn enqueue<'a>(&'a self, chunks: &'a [Bytes]) -> Enqueue<'a> {
        Enqueue::new(&self.0, chunks)
    }

    /// Writes as [`enqueue`](Self::enqueue) does, without waiting: `None` when there is no room.
    /// `head` is copied and written before `chunks`.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) -> Result<(), msquic_async::WriteError> {
    /// if stream.try_enqueue(b"head", &["body".into()])?.is_none() {
    ///     println!("the peer is slow");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn try_enqueue(&self, head: &[u8], chunks: &[Bytes]) -> Result<Option<u64>, WriteError> {
        self.0.try_enqueue(head, chunks).transpose()
    }

    /// Writes messages as [`try_enqueue`](Self::try_enqueue) does, each one after a copy of its head,
    /// and returns how many. It stops before the first one for which there is no room.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) -> Result<(), msquic_async::WriteError> {
    /// let messages = [(*b"1", &"one".into()), (*b"2", &"two".into())];
    /// println!("{} of 2 messages are written", stream.try_enqueue_many(&messages)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`]. Nothing was written then.
    pub fn try_enqueue_many<const HEAD: usize>(
        &self,
        messages: &[([u8; HEAD], &Bytes)],
    ) -> Result<usize, WriteError> {
        self.0.try_enqueue_many(messages)
    }

    /// How many bytes were written and are not completed yet, see [`flush`](Self::flush).
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) {
    /// println!("{} bytes are pending", stream.pending_bytes());
    /// # }
    /// ```
    pub fn pending_bytes(&self) -> u64 {
        self.0.queued().saturating_sub(self.0.completed_offset())
    }

    /// How many writes are not completed, and their bytes: calls of [`enqueue`](Self::enqueue) and
    /// [`try_enqueue`](Self::try_enqueue), and messages of
    /// [`try_enqueue_many`](Self::try_enqueue_many). A write counts from the moment at which its bytes are in the
    /// queue, with all of its bytes until its last byte is completed, and for good if the stream ends before.
    ///
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) {
    /// let (messages, bytes) = stream.pending_writes();
    /// println!("{messages} messages of {bytes} bytes may not have reached the peer");
    /// # }
    /// ```
    pub fn pending_writes(&self) -> (u64, u64) {
        self.0.pending_writes()
    }

    /// Waits until msquic has completed all bytes written so far. With send buffering (the default)
    /// that is when it has copied them, without it when the peer has acknowledged them. Any number
    /// of tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.enqueue(&["hello".into()]).await?;
    /// stream.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub fn flush(&self) -> Flush<'_> {
        Flush::new(&self.0, self.0.queued())
    }

    /// How many bytes msquic has completed so far, see [`flush`](Self::flush).
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// let offset = stream.enqueue(&["hello".into()]).await?;
    /// let is_completed = stream.completed() >= offset;
    /// # Ok(())
    /// # }
    /// ```
    pub fn completed(&self) -> u64 {
        self.0.completed_offset()
    }

    /// Waits until the peer has stopped the stream (its code), or has acknowledged the end of the stream
    /// (`None`).
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// match stream.stopped().await? {
    ///     Some(code) => println!("the peer stopped the stream with code {code}"),
    ///     None => println!("the peer has acknowledged everything"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::ConnectionLost`], and [`WriteError::Closed`] after an abort by this side.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Any number of tasks may wait.
    pub fn stopped(&self) -> Stopped<'_> {
        Stopped::new(&self.0)
    }

    /// Sets the priority of the stream among those of the connection: data of streams with a higher
    /// value is sent first. Default: 0x7fff. It is set on a thread that may block, since msquic
    /// answers on the connection's own thread.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.set_priority(u16::MAX).await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Marks the end of the stream; data already written is still delivered. To wait for the
    /// acknowledgement, see [`finish_write`](Self::finish_write).
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunk(&"hello".into(), false).await?;
    /// stream.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the stream has ended already. Finishing again is not an error.
    pub fn finish(&self) -> Result<(), WriteError> {
        self.0.finish()
    }

    /// Finishes the stream and waits until the peer has acknowledged everything.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.write_chunk(&"hello".into(), false).await?;
    /// stream.finish_write().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Once the future was polled, the stream is finished even if the future is dropped.
    pub fn finish_write(&mut self) -> FinishWrite<'_> {
        FinishWrite::new(&self.0)
    }

    /// Finishes the stream; ready when the peer has acknowledged everything. Several tasks may wait.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_finish_write(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_finish_write(&self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.0.send_ended.poll_registered(cx, || self.0.try_finish())
    }

    /// Resets the stream with a code of the application. Ready at once: nothing more is sent.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_abort_write(cx, 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
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
    /// ```no_run
    /// # fn example(stream: msquic_async::WriteStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.abort_write(7)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] when this side cannot write.
    pub fn abort_write(&self, error_code: u64) -> Result<(), WriteError> {
        self.0.abort_write(error_code)
    }
}

impl Drop for WriteStream {
    fn drop(&mut self) {
        self.0.writer_dropped();
    }
}
