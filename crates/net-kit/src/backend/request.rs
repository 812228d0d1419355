//! Requests of both sides of a connection, and `Question`: a question of the peer.

use super::{Backend, Connection, PeerQuestion};
use crate::coop;
use crate::request_reader::refusal;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{NetQuestion, NetRequests, RequestError, request_code};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

#[async_trait]
impl<B: Backend> NetRequests for Connection<B> {
    type Question = Question<B>;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let session = self.session();
        let (size, limit) = (question.len(), session.options().max_request_size);
        if size > limit {
            coop::spend().await;
            return Err(RequestError::TooLarge { size, limit });
        }
        let answer = tokio::select! {
            biased;
            answer = timeout(deadline, B::request(session, question)) => {
                answer.unwrap_or(Err(RequestError::TimedOut { after: deadline }))
            }
            reason = session.ended() => Err(RequestError::Closed(reason)),
        };
        // Not before, as questions that are asked at once are sent in order.
        if answer.is_err() {
            coop::spend().await;
        }
        self.shared.entry.hand_out_request(answer)
    }

    async fn accept_request(&self) -> Result<Question<B>, RequestError> {
        coop::spend().await;
        let session = self.session();
        let question = tokio::select! {
            biased;
            reason = session.ended() => Err(RequestError::Closed(reason)),
            question = B::accept_request(session) => {
                Ok(Question { question: question?, connection: self.clone() })
            }
        };
        self.shared.entry.hand_out_request(question)
    }
}

/// A question of the peer, see [`NetQuestion`].
pub struct Question<B: Backend> {
    question: B::Question,
    connection: Connection<B>,
}

impl<B: Backend> Question<B> {
    /// Ends the question, unless it has ended.
    fn end(&mut self, code: u64) {
        self.question.end(self.connection.session(), code);
    }
}

#[async_trait]
impl<B: Backend> NetQuestion for Question<B> {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        let session = self.connection.session();
        let question = tokio::select! {
            biased;
            reason = session.ended() => Err(RequestError::Closed(reason)),
            question = self.question.read(session) => question,
        };
        if let Some(code) = question.as_ref().err().and_then(refusal) {
            self.end(code);
        }
        self.connection.shared.entry.hand_out_request(question)
    }

    async fn answer(mut self, answer: Bytes) -> Result<(), RequestError> {
        let session = self.connection.session();
        let (size, limit) = (answer.len(), session.options().max_request_size);
        if size > limit {
            self.end(request_code::TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        if let Some(reason) = session.ended().now_or_never() {
            return Err(RequestError::Closed(reason));
        }
        tokio::select! {
            biased;
            answered = self.question.answer(session, answer) => answered,
            reason = session.ended() => Err(RequestError::Closed(reason)),
        }
    }

    fn refuse(mut self, code: u64) {
        self.end(code);
    }

    async fn canceled(&self) {
        tokio::select! {
            () = self.question.canceled() => {}
            _ = self.connection.session().ended() => {}
        }
    }
}

impl<B: Backend> Drop for Question<B> {
    fn drop(&mut self) {
        self.end(request_code::NO_ANSWER); // does nothing after an answer
    }
}

impl<B: Backend> fmt::Debug for Question<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("connection", &self.connection).finish_non_exhaustive()
    }
}
