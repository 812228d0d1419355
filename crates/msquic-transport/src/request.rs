//! `NetRequests`: requests, each a question and its answer on its own stream.
//!
//! On the wire a request is a bidirectional stream: the bytes of the question and then FIN in one
//! direction, the bytes of the answer and then FIN in the other. A side that cancels resets its
//! direction and stops the other, which notifies the peer at once.

use crate::connection::{MsQuicNetConnection, Shared};
use crate::lane::unless_stuck;
use async_trait::async_trait;
use bytes::Bytes;
use msquic_async::stream::{ReadToEndError, StartError};
use msquic_async::{ReadError, ReadStream, StreamType, WriteError, WriteStream};
use net_kit::progress::Stuck;
use net_traits::{Cause, CloseReason, NetConnection};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The code of a request that the asker cancelled.
pub const REQUEST_CODE_CANCELED: u64 = 2;
/// The code of a request that the server dropped without an answer, or does not accept.
pub const REQUEST_CODE_NO_ANSWER: u64 = 3;
/// The code of a question or an answer over the limit.
pub const REQUEST_CODE_TOO_LARGE: u64 = 4;

/// Sends and answers requests, in addition to the messages of a connection.
///
/// ```
/// use msquic_transport::{MsQuicTransport, NetRequests};
/// use net_traits::*;
/// use std::time::Duration;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let credential = NetCredential::self_signed(TrustPolicy::Any)?;
/// # let transport = MsQuicTransport::new();
/// # let listener =
/// #     transport.create_listener("127.0.0.1:0".parse()?, &["ask/1"], credential.clone()).await?;
/// # let address = listener.local_addr();
/// let server = tokio::spawn(async move {
///     let connection = listener.accept().await?.accept().await?;
///     // One task per question, so that a slow answer does not delay others.
///     while let Ok(mut request) = connection.accept_request().await {
///         tokio::spawn(async move {
///             let answer = request.question().await?.to_ascii_uppercase();
///             request.answer(answer.into()).await
///         });
///     }
///     Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// });
///
/// let connection = transport.connect(address, &["ask/1"], credential).await?;
/// let answer = connection.request("what?".into(), Duration::from_secs(5)).await?;
/// assert_eq!(answer, "WHAT?");
/// # connection.close(0, "").await;
/// # server.await?.unwrap();
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait NetRequests: NetConnection {
    /// The request that `accept_request` returns.
    type Incoming: Send + 'static;

    /// Sends a question and waits for its answer, for at most `deadline`.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Unless it is [`RequestError::Closed`], the connection remains usable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request and notifies the peer.
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;

    /// Waits for the next request of the peer, not for its whole question.
    ///
    /// # Errors
    ///
    /// [`RequestError::Closed`] once the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no request.
    async fn accept_request(&self) -> Result<Self::Incoming, RequestError>;
}

