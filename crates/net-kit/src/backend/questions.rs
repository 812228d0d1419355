//! `Questions`: the questions of the peer that the application has not accepted.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::pending;
use tokio::sync::Semaphore;

/// The questions of the peer that the application has not accepted. The protocol limits their number.
pub struct Questions<Q> {
    waiting: Mutex<VecDeque<Q>>,
    /// Has a permit for each.
    arrived: Semaphore,
}

impl<Q> Questions<Q> {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::default(), arrived: Semaphore::new(0) }
    }

    /// Adds a question.
    pub fn push(&self, question: Q) {
        self.waiting.lock().push_back(question);
        self.arrived.add_permits(1);
    }

    /// Waits for the next question; forever after [`clear`](Self::clear).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn accept(&self) -> Q {
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
            if let Some(question) = self.waiting.lock().pop_front() {
                return question;
            }
        }
        pending().await
    }

    /// Drops all questions, when the connection has ended.
    pub fn clear(&self) {
        self.arrived.close();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        drop(waiting); // after unlocking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_dropped_accept_takes_no_question() {
        let questions = Questions::new();
        assert!(questions.accept().now_or_never().is_none());
        let mut accept = Box::pin(questions.accept());
        assert!((&mut accept).now_or_never().is_none());
        questions.push(1);
        questions.push(2);
        drop(accept); // it was woken
        assert_eq!(questions.accept().now_or_never(), Some(1));
        assert_eq!(questions.accept().now_or_never(), Some(2));
        questions.push(3);
        questions.clear();
        assert!(questions.accept().now_or_never().is_none());
    }
}
