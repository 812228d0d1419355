//! Requests of a broken transport, and the data of a revoked peer that it keeps.

use super::{BrokenConnection, Fault, Shared, polled};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{NetConnection, NetQuestion, NetRequests, RequestError, request_code};
use net_traits_test::memory::MemoryQuestion;
use std::future::pending;
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

pub(crate) struct BrokenQuestion {
    inner: MemoryQuestion,
    fault: Fault,
    is_read: bool,
    /// The question, read before the application asks for it.
    early: Option<Bytes>,
}

#[async_trait]
impl NetRequests for BrokenConnection {
    type Question = BrokenQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let (inner, limits) = (&self.0.inner, &self.0.limits);
        match self.0.fault {
            Fault::RequestsHaveNoDeadline if question == "anybody?" => pending().await,
            Fault::CancellationsNeedRoom if question == "can you wait?" => {
                let inner = inner.clone();
                let request = async move { inner.request(question, Duration::MAX).await };
                tokio::spawn(request).await.unwrap() // continues when this future is dropped
            }
            Fault::QuestionsAreUnlimited if question.len() > limits.max_request_size => {
                Ok(question)
            }
            Fault::RequestsOutliveConnections if question == "are you there?" => {
                match inner.request(question, deadline).await {
                    Err(RequestError::Closed(_)) => pending().await,
                    result => result,
                }
            }
            Fault::RequestNeverPauses => unconstrained(inner.request(question, deadline)).await,
            _ => inner.request(question, deadline).await,
        }
    }

    async fn accept_request(&self) -> Result<BrokenQuestion, RequestError> {
        let asked = self.0.asked.lock().pop_front();
        let mut inner = match asked {
            Some(asked) => asked,
            None if self.0.fault == Fault::AcceptRequestNeverPauses => {
                unconstrained(self.0.inner.accept_request()).await?
            }
            None => self.0.inner.accept_request().await?,
        };
        if self.0.fault == Fault::DroppedAcceptLosesAQuestion {
            yield_now().await; // a future that is dropped here loses the question
        }
        let early = match self.0.fault {
            Fault::RevokedQuestionsAreRead => {
                inner.question().now_or_never().and_then(Result::ok) // unless it is unfinished
            }
            _ => None,
        };
        Ok(BrokenQuestion { inner, fault: self.0.fault, is_read: false, early })
    }
}

#[async_trait]
impl NetQuestion for BrokenQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        self.is_read = true;
        match (self.inner.question().await, self.early.take()) {
            (Err(RequestError::Closed(_)), Some(early)) => Ok(early),
            (Err(RequestError::TimedOut { .. }), _)
                if self.fault == Fault::UnfinishedQuestionsStay =>
            {
                pending().await
            }
            (question, _) => question,
        }
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        match self.fault {
            Fault::EmptyAnswersAreLost if answer.is_empty() => {
                self.inner.refuse(request_code::NO_ANSWER);
                Ok(())
            }
            _ => self.inner.answer(answer).await,
        }
    }

    fn refuse(self, code: u64) {
        if self.fault == Fault::RefusalsNeedRoom && code == 78 {
            return std::mem::forget(self.inner);
        }
        let forgets = self.fault == Fault::RefusalsForgetTheCode && code == 77;
        self.inner.refuse(if forgets { request_code::NO_ANSWER } else { code });
    }

    async fn canceled(&self) {
        if self.fault == Fault::CancellationsAreNotReported && self.is_read {
            pending::<()>().await;
        }
        match self.fault {
            Fault::CanceledKeepsItsFirstWaker => {
                polled::with_its_first_waker(self.inner.canceled()).await;
            }
            _ => self.inner.canceled().await,
        }
    }
}

impl Shared {
    /// Returns the next message that arrived before a revocation.
    pub(super) fn next_that_arrived(&self) -> Option<(Bytes, Duration)> {
        self.arrived.lock().pop_front().map(|message| (message, Duration::ZERO))
    }

    /// Keeps the data that arrived before a revocation.
    pub(super) fn keep_what_arrived(&self) {
        let keeps_messages = matches!(
            self.fault,
            Fault::RevokedMessagesAreHandedOut
                | Fault::RevokedBatchesAreHandedOut
                | Fault::RevokedMessagesAreTried
        );
        while keeps_messages && let Some(Ok((message, _))) = self.inner.recv().now_or_never() {
            self.arrived.lock().push_back(message);
        }
        while self.fault == Fault::RevokedDatagramsAreHandedOut
            && let Ok(inner) = self.inner.datagrams()
            && let Some(Ok(datagram)) = inner.recv_datagram().now_or_never()
        {
            self.arrived.lock().push_back(datagram);
        }
        while self.fault == Fault::RevokedQuestionsAreHandedOut
            && let Some(Ok(question)) = self.inner.accept_request().now_or_never()
        {
            self.asked.lock().push_back(question);
        }
    }
}