/// A request of the peer.
///
/// Dropping it tells the peer that there is no answer. It keeps the connection open.
pub struct IncomingRequest {
    read: ReadStream,
    write: Arc<WriteStream>,
    connection: MsQuicNetConnection,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The question or the answer exceeds the limit.
    #[error("{size} bytes exceed the limit of {limit} bytes")]
    TooLarge {
        /// The size as far as known, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The deadline passed without an answer.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The peer cancelled the request.
    #[error("the peer cancelled the request")]
    Canceled,
    /// The peer rejected the request.
    #[error("the peer rejected the request with code {code}")]
    NoAnswer {
        /// The peer's code; [`REQUEST_CODE_NO_ANSWER`] if it dropped the request.
        code: u64,
    },
    /// The transport failed. The connection may remain usable.
    #[error("the transport failed")]
    Transport(#[source] Cause),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

impl RequestError {
    /// Whether another attempt, possibly over a new connection, may succeed.
    ///
    /// The peer may already have acted on the question.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Canceled | Self::NoAnswer { .. } => false,
            Self::TimedOut { .. } | Self::Transport(_) => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// Answers all requests of `connection` by calling `answer`, until the connection ends.
///
/// Up to `concurrency` answers run at once. If the peer cancels a request, the future of its answer
/// is dropped.
///
/// # Cancel safety
///
/// Dropping the future drops all answers in progress.
pub async fn serve<F>(
    connection: &MsQuicNetConnection,
    concurrency: usize,
    answer: impl Fn(Bytes) -> F,
) -> CloseReason
where
    F: Future<Output = Bytes>,
{
    use futures_util::stream::{FuturesUnordered, StreamExt};
    let mut answers = FuturesUnordered::new();
    let answer = &answer;
    loop {
        let has_room = answers.len() < concurrency.max(1);
        tokio::select! {
            request = connection.accept_request(), if has_room => {
                let Ok(mut request) = request else { return connection.watch_close().await };
                answers.push(async move {
                    let Ok(question) = request.question().await else { return };
                    let made = tokio::select! {
                        made = answer(question) => made,
                        () = request.canceled() => return,
                    };
                    let _ = request.answer(made).await; // the peer may have cancelled
                });
            }
            Some(()) = answers.next() => {}
        }
    }
}

impl IncomingRequest {
    /// Waits for the whole question.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`] over the configured `max_request_size`,
    /// [`RequestError::Canceled`], [`RequestError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the data read so far.
    pub async fn question(&mut self) -> Result<Bytes, RequestError> {
        let limit = self.connection.shared.config.max_request_size;
        match self.read.read_to_end(limit).await {
            Ok(question) => Ok(question.into()),
            Err(ReadToEndError::TooLong { limit }) => {
                self.give_up(REQUEST_CODE_TOO_LARGE);
                Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
            }
            Err(ReadToEndError::Read(ReadError::ConnectionLost(_))) => {
                Err(RequestError::Closed(self.connection.watch_close().await))
            }
            Err(_) => Err(RequestError::Canceled),
        }
    }

    /// Waits until the peer cancels the request.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn canceled(&self) {
        let _ = self.write.stopped().await;
    }

    /// Sends the answer and waits until the peer's QUIC has acknowledged it.
    ///
    /// A peer whose task does not read at that moment has at most the first 256 KiB buffered. It
    /// loses the rest if the connection is then closed.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`], [`RequestError::Canceled`], [`RequestError::Closed`], or
    /// [`RequestError::TimedOut`] if the peer accepts no data for the configured
    /// [`stream_op_timeout`](crate::MsQuicTransportConfig::stream_op_timeout).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the answer.
    pub async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        let Shared { inner, config, stream_pool, .. } = &*self.connection.shared;
        let (size, limit, after) =
            (answer.len(), config.max_request_size, config.stream_op_timeout);
        if size > limit {
            self.give_up(REQUEST_CODE_TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        let written = async {
            self.write.enqueue(std::slice::from_ref(&answer)).await?;
            stream_pool.add_answer(&self.write);
            poll_fn(|cx| self.write.poll_finish_write(cx)).await
        };
        match unless_stuck(inner, &self.write, after, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WriteError::ConnectionLost(_))) => {
                Err(RequestError::Closed(self.connection.watch_close().await))
            }
            Ok(Err(_)) => Err(RequestError::Canceled),
            Err(Stuck(after)) => Err(RequestError::TimedOut { after }),
        }
    }

    /// Rejects the request with an application `code` (below 2^62).
    pub fn refuse(self, code: u64) {
        self.give_up(code);
    }

    /// Each call does nothing once its direction has ended.
    fn give_up(&self, code: u64) {
        let _ = self.write.abort_write(code);
        let _ = self.read.abort_read(code);
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        self.give_up(REQUEST_CODE_NO_ANSWER); // does nothing after an answer
    }
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingRequest").field("stream", &self.read.id()).finish_non_exhaustive()
    }
}

/// Cancels the request on drop, unless it was answered.
struct Asked {
    read: ReadStream,
    write: WriteStream,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Both calls do nothing once their direction has ended.
        let _ = self.write.abort_write(REQUEST_CODE_CANCELED);
        let _ = self.read.abort_read(REQUEST_CODE_CANCELED);
    }
}

#[async_trait]
impl NetRequests for MsQuicNetConnection {
    type Incoming = IncomingRequest;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let (size, limit) = (question.len(), self.shared.config.max_request_size);
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        let ask = async {
            let opened = self.shared.inner.open_outbound_stream(StreamType::Bidirectional, false);
            let stream = match opened.await {
                Ok(stream) => stream,
                Err(StartError::ConnectionLost(_)) => {
                    return Err(RequestError::Closed(self.watch_close().await));
                }
                Err(error) => return Err(RequestError::Transport(Cause::new(error))),
            };
            let (Some(read), Some(write)) = stream.split() else {
                return Err(RequestError::Transport(Cause::new("a stream lacks a direction")));
            };
            let mut asked = Asked { read, write };
            // A peer that answers before it has read the whole question stops it; the answer is
            // valid.
            if asked.write.enqueue(std::slice::from_ref(&question)).await.is_ok() {
                let _ = asked.write.finish();
            }
            let answer = asked.read.read_to_end(limit).await;
            match answer {
                Ok(answer) => Ok(Bytes::from(answer)),
                Err(ReadToEndError::TooLong { limit }) => {
                    let _ = asked.read.abort_read(REQUEST_CODE_TOO_LARGE);
                    Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
                }
                Err(ReadToEndError::Read(ReadError::Reset(code))) => {
                    Err(RequestError::NoAnswer { code })
                }
                Err(_) => Err(RequestError::Closed(self.watch_close().await)),
            }
        };
        match timeout(deadline, ask).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::TimedOut { after: deadline }),
        }
    }

    async fn accept_request(&self) -> Result<IncomingRequest, RequestError> {
        loop {
            let Ok(stream) = self.shared.inner.accept_inbound_stream().await else {
                return Err(RequestError::Closed(self.watch_close().await));
            };
            if let (Some(read), Some(write)) = stream.split() {
                let write = Arc::new(write);
                return Ok(IncomingRequest { read, write, connection: self.clone() });
            }
        }
    }
}
