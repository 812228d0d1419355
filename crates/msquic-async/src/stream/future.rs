//! The named futures of streams.

use super::inner::StreamInner;
use super::{ReadError, StreamRecvBuffer, WriteError};
use crate::waiters::wait_future;
use bytes::Bytes;

wait_future! {
    /// Future of [`ReadStream::read_chunk`](super::ReadStream::read_chunk).
    ReadChunk(stream: &StreamInner) -> Result<Option<StreamRecvBuffer>, ReadError>,
    on stream.readable, until stream.try_read_chunk()
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
    on stream.room, until stream.try_write_chunks(std::slice::from_ref(chunk), *fin)
}

wait_future! {
    /// Future of [`WriteStream::write_chunks`](super::WriteStream::write_chunks); gives the number of
    /// bytes written.
    WriteChunks(stream: &StreamInner, chunks: &'a [Bytes], fin: bool) -> Result<usize, WriteError>,
    on stream.room, until stream.try_write_chunks(chunks, *fin)
}

wait_future! {
    /// Future of [`WriteStream::enqueue`](super::WriteStream::enqueue); gives the offset behind the
    /// bytes written.
    Enqueue(stream: &StreamInner, chunks: &'a [Bytes]) -> Result<u64, WriteError>,
    on stream.room, until stream.try_enqueue(&[], chunks)
}

wait_future! {
    /// Future of [`WriteStream::flush`](super::WriteStream::flush).
    Flush(stream: &StreamInner, offset: u64) -> Result<(), WriteError>,
    on stream.progress, until stream.completed(*offset)
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
