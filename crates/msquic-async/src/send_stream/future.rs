//! The named future of `SendStream::send`.

use super::{SendStream, WriteError};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Future of [`SendStream::send`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct SendData<'a> {
    stream: &'a SendStream,
    message: Bytes,
    /// The offset behind the message, once it is queued.
    end: Option<u64>,
}

impl<'a> SendData<'a> {
    pub(super) fn new(stream: &'a SendStream, message: Bytes) -> Self {
        Self { stream, message, end: None }
    }
}

impl Future for SendData<'_> {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let writer = self.stream.writer()?;
        let end = match self.end {
            Some(end) => end,
            None => {
                let end = ready!(writer.poll_queue(cx, &self.message))?;
                self.end = Some(end);
                end
            }
        };
        writer.poll_completed(cx, end)
    }
}
