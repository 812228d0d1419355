//! `ReceiveSink`: receiving bytes in the callback, without a queue.

use super::error::ReadError;

/// Takes the bytes of a stream as they arrive, without a queue in between.
///
/// It runs on msquic's thread or on the thread that resumes it, one call at a time, and without any
/// lock of this crate. It must be quick, and must neither block nor panic, since all streams of the
/// connection wait for it.
///
/// ```
/// use msquic_async::{ReceiveEnd, ReceiveSink};
///
/// struct Counter(usize);
///
/// impl ReceiveSink for Counter {
///     fn receive(&mut self, data: &[u8]) -> usize {
///         self.0 += data.len();
///         data.len()
///     }
///
///     fn end(&mut self, end: ReceiveEnd) {
///         println!("{} bytes, {end:?}", self.0);
///     }
/// }
/// ```
pub trait ReceiveSink: Send + 'static {
    /// Takes bytes from the front of `data` and returns how many. Taking fewer than all pauses the
    /// stream, so that flow control slows the peer down, until
    /// [`ReadStream::resume`](super::ReadStream::resume); the rest is then offered again. This also
    /// applies after the connection has ended: bytes that had arrived are kept until the sink takes
    /// them.
    fn receive(&mut self, data: &[u8]) -> usize;

    /// Receives the end of the stream, after all bytes were taken. This is the last call.
    fn end(&mut self, end: ReceiveEnd);
}

/// How the receiving direction of a stream ended.
///
/// ```no_run
/// # fn example(end: msquic_async::ReceiveEnd) {
/// use msquic_async::ReceiveEnd;
///
/// match end {
///     ReceiveEnd::Finished => println!("complete"),
///     ReceiveEnd::Failed(error) => println!("incomplete: {error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer finished it.
    Finished,
    /// It was reset, stopped by this side, or the connection has ended.
    Failed(ReadError),
}

impl ReceiveEnd {
    pub(super) fn from_result(result: Result<(), ReadError>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Finished)
    }
}
