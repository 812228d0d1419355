//! `SendStream`: a unidirectional stream for messages that are confirmed one by one.

mod future;

use crate::StreamStartError;
use crate::stream::WriteError;
pub use future::SendData;

use crate::stream::Stream;
use bytes::Bytes;
use std::task::{Context, Poll};

/// A unidirectional stream on which each [`send`](Self::send) resolves when its own bytes are
/// completed.
///
/// The bytes of one send stay together, in the order of the calls. Dropping it resets the stream
/// unless it was [finished](Self::poll_finish).
///
/// ```no_run
/// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream = connection.open_send_stream().await?;
/// stream.send(vec![1, 2, 3]).await?;
/// std::future::poll_fn(|cx| stream.poll_finish(cx)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SendStream {
    stream: Stream,
}

impl SendStream {
    pub(crate) fn from_stream(stream: Stream) -> Self {
        Self { stream }
    }

    /// Opens the stream, see [`Stream::poll_start`].
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::SendStream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_start(cx, true)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StreamStartError`].
    pub fn poll_start(
        &mut self,
        cx: &mut Context<'_>,
        failed_on_block: bool,
    ) -> Poll<Result<(), StreamStartError>> {
        self.stream.poll_start(cx, failed_on_block)
    }

    /// The QUIC stream id, once the stream has one.
    ///
    /// ```no_run
    /// # async fn example(connection: msquic_async::Connection) -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = connection.open_send_stream().await?;
    /// println!("stream {:?}", stream.id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(&self) -> Option<u64> {
        self.stream.id()
    }

    /// Finishes the stream; ready when the peer has acknowledged everything. One task at a time
    /// may wait.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::SendStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.send("the last one").await?;
    /// std::future::poll_fn(|cx| stream.poll_finish(cx)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.stream.poll_finish_write(cx)
    }

    /// Resets the stream with a code of the application.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::SendStream) -> Result<(), Box<dyn std::error::Error>> {
    /// std::future::poll_fn(|cx| stream.poll_abort(cx, 7)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn poll_abort(
        &mut self,
        cx: &mut Context<'_>,
        error_code: u64,
    ) -> Poll<Result<(), WriteError>> {
        self.stream.poll_abort_write(cx, error_code)
    }

    /// Resets the stream with a code of the application (below 2^62).
    ///
    /// ```no_run
    /// # fn example(mut stream: msquic_async::SendStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.abort(7)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn abort(&mut self, error_code: u64) -> Result<(), WriteError> {
        self.stream.abort_write(error_code)
    }

    /// Sends `message`, a large one without a copy, and waits until msquic has completed it: with
    /// send buffering (the default) when msquic has copied it, without when the peer has
    /// acknowledged it.
    ///
    /// ```no_run
    /// # async fn example(mut stream: msquic_async::SendStream) -> Result<(), Box<dyn std::error::Error>> {
    /// stream.send("hello").await?;
    /// stream.send(vec![1, 2, 3]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A dropped future has sent the whole message or nothing; before it was polled, nothing.
    pub fn send(&mut self, message: impl Into<Bytes>) -> SendData<'_> {
        SendData::new(self.stream.inner(), message.into())
    }
}
