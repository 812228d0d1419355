//! `NetRequests`: requests, each a question and its answer.

use crate::{Cause, CloseReason, NetConnection};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// The codes with which requests end. An application chooses others, below 2^62.
pub mod request_code {
    /// The side that asked cancelled the request.
    pub const CANCELED: u64 = 2;
    /// The peer dropped the question without an answer, or accepts no requests.
    pub const NO_ANSWER: u64 = 3;
    /// The question or the answer exceeds the limit.
    pub const TOO_LARGE: u64 = 4;
    /// Too little of the question arrived in time.
    pub const TOO_SLOW: u64 = 5;
}

/// Sends and answers requests, in addition to the messages of a connection.
///
/// A request is a question and its answer, and either side may ask. Requests do not wait for each
/// other, and their order is not defined. To answer, call [`serve_requests`], or accept each
/// question yourself:
///
/// ```
/// use net_traits::{Bytes, NetQuestion, NetRequests, RequestError};
/// use std::time::Duration;
///
/// async fn ask(connection: &impl NetRequests) -> Result<Bytes, RequestError> {
///     connection.request("what?".into(), Duration::from_secs(5)).await
/// }
///
/// async fn answer_one(connection: &impl NetRequests) -> Result<(), RequestError> {
///     let mut question = connection.accept_request().await?;
///     let answer = question.question().await?.to_ascii_uppercase();
///     question.answer(answer.into()).await
/// }
/// ```
#[async_trait]
pub trait NetRequests: NetConnection {
    /// A question of the peer.
    type Question: NetQuestion;

    /// Sends a question and waits for the answer, for at most `deadline`.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Unless it is [`RequestError::Closed`], the connection remains usable.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request and notifies the peer.
    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError>;

    /// Waits for the beginning of the peer's next question, not for all of its bytes.
    ///
    /// # Errors
    ///
    /// [`RequestError::Closed`] once the connection has ended; [`RequestError::Unsupported`] if the
    /// transport, or the peer's version of it, has no requests.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future loses no question.
    async fn accept_request(&self) -> Result<Self::Question, RequestError>;
}

/// A question of the peer. Dropping it without an answer rejects it with
/// [`NO_ANSWER`](request_code::NO_ANSWER).
///
/// It keeps the connection open.
#[async_trait]
pub trait NetQuestion: Send + Sync + 'static {
    /// Waits for the whole question.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`] over the transport's limit, [`RequestError::TimedOut`] if too
    /// little of the question arrives in time, [`RequestError::Canceled`],
    /// [`RequestError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may lose the data read so far. Call it once.
    async fn question(&mut self) -> Result<Bytes, RequestError>;

    /// Sends the answer, and waits until the transport has delivered it as far as
    /// [`NetConnection::close`] would.
    ///
    /// # Errors
    ///
    /// [`RequestError::TooLarge`], [`RequestError::Canceled`], [`RequestError::Closed`], or
    /// [`RequestError::TimedOut`] if the peer accepts no data for too long.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has sent the whole answer, or cancels the request.
    async fn answer(self, answer: Bytes) -> Result<(), RequestError>;

    /// Rejects the request with an application `code` (below 2^62), without waiting.
    fn refuse(self, code: u64);

    /// Waits until the peer cancels the request, or the connection ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    async fn canceled(&self);
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The question or the answer exceeds the limit. Send it in parts, or raise `max_request_size` on
    /// both sides.
    #[error("{size} bytes exceed the limit of {limit} bytes")]
    TooLarge {
        /// Size in bytes, as far as known.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer did not arrive in time. The peer may have acted on the question.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The peer cancelled the request. There is nothing to answer.
    #[error("the peer cancelled the request")]
    Canceled,
    /// The peer rejected the request. The code says why, see [`request_code`].
    #[error("the peer rejected the request with code {code}")]
    NoAnswer {
        /// The peer's code; [`NO_ANSWER`](request_code::NO_ANSWER) if it dropped the question.
        code: u64,
    },
    /// The transport, or the version of it that the peer uses, has no requests. Send messages instead.
    #[error("the transport or the peer's version of it does not support requests")]
    Unsupported,
    /// The transport failed. The connection may remain usable.
    #[error("the transport failed")]
    Transport(#[source] Cause),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed(#[source] CloseReason),
}

impl RequestError {
    /// Returns whether another request, possibly over a new connection, may succeed. The peer may
    /// already have processed the question.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Canceled | Self::NoAnswer { .. } | Self::Unsupported => {
                false
            }
            Self::TimedOut { .. } | Self::Transport(_) => true,
            Self::Closed(reason) => reason.is_retryable(),
        }
    }
}

/// The question type of a transport without requests. It has no values.
#[derive(Debug)]
pub struct NoQuestion(Infallible);

#[async_trait]
impl NetQuestion for NoQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        match self.0 {}
    }

    async fn answer(self, _: Bytes) -> Result<(), RequestError> {
        match self.0 {}
    }

    fn refuse(self, _: u64) {
        match self.0 {}
    }

    async fn canceled(&self) {
        match self.0 {}
    }
}

/// Answers all questions of the peer by calling `answer`, until the connection ends. Returns the
/// reason of the end.
///
/// Up to `concurrency` questions, at least one, are answered at once, in this task. If the peer
/// cancels a request, the future of its answer is dropped.
///
/// ```
/// use net_traits::{CloseReason, NetRequests, serve_requests};
///
/// async fn echo(connection: &impl NetRequests) -> CloseReason {
///     serve_requests(connection, 16, async |question| question).await
/// }
/// ```
///
/// # Cancel safety
///
/// Dropping the future drops all answers in progress.
pub async fn serve_requests<C, F>(
    connection: &C,
    concurrency: usize,
    answer: impl Fn(Bytes) -> F,
) -> CloseReason
where
    C: NetRequests,
    F: Future<Output = Bytes>,
{
    let (answer, mut answers) = (&answer, FuturesUnordered::new());
    let mut accept = connection.accept_request();
    loop {
        let accepted = poll_fn(|cx| {
            while let Poll::Ready(Some(())) = answers.poll_next_unpin(cx) {}
            if answers.len() >= concurrency.max(1) {
                return Poll::Pending; // an answer that ends wakes this task
            }
            accept.as_mut().poll(cx)
        });
        let Ok(mut question) = accepted.await else { return connection.watch_close().await };
        accept = connection.accept_request();
        answers.push(async move {
            let Ok(bytes) = question.question().await else { return };
            let made = match select(pin!(answer(bytes)), pin!(question.canceled())).await {
                Either::Left((made, _)) => made,
                Either::Right(_) => return,
            };
            let _ = question.answer(made).await; // the peer may have cancelled
        });
    }
}
