//! `ReceiveSink`: bytes without a queue in between.

use super::error::ReadError;

/// Takes the bytes of a stream as they arrive, without a queue in between.
///
/// It runs on msquic's thread, never twice at once, and without any lock of this crate. It must be
/// quick, and must neither block nor panic: all streams of the connection wait meanwhile.
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
    /// Takes bytes of `data` from its front and returns how many. Taking fewer than all pauses the
    /// stream, so that the peer is slowed down, until [`ReadStream::resume`](super::ReadStream::resume); the rest is offered
    /// again then. That is so after the connection has ended too: what had arrived is kept until the
    /// sink takes it.
    fn receive(&mut self, data: &[u8]) -> usize;

    /// The stream has ended, after all bytes were taken. Called once, as the last thing.
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
///     ReceiveEnd::Failed(error) => println!("cut off: {error}"),
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
