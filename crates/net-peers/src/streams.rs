//! `MessageStream` and `MessageSink`: the messages of a connection as a stream, and as a sink.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FusedStream;
use futures_util::{FutureExt, Sink, Stream, ready};
use net_traits::{NetConnection, RecvError, SendError};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

type Received = Result<(Bytes, Duration), RecvError>;

/// The received messages of a connection, in the form of [`NetConnection::recv`].
///
/// The last item is [`RecvError::Closed`]. Other errors are items between messages. No message is
/// buffered here: dropping the stream, or the future of an item, loses none. The stream is a handle
/// of the connection. Several streams and receivers share the messages; while there are several, poll or drop
/// each: a message wakes one of them, and one that waits and is not polled keeps it from the other ones.
///
/// ```
/// use futures_util::{StreamExt, future};
/// use net_peers::MessageStream;
/// use net_traits::NetConnection;
///
/// async fn longest(connection: impl NetConnection) -> usize {
///     let messages = MessageStream::new(connection).filter_map(async |it| it.ok());
///     messages.fold(0, |longest, (it, _)| future::ready(it.len().max(longest))).await
/// }
/// ```
pub struct MessageStream<C> {
    connection: C,
    /// A `recv` that waits.
    receiving: Option<BoxFuture<'static, Received>>,
    has_ended: bool,
}

impl<C: NetConnection> MessageStream<C> {
    /// Creates the stream of the messages of `connection`.
    pub fn new(connection: C) -> Self {
        Self { connection, receiving: None, has_ended: false }
    }

    /// Returns the connection.
    pub fn connection(&self) -> &C {
        &self.connection
    }
}

/// The connection is not pinned.
impl<C> Unpin for MessageStream<C> {}

impl<C: NetConnection> Stream for MessageStream<C> {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let arrived = if self.receiving.is_none() { self.connection.try_recv() } else { Ok(None) };
        let received = match arrived.transpose() {
            Some(received) => received,
            None => {
                let this = &mut *self;
                let receiving = this.receiving.get_or_insert_with(|| {
                    let connection = this.connection.clone();
                    async move { connection.recv().await }.boxed()
                });
                let received = ready!(receiving.poll_unpin(context));
                this.receiving = None;
                received
            }
        };
        self.has_ended = matches!(received, Err(RecvError::Closed(_)));
        Poll::Ready(Some(received))
    }
}

impl<C: NetConnection> FusedStream for MessageStream<C> {
    fn is_terminated(&self) -> bool {
        self.has_ended
    }
}

impl<C: fmt::Debug> fmt::Debug for MessageStream<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// Sends messages on a connection.
///
/// A message is queued as by [`NetConnection::send_bytes`]. If there is no room, the sink holds that
/// message, and is ready again once it is queued. `flush` then does what
/// [`NetConnection::flush`] does. `close` is a `flush`: it does not close the connection.
///
/// After an error the message that the sink held is dropped, and the sink can be used further unless
/// the error is [`SendError::Closed`]. A dropped sink drops the message that it holds. A dropped
/// future of the sink loses nothing: the sink keeps what it was given. A sink that holds a message has to be
/// polled or dropped, or it may keep another sender of the connection waiting.
///
/// ```
/// use futures_util::{SinkExt, StreamExt, stream};
/// use net_peers::MessageSink;
/// use net_traits::{NetConnection, SendError};
///
/// async fn count(connection: impl NetConnection) -> Result<(), SendError> {
///     let numbers = stream::iter(0..100).map(|number: u32| Ok(number.to_string().into()));
///     numbers.forward(MessageSink::new(connection)).await
/// }
/// ```
pub struct MessageSink<C> {
    connection: C,
    /// Queues the message that the sink holds.
    sending: Option<BoxFuture<'static, Result<(), SendError>>>,
    flushing: Option<BoxFuture<'static, Result<(), SendError>>>,
}

impl<C: NetConnection> MessageSink<C> {
    /// Creates a sink that sends on `connection`.
    pub fn new(connection: C) -> Self {
        Self { connection, sending: None, flushing: None }
    }

    /// Returns the connection.
    pub fn connection(&self) -> &C {
        &self.connection
    }
}

/// The connection is not pinned.
impl<C> Unpin for MessageSink<C> {}

impl<C: NetConnection> Sink<Bytes> for MessageSink<C> {
    type Error = SendError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.poll_unpin(context));
        self.sending = None;
        Poll::Ready(sent)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), SendError> {
        self.flushing = None; // it does not cover this message
        match self.connection.try_send(message.clone()) {
            Err(SendError::WouldBlock) => {}
            sent => return sent,
        }
        let connection = self.connection.clone();
        self.sending = Some(async move { connection.send_bytes(message).await }.boxed());
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        ready!(self.as_mut().poll_ready(context))?;
        let this = &mut *self;
        let flushing = this.flushing.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.flush().await }.boxed()
        });
        let flushed = ready!(flushing.poll_unpin(context));
        this.flushing = None;
        Poll::Ready(flushed)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_flush(context)
    }
}

impl<C: fmt::Debug> fmt::Debug for MessageSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSink").field("connection", &self.connection).finish_non_exhaustive()
    }
}
