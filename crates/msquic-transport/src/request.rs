//! `NetRequests`: a question and its answer on a stream of their own.
//!
//! On the wire a request is a bidirectional stream: the bytes of the question and then FIN in one
//! direction, the bytes of the answer and then FIN in the other. Whoever gives up resets its direction
//! and stops the other, so that the peer learns it at once.

use crate::connection::{MsQuicNetConnection, Shared};
use crate::lane::{Stuck, unless_stuck};
use async_trait::async_trait;
use bytes::Bytes;
use msquic_async::stream::{ReadToEndError, StartError};
use msquic_async::{ReadError, ReadStream, StreamType, WriteError, WriteStream};
use net_traits::{CloseReason, NetConnection};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The code of a request that its asker gave up.
pub const REQUEST_CODE_CANCELED: u64 = 2;
/// The code of a request that its server dropped without an answer, or does not take.
pub const REQUEST_CODE_NO_ANSWER: u64 = 3;
/// The code of a question or an answer beyond the limit.
pub const REQUEST_CODE_TOO_LARGE: u64 = 4;

/// Questions and answers beside the messages of a connection.
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
///     // One task for each question: a slow answer holds up no other.
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
    /// What the other side gets.
    type Incoming: Send + 'static;

    /// Asks, and waits for the answer for at most `deadline`.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Unless it is [`RequestError::Closed`], the connection goes on.
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives the request up, and the peer learns that.
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;

    /// Waits for the next question of the peer. It does not wait until the question is there as a whole.
    ///
    /// # Errors
    ///
    /// [`RequestError::Closed`] once the connection is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no question.
    async fn accept_request(&self) -> Result<Self::Incoming, RequestError>;
}

/// A question of the peer. Dropping it tells the peer that there is no answer.
/// It keeps the connection open.
pub struct IncomingRequest {
    read: ReadStream,
    write: Arc<WriteStream>,
    connection: MsQuicNetConnection,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The question or the answer is longer than allowed.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Bytes there were, as far as is known.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// There was no answer in time.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The asker gave up.
    #[error("the peer gave the request up")]
    Canceled,
    /// The peer has no answer.
    #[error("the peer gave no answer, code {code}")]
    NoAnswer {
        /// The peer's code; [`REQUEST_CODE_NO_ANSWER`] when it dropped the question.
        code: u64,
    },
    /// The transport failed; the connection may go on.
    #[error("the transport failed: {0}")]
    Transport(String),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    Closed(#[source] CloseReason),
}

impl RequestError {
    /// Whether asking again, perhaps over a new connection, may help. The peer may have acted on the
    /// question already.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Canceled | Self::NoAnswer { .. } => false,
            Self::TimedOut { .. } | Self::Transport(_) => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// Answers every question of `connection` with what `answer` makes of it, up to `concurrency` at once,
/// until the connection is over. A question whose asker gives up is dropped, and with it the future of
/// its answer.
///
/// # Cancel safety
///
/// A dropped future drops all answers that are being made.
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
                    let _ = request.answer(made).await; // the asker may be gone
                });
            }
            Some(()) = answers.next() => {}
        }
    }
}

impl IncomingRequest {
    /// Waits for all of the question.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`] beyond the configured `max_request_size`, [`RequestError::Canceled`],
    /// [`RequestError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses what it has read.
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

    /// Waits until the asker gives up.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn canceled(&self) {
        let _ = self.write.stopped().await;
    }

    /// Answers, and waits until the peer's QUIC has acknowledged the answer. An asker that is not running at that
    /// moment may not have taken more than the first 256 KiB, and loses the rest if the connection is closed then.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`], [`RequestError::Canceled`], [`RequestError::Closed`], or
    /// [`RequestError::TimedOut`] when the peer takes nothing for the configured
    /// [`stream_op_timeout`](crate::MsQuicTransportConfig::stream_op_timeout).
    ///
    /// # Cancel safety
    ///
    /// A dropped future gives up: the peer gets no answer.
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

    /// Tells the peer that there is no answer, with a code of the application (below 2^62).
    pub fn refuse(self, code: u64) {
        self.give_up(code);
    }

    /// Each does nothing once its direction is over.
    fn give_up(&self, code: u64) {
        let _ = self.write.abort_write(code);
        let _ = self.read.abort_read(code);
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        self.give_up(REQUEST_CODE_NO_ANSWER); // which does nothing after the answer
    }
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingRequest").field("stream", &self.read.id()).finish_non_exhaustive()
    }
}

/// Gives the request up unless it was answered: the peer is told with codes of its own.
struct Asked {
    read: ReadStream,
    write: WriteStream,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Both do nothing once their direction is over.
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
                Err(error) => return Err(RequestError::Transport(error.to_string())),
            };
            let (Some(read), Some(write)) = stream.split() else {
                return Err(RequestError::Transport("a stream lacks a direction".to_owned()));
            };
            let mut asked = Asked { read, write };
            // A peer that answers before it has read everything stops the question; the answer counts.
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
