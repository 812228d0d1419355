//! `SinkStream`: the handle with which a sink resumes or stops its stream.

use super::inner::StreamInner;
use super::sink::ReceiveSink;
use std::fmt;
use std::mem;
use std::sync::{Arc, Weak};

/// A stream of the peer, for the sink that takes its bytes.
///
/// It keeps neither the stream nor the connection alive. Its methods may be called on any thread, also by the sink
/// itself, and do nothing once the stream has ended.
///
/// See [`Connection::set_inbound_uni_sinks`](crate::Connection::set_inbound_uni_sinks).
#[derive(Clone)]
pub struct SinkStream {
    inner: Weak<StreamInner>,
    id: u64,
}

impl SinkStream {
    fn new(inner: &Arc<StreamInner>) -> Self {
        let id = inner.id.get().copied().unwrap_or_default(); // each stream of the peer has one
        Self { inner: Arc::downgrade(inner), id }
    }

    /// Creates a stream that has ended, for tests of sinks.
    ///
    /// ```
    /// use msquic_async::SinkStream;
    ///
    /// let stream = SinkStream::ended(2);
    /// stream.stop(1);
    /// assert_eq!(stream.id(), 2);
    /// ```
    pub fn ended(id: u64) -> Self {
        Self { inner: Weak::new(), id }
    }

    /// The QUIC stream id.
    ///
    /// ```
    /// # fn example(stream: msquic_async::SinkStream) {
    /// println!("stream {}", stream.id());
    /// # }
    /// ```
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Offers bytes to the sink again, after it took fewer than offered and now has room.
    ///
    /// The sink runs on this thread, unless another thread runs it: that one then offers them.
    ///
    /// ```no_run
    /// # async fn example(stream: msquic_async::SinkStream, room: tokio::sync::Notify) {
    /// room.notified().await;
    /// stream.resume();
    /// # }
    /// ```
    pub fn resume(&self) {
        if let Some(inner) = self.inner.upgrade() {
            inner.resume_sink();
        }
    }

    /// Asks the peer to stop sending, with a code of the application (below 2^62), and drops what the sink did
    /// not take. The sink receives the end.
    ///
    /// ```
    /// use msquic_async::{ReceiveEnd, ReceiveSink, SinkStream};
    ///
    /// /// Takes nothing but zeros.
    /// struct Zeros(SinkStream);
    ///
    /// impl ReceiveSink for Zeros {
    ///     fn receive(&mut self, data: &[u8]) -> usize {
    ///         if data.iter().any(|byte| *byte != 0) {
    ///             self.0.stop(7);
    ///         }
    ///         data.len()
    ///     }
    ///
    ///     fn end(&mut self, _: ReceiveEnd) {}
    /// }
    /// ```
    pub fn stop(&self, error_code: u64) {
        if let Some(inner) = self.inner.upgrade() {
            let _ = inner.abort_read(error_code); // it fails for streams without this direction
        }
    }
}

impl fmt::Debug for SinkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkStream").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Creates the sink of a stream of the peer.
pub(crate) type MakeSink = dyn Fn(SinkStream) -> Box<dyn ReceiveSink> + Send + Sync;

impl StreamInner {
    /// Accepts a stream of the peer for the sink that `make` creates. The stream is held until the
    /// sink has received the end: a paused sink keeps memory, and the peer could otherwise reset
    /// the stream and open another one.
    pub(crate) fn accept_with_sink(self: &Arc<Self>, make: &MakeSink) {
        let abandon = AbandonOnDrop(self);
        let sink = make(SinkStream::new(self));
        mem::forget(abandon);
        let is_first = self.set_sink(sink).is_ok();
        debug_assert!(is_first, "the stream has no handle");
    }
}

/// Stops the stream if creating its sink panics; otherwise it would stay open and unread.
struct AbandonOnDrop<'a>(&'a StreamInner);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
        self.0.sink_ended();
    }
}
