//! `on_message` and `serve_inline`: handlers that run where messages are received.

use crate::delivery::Delivery;
use crate::lane::QueueError;
use crate::shared::Shared;
use crate::{MsQuicListener, MsQuicNetConnection};
use bytes::Bytes;
use net_kit::inbox::{Inbox, Received};
use net_kit::registry::Handle;
use net_traits::{
    AcceptError, NetConnection, NetIncomingRequest, NetListener, RecvError, SendError, close_code,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime;
use tokio::task::{JoinSet, yield_now};

impl MsQuicNetConnection {
    /// Passes all further messages to `handler`, on the thread that receives them: a worker thread of
    /// msquic, or the thread that drives it. This saves the wake-up of a task for each message.
    ///
    /// The handler gets the connection, to answer with [`try_send`](NetConnection::try_send), and
    /// what [`recv`](NetConnection::recv) would return, except for the end of the connection; see
    /// [`watch_close`](NetConnection::watch_close). The streams for answers are opened first, so that
    /// `try_send` does not fail for that reason. Messages that have arrived are passed on first, by this
    /// call or, after the first 64, by a task of its runtime. The handler gets one message at a time, in
    /// order, and runs inside the runtime of this call, where it may spawn tasks.
    ///
    /// **The handler must not block.** All connections of the thread wait for it. There is no queue
    /// in front of it: flow control slows the peer down while it runs. A handler that panics is not
    /// called again, and its connection is closed with
    /// [`HANDLER_PANICKED`](net_traits::close_code::HANDLER_PANICKED).
    ///
    /// A handler does not keep the connection open: after the last handle was dropped, it gets no
    /// further messages. Nor does it after a [`close`](NetConnection::close) or
    /// [`abort`](NetConnection::abort) on this side, except for a call in progress.
    /// [`revoke`](net_traits::NetTransport::revoke) also waits for that call, so a handler must not wait for a
    /// `revoke`. The receipt of a
    /// [`send_acked`](NetConnection::send_acked) of the peer is sent after the handler has returned.
    ///
    /// From now on `recv` waits for the end of the connection; one that runs at the same time may
    /// still return a message. A second call replaces the handler.
    ///
    /// ```no_run
    /// use msquic_transport::MsQuicNetConnection;
    /// use net_traits::{NetConnection, SendError};
    ///
    /// async fn echo(connection: &MsQuicNetConnection) -> Result<(), SendError> {
    ///     let echo = |connection: &MsQuicNetConnection, received| {
    ///         let Ok((message, _)) = received else { return };
    ///         if connection.try_send(message).is_err() {
    ///             connection.abort(1, "reads too slowly");
    ///         }
    ///     };
    ///     connection.on_message(echo).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](NetConnection::send_bytes). The handler was not set then. If the peer has closed the
    /// connection, that is no error: the handler gets what was sent before.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has not set the handler.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub async fn on_message<F>(&self, handler: F) -> Result<(), SendError>
    where
        F: Fn(&Self, Result<(Bytes, Duration), RecvError>) + Send + Sync + 'static,
    {
        let member = Handle::member(&self.shared);
        match member.stream_pool.open(&member.inner, member.config.timeouts()).await {
            // What the peer sent before the end is still passed on.
            Ok(()) | Err(QueueError::Connection) => {}
            Err(error) => return Err(self.send_error(error).await),
        }
        let (weak, runtime) = (Arc::downgrade(member), runtime::Handle::current());
        let spawner = runtime.clone();
        let pass_on =
            move |delivery: &Delivery, limit| pass_on(delivery, limit, &weak, &runtime, &handler);
        member.inbound.delivery().set(Arc::new(pass_on));
        let inbound = member.inbound.clone();
        if inbound.deliver_part(AT_ONCE) {
            spawner.spawn(async move {
                yield_now().await;
                while inbound.deliver_part(AT_ONCE) {
                    yield_now().await;
                }
                inbound.deliver_rest();
            });
        } else {
            inbound.deliver_rest();
        }
        Ok(())
    }
}

/// How many messages that arrived before the handler was set are passed on without a yield.
const AT_ONCE: usize = 64;

/// Passes the messages in the inbox of a connection to its handler, at most `limit`. Returns whether it
/// stopped there.
fn pass_on(
    delivery: &Delivery,
    limit: usize,
    member: &Weak<Shared>,
    runtime: &runtime::Handle,
    handler: &impl Fn(&MsQuicNetConnection, Received),
) -> bool {
    // After the last handle was dropped, messages are left in the inbox, as without a handler.
    let Some(shared) = member.upgrade().and_then(Handle::further) else { return false };
    let connection = MsQuicNetConnection::of(shared);
    let inbound = &connection.shared.inbound;
    let _entered = runtime.enter();
    for _ in 0..limit {
        if delivery.is_stopped() {
            return false;
        }
        let Some((received, mark)) = inbound.pop(Inbox::pop_with_mark) else { return false };
        let received = connection.shared.entry.hand_out(received);
        if let Err(RecvError::Closed(_)) = received {
            inbound.stop_delivery(); // the peer is no longer trusted
            return false;
        }
        let is_message = received.is_ok();
        if catch_unwind(AssertUnwindSafe(|| handler(&connection, received))).is_err() {
            inbound.stop_delivery();
            tracing::error!(parent: connection.span(), "the handler of messages panicked");
            connection.abort(close_code::HANDLER_PANICKED, "");
            return false;
        }
        if let Some(number) = mark.filter(|_| is_message) {
            inbound.inbox().add_due(number);
            connection.spawn_receipts();
        }
    }
    true
}

/// Accepts peers until the listener is closed, and passes their messages to `handler`, see
/// [`on_message`](MsQuicNetConnection::on_message).
///
/// A connection is kept until it has ended. Returns the error of the closed listener after all
/// connections have ended.
///
/// ```no_run
/// use msquic_transport::{MsQuicListener, MsQuicNetConnection, serve_inline};
/// use net_traits::NetConnection;
///
/// async fn echo(listener: &MsQuicListener) {
///     let echo = |connection: &MsQuicNetConnection, received| {
///         let Ok((message, _)) = received else { return };
///         if connection.try_send(message).is_err() {
///             connection.abort(1, "reads too slowly");
///         }
///     };
///     let end = serve_inline(listener, echo).await;
///     println!("stopped: {end}");
/// }
/// ```
///
/// # Cancel safety
///
/// A dropped future drops its handles of the connections, and the handshakes in progress.
///
/// # Panics
///
/// If called outside a tokio runtime.
pub async fn serve_inline<F>(listener: &MsQuicListener, handler: F) -> AcceptError
where
    F: Fn(&MsQuicNetConnection, Result<(Bytes, Duration), RecvError>) + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let mut peers = JoinSet::new();
    let end = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(request) => {
                    let handler = handler.clone();
                    peers.spawn(async move {
                        let Ok(connection) = request.accept().await else { return };
                        let handler = move |connection: &_, received| handler(connection, received);
                        // It fails if this side has closed, or the peer allows no stream.
                        if connection.on_message(handler).await.is_ok() {
                            let _ = connection.recv().await; // the end, once all was passed on
                        }
                    });
                }
                Err(end) => break end,
            },
            Some(_) = peers.join_next() => {}
        }
    };
    while peers.join_next().await.is_some() {}
    end
}
