//! The named future of `SendStream::send`.

use super::WriteError;
use crate::coop;
use crate::stream::{ProgressPlace, StreamInner};
use crate::waiters::Place;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Future of [`SendStream::send`](super::SendStream::send).
#[must_use = "futures do nothing unless polled"]
pub struct SendData<'a> {
    stream: &'a StreamInner,
    message: Bytes,
    /// The offset behind the message, once it is queued.
    end: Option<u64>,
    room: Place<'a>,
    progress: ProgressPlace<'a>,
}

impl<'a> SendData<'a> {
    pub(super) fn new(stream: &'a StreamInner, message: Bytes) -> Self {
        let (room, progress) = (Place::default(), ProgressPlace::default());
        Self { stream, message, end: None, room, progress }
    }
}

impl std::fmt::Debug for SendData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendData").finish_non_exhaustive()
    }
}

impl Future for SendData<'_> {
    type Output = Result<(), WriteError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stream, message, end, room, progress } = self.get_mut();
        coop::poll(cx, |cx| {
            let end = match *end {
                Some(end) => end,
                None => {
                    let queued = || stream.try_enqueue(&[], std::slice::from_ref(message));
                    *end.insert(ready!(room.poll_until(&stream.room, cx, queued))?)
                }
            };
            progress.poll_until(&stream.progress, end, cx, || stream.completed(end))
        })
    }
}
