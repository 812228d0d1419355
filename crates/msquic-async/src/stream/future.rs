//! The named futures of streams.

use super::{ReadError, ReadStream, StreamRecvBuffer, WriteError, WriteStream};
use crate::waiters::wait_future;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::futures::Notified;

/// Future of [`ReadStream::read_chunk`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ReadChunk<'a> {
    stream: Option<&'a ReadStream>,
}

impl<'a> ReadChunk<'a> {
    pub(super) fn new(stream: Option<&'a ReadStream>) -> Self {
        Self { stream }
    }
}

impl Future for ReadChunk<'_> {
    type Output = Result<Option<StreamRecvBuffer>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stream.ok_or(ReadError::Closed)?.poll_read_chunk(cx)
    }
}

/// Future of [`WriteStream::write_chunk`]; gives the number of bytes written.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WriteChunk<'a> {
    stream: Option<&'a WriteStream>,
    chunk: &'a Bytes,
    fin: bool,
}

impl<'a> WriteChunk<'a> {
    pub(super) fn new(stream: Option<&'a WriteStream>, chunk: &'a Bytes, fin: bool) -> Self {
        Self { stream, chunk, fin }
    }
}

impl Future for WriteChunk<'_> {
    type Output = Result<usize, WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stream.ok_or(WriteError::Closed)?.poll_write_chunk(cx, self.chunk, self.fin)
    }
}

/// Future of [`WriteStream::write_chunks`]; gives the number of bytes written.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WriteChunks<'a> {
    stream: Option<&'a WriteStream>,
    chunks: &'a [Bytes],
    fin: bool,
}

impl<'a> WriteChunks<'a> {
    pub(super) fn new(stream: Option<&'a WriteStream>, chunks: &'a [Bytes], fin: bool) -> Self {
        Self { stream, chunks, fin }
    }
}

impl Future for WriteChunks<'_> {
    type Output = Result<usize, WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stream.ok_or(WriteError::Closed)?.poll_write_chunks(cx, self.chunks, self.fin)
    }
}

/// Future of [`WriteStream::finish_write`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct FinishWrite<'a> {
    stream: &'a WriteStream,
}

impl<'a> FinishWrite<'a> {
    pub(super) fn new(stream: &'a WriteStream) -> Self {
        Self { stream }
    }
}

impl Future for FinishWrite<'_> {
    type Output = Result<(), WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.stream.poll_finish_write(cx)
    }
}

pin_project_lite::pin_project! {
    /// Future of [`WriteStream::enqueue`]; gives the offset behind the bytes written.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Enqueue<'a> {
        stream: &'a WriteStream,
        chunks: &'a [Bytes],
        #[pin]
        room: Notified<'a>,
    }
}

impl<'a> Enqueue<'a> {
    pub(super) fn new(stream: &'a WriteStream, chunks: &'a [Bytes]) -> Self {
        Self { stream, chunks, room: stream.0.room.notified() }
    }
}

impl Future for Enqueue<'_> {
    type Output = Result<u64, WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(end) = this.stream.0.try_enqueue(&[], this.chunks)? {
                return Poll::Ready(Ok(end));
            }
            // Registered before the next try, so no room that appears in between is missed.
            ready!(this.room.as_mut().poll(cx));
            this.room.set(this.stream.0.room.notified());
        }
    }
}

wait_future! {
    /// Future of [`ReadStream::received_reset`].
    ReceivedReset(stream: &ReadStream) -> Result<Option<u64>, ReadError>,
    on stream.0.ended, until stream.0.received_reset()
}

wait_future! {
    /// Future of [`WriteStream::stopped`].
    Stopped(stream: &WriteStream) -> Result<Option<u64>, WriteError>,
    on stream.0.progress, until stream.0.stopped()
}

pin_project_lite::pin_project! {
    /// Future of [`WriteStream::flush`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Flush<'a> {
        stream: &'a WriteStream,
        offset: u64,
        #[pin]
        progress: Notified<'a>,
    }
}

impl<'a> Flush<'a> {
    pub(super) fn new(stream: &'a WriteStream, offset: u64) -> Self {
        Self { stream, offset, progress: stream.0.progress.notified() }
    }
}

impl Future for Flush<'_> {
    type Output = Result<(), WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(result) = this.stream.0.completed(*this.offset) {
                return Poll::Ready(result);
            }
            ready!(this.progress.as_mut().poll(cx));
            this.progress.set(this.stream.0.progress.notified());
        }
    }
}
