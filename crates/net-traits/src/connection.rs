//! `NetConnection`: messages to and from one peer.

use crate::{
    CloseOutcome, CloseReason, DatagramError, NetDatagrams, PeerIdentity, RecvError,
    SendAckedError, SendError,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// An established connection with an authenticated peer.
///
/// Clones are handles of the same connection. After the last handle was dropped, the connection
/// sends what is queued in the background, for a time that the transport limits, and closes with
/// code 0. The drop does not wait and needs no runtime; to learn what became of the messages, use
/// [`close`](Self::close). All methods may be called concurrently.
#[async_trait]
pub trait NetConnection: Clone + Send + Sync + 'static {
    /// Returns the local address.
    fn local_addr(&self) -> SocketAddr;

    /// Returns the peer's address.
    fn remote_addr(&self) -> SocketAddr;

    /// Returns the local identity as 64 hexadecimal digits (see [`CertHash`](crate::CertHash)).
    fn local_identity(&self) -> &str;

    /// Returns the peer's identity as 64 hexadecimal digits.
    fn remote_identity(&self) -> &str;

    /// Returns the peer's identity and its endorsing keys, as of the time when it was accepted.
    fn peer_identity(&self) -> &PeerIdentity;

    /// Returns when the trust in the peer ends; `None` if it does not end.
    ///
    /// Trust ends when the certificate expires, or the last endorsement if the policy depends on
    /// one. The transport then closes the connection with
    /// [`TRUST_ENDED`](crate::close_code::TRUST_ENDED), unless the policy is
    /// [`TrustPolicy::at_handshake`](crate::TrustPolicy::at_handshake).
    fn trusted_until(&self) -> Option<SystemTime> {
        self.peer_identity().trusted_until
    }

    /// Returns false once the peer was [revoked](crate::NetTransport::revoke), or once the
    /// connection was closed because trust [ended](Self::trusted_until).
    ///
    /// Nothing that the peer sent is delivered then: `recv` fails with [`RecvError::Closed`] even
    /// if messages are queued. A layer that buffers received messages calls this before it delivers
    /// one.
    fn is_trusted(&self) -> bool;

    /// Returns the peer's certificate, if the transport uses certificates.
    fn remote_certificate(&self) -> Option<CertificateDer<'static>>;

    /// Returns the negotiated application protocol.
    fn alpn_negotiated(&self) -> &str;

    /// Sends a copy of `message`, see [`send_bytes`](Self::send_bytes).
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// See [`send_bytes`](Self::send_bytes).
    async fn send(&self, message: &[u8]) -> Result<(), SendError>;

    /// Sends one message.
    ///
    /// Resolves once the message is queued; what `Ok` means beyond that is described at
    /// [`close`](Self::close). Messages of one task keep their order. While the send queue is full,
    /// the call waits.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Unless it is [`SendError::Closed`], the connection remains usable.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or none of it.
    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError>;

    /// Sends the concatenation of `parts` as one message.
    ///
    /// Large parts are not copied if the transport can avoid it.
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// See [`send_bytes`](Self::send_bytes).
    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        self.send_bytes(parts.concat().into()).await
    }

    /// Queues one message without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError::WouldBlock`] if the send queue is full or the peer's stream is not open yet;
    /// nothing was queued then. Otherwise see [`send_bytes`](Self::send_bytes).
    fn try_send(&self, message: Bytes) -> Result<(), SendError>;

    /// Sends the messages from the front of `messages`, in order, and removes each one that is
    /// queued. `messages` is empty after `Ok`.
    ///
    /// The transports of these crates queue many messages at a time, which costs less per message
    /// than [`send_bytes`](Self::send_bytes). While the send queue is full, the call waits.
    ///
    /// ```
    /// use net_traits::{NetConnection, SendError};
    ///
    /// async fn report(connection: &impl NetConnection) -> Result<(), SendError> {
    ///     let mut lines = (0..100).map(|line| format!("line {line}").into()).collect();
    ///     connection.send_many(&mut lines).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes). The message at the front of `messages` is the one that
    /// was not queued.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when the future is dropped, `messages` has exactly those that are not queued.
    /// The default implementation requires that `send_bytes` queues the message in the poll in which
    /// it returns.
    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        while let Some(message) = messages.front() {
            self.send_bytes(message.clone()).await?;
            messages.pop_front();
        }
        Ok(())
    }

    /// Sends one message and waits until the peer's application has taken it: until a
    /// [`recv`](Self::recv) of the peer has returned it. The default implementation returns
    /// [`SendAckedError::Unsupported`].
    ///
    /// The message is queued as by [`send_bytes`](Self::send_bytes), in order with the messages of
    /// the same task. `Ok` does not mean that the peer has processed it; for that, use a
    /// [request](crate::NetRequests). At most 64 messages of a connection wait for a receipt at a
    /// time; further calls wait before they queue their message. Nothing bounds how long the peer's
    /// application may take: wrap the call in a timeout.
    ///
    /// ```
    /// use net_traits::{NetConnection, SendAckedError};
    ///
    /// async fn pay(connection: &impl NetConnection) -> Result<(), SendAckedError> {
    ///     match connection.send_acked("pay 5".into()).await {
    ///         Err(SendAckedError::Unsupported) => {
    ///             // An older peer: nothing was sent.
    ///             connection.send(b"pay 5").await.map_err(SendAckedError::NotSent)
    ///         }
    ///         result => result,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendAckedError`]. If the connection ends before the receipt arrives, it is
    /// [`SendAckedError::Unknown`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future has queued the whole message or none of it. A receipt that arrives later is
    /// ignored; until then the message counts among the 64.
    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        let _ = message;
        Err(SendAckedError::Unsupported)
    }

    /// Waits until the transport of the peer has every message queued before the call.
    ///
    /// This does not mean that its application has received them: see
    /// [`send_acked`](Self::send_acked). Over TCP and with quinn, a peer of an older version cannot
    /// confirm messages; `flush` then waits until they have left the send queue.
    ///
    /// Over TCP, confirmations arrive in the order of the peer's messages: while the receive queue
    /// of this side is full, `flush` waits until [`recv`](Self::recv) makes room.
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](Self::send_bytes). [`SendError::Stopped`] if messages were lost with a
    /// stream that the peer stopped. The next `flush` of each clone of the connection returns it
    /// once, and so do the sends that wait for room on that stream, or the next send if there is
    /// none.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn flush(&self) -> Result<(), SendError>;

    /// Waits for the next message.
    ///
    /// The duration is the time from the message's length header to its last byte; zero if they
    /// arrived in one piece.
    ///
    /// # Errors
    ///
    /// [`RecvError`]. Unless it is [`RecvError::Closed`], the connection remains usable. Messages
    /// of a peer that is no longer [trusted](Self::is_trusted) are not received.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no data.
    async fn recv(&self) -> Result<(Bytes, Duration), RecvError>;

    /// Returns the next message if it has arrived, without waiting; otherwise `None`.
    ///
    /// It also returns `None` once the task has used up its cooperative budget, so that a loop ends
    /// while messages keep arriving. Call [`recv`](Self::recv) next, which then lets other tasks
    /// run.
    ///
    /// # Errors
    ///
    /// See [`recv`](Self::recv).
    fn try_recv(&self) -> Result<Option<(Bytes, Duration)>, RecvError> {
        self.recv().now_or_never().transpose()
    }

    /// Waits for the next message, appends it and further ones that have arrived to `messages`, at
    /// most `limit`, and returns how many. If `limit` is 0, it returns 0 immediately.
    ///
    /// The transports of these crates take all messages that have arrived at once, which costs less
    /// per message than [`recv`](Self::recv). The default implementation takes one message.
    ///
    /// ```
    /// use net_traits::{NetConnection, RecvError};
    ///
    /// async fn total(connection: &impl NetConnection) -> Result<usize, RecvError> {
    ///     let (mut messages, mut bytes) = (Vec::new(), 0);
    ///     loop {
    ///         match connection.recv_many(&mut messages, 256).await {
    ///             Ok(_) => bytes += messages.drain(..).map(|(it, _)| it.len()).sum::<usize>(),
    ///             Err(RecvError::Closed(_)) => return Ok(bytes),
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`recv`](Self::recv). No message was appended then. An error that follows messages is
    /// returned by the next call.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has taken and appended nothing.
    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError> {
        if limit == 0 {
            return Ok(0);
        }
        messages.push(self.recv().await?);
        Ok(1)
    }

    /// Waits until the peer's transport has confirmed all sent messages, then closes the
    /// connection, and returns what became of them.
    ///
    /// The peer receives the application `code`, at most
    /// [`close_code::MAX`](crate::close_code::MAX), and the `reason` as
    /// [`sent_reason`](crate::close_code::sent_reason) limits it. The call returns once the
    /// connection has ended. A call on a connection that has ended, or that another call is
    /// closing, only waits for the end.
    ///
    /// The call waits as long as the peer makes progress. To bound the wait, wrap the call in a
    /// timeout: dropping the future of the first `close` closes immediately.
    ///
    /// Only an answer of the peer's application shows that it has received a message.
    ///
    /// [`recv`](Self::recv) returns the messages that arrive before the end, also during the call and
    /// after it. If the receive queue is full, receive during the call: the peer may wait until it can send, and
    /// take nothing meanwhile. Messages for which the receive queue has no room may be dropped.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes without waiting for queued messages.
    async fn close(&self, code: u64, reason: &str) -> CloseOutcome;

    /// Closes the connection immediately, without waiting. Queued messages are dropped.
    ///
    /// The peer receives `code` and `reason` as with [`close`](Self::close). A `close` that waits
    /// for the peer returns, and its code and reason are replaced by these. Aborting a closed
    /// connection does nothing.
    fn abort(&self, code: u64, reason: &str);

    /// Waits until the connection has ended and returns the reason.
    ///
    /// A future that is polled once may be pending although the connection has ended, if the task has used up its
    /// cooperative budget; `tokio::task::coop::unconstrained` prevents that.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn watch_close(&self) -> CloseReason;

    /// Returns the datagrams of the connection, if the transport supports them. The default
    /// implementation returns [`DatagramError::Unsupported`].
    ///
    /// [`NetDatagrams::max_datagram_size`] shows whether the peer accepts datagrams.
    ///
    /// # Errors
    ///
    /// [`DatagramError::Unsupported`].
    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        Err(DatagramError::Unsupported)
    }
}
