//! `StreamRecvBuffer`: a run of received bytes.

use bytes::{Buf, Bytes};
use std::ops::Deref;

/// Received bytes. The value owns them.
///
/// With [`Settings::zero_copy_receive`](crate::Settings::zero_copy_receive) they are in msquic's
/// memory: they stay there, independent of the stream and its connection, until this value and all
/// its clones and parts are dropped, on any thread. Until then the peer gets no credit for them,
/// nor for later bytes of the stream, the stream's handle stays open, and
/// [`Registration::wait_idle`](crate::Registration::wait_idle) waits.
///
/// ```no_run
/// # async fn example(stream: msquic_async::ReadStream) -> Result<(), Box<dyn std::error::Error>> {
/// if let Some(chunk) = stream.read_chunk().await? {
///     println!("{} bytes, a greeting: {}", chunk.len(), chunk.starts_with(b"hello"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamRecvBuffer(pub(super) Bytes);

impl StreamRecvBuffer {
    /// Converts the buffer into `Bytes`, without a copy.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     read: msquic_async::ReadStream,
    /// #     mut write: msquic_async::WriteStream,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// while let Some(chunk) = read.read_chunk().await? {
    ///     write.write_chunk(&chunk.into_bytes(), false).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
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
