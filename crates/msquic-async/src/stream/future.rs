//! The named futures of streams.

use super::error::{ReadError, WriteError};
use super::inner::StreamInner;
use super::progress::Place;
use super::recv_buffer::StreamRecvBuffer;
use crate::coop;
use crate::waiters::wait_future;
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

wait_future! {
    /// Future of [`ReadStream::read_chunk`](super::ReadStream::read_chunk).
    ReadChunk(stream: &StreamInner) -> Result<Option<StreamRecvBuffer>, ReadError>,
    on stream.readable, take stream.try_read_chunk()
}

wait_future! {
    /// Future of [`ReadStream::received_reset`](super::ReadStream::received_reset).
    ReceivedReset(stream: &StreamInner) -> Result<Option<u64>, ReadError>,
    on stream.receive_ended, until stream.received_reset()
}

wait_future! {
    /// Future of [`WriteStream::write_chunk`](super::WriteStream::write_chunk); gives the number of
    /// bytes written.
    WriteChunk(stream: &StreamInner, chunk: &'a Bytes, fin: bool) -> Result<usize, WriteError>,
    on stream.room, take stream.try_write_chunks(std::slice::from_ref(chunk), *fin)
}

wait_future! {
    /// Future of [`WriteStream::write_chunks`](super::WriteStream::write_chunks); gives the number of
    /// bytes written.
    WriteChunks(stream: &StreamInner, chunks: &'a [Bytes], fin: bool) -> Result<usize, WriteError>,
    on stream.room, take stream.try_write_chunks(chunks, *fin)
}

wait_future! {
    /// Future of [`WriteStream::enqueue`](super::WriteStream::enqueue); gives the offset behind the
    /// bytes written.
    Enqueue(stream: &StreamInner, chunks: &'a [Bytes]) -> Result<u64, WriteError>,
    on stream.room, take stream.try_enqueue(&[], chunks)
}

/// Future of [`WriteStream::flush`](super::WriteStream::flush).
#[must_use = "futures do nothing unless polled"]
pub struct Flush<'a> {
    stream: &'a StreamInner,
    offset: u64,
    place: Place<'a>,
}

impl<'a> Flush<'a> {
    pub(super) fn new(stream: &'a StreamInner, offset: u64) -> Self {
        Self { stream, offset, place: Place::default() }
    }
}

impl fmt::Debug for Flush<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush").finish_non_exhaustive()
    }
}

impl Future for Flush<'_> {
    type Output = Result<(), WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stream, offset, place } = self.get_mut();
        coop::poll_state(cx, |cx| {
            place.poll_until(&stream.progress, *offset, cx, || stream.completed(*offset))
        })
    }
}

wait_future! {
    /// Future of [`WriteStream::finish_write`](super::WriteStream::finish_write).
    FinishWrite(stream: &StreamInner) -> Result<(), WriteError>,
    on stream.send_ended, until stream.try_finish()
}

wait_future! {
    /// Future of [`WriteStream::stopped`](super::WriteStream::stopped).
    Stopped(stream: &StreamInner) -> Result<Option<u64>, WriteError>,
    on stream.send_ended, until stream.stopped()
}
