//! `Requests`: the questions of both sides of a connection that have no answer yet. No I/O.
//!
//! An asked question keeps its place until its answer or refusal arrives, or until its cancellation
//! is queued; so the peer never sees more open questions than [`MAX_OPEN`].

use crate::record::{self, Record, Violation};
use bytes::Bytes;
use net_kit::outbox::Outbox;
use net_traits::{RequestError, request_code};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// How many questions one side may have open, see docs/wire-protocol.md.
pub(crate) const MAX_OPEN: usize = 16;

#[derive(Debug)]
pub(crate) struct Requests {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Wakes tasks that accept questions.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    asked: HashMap<u32, Asked>,
    /// Questions of the peer that are not accepted.
    waiting: VecDeque<(u32, Bytes)>,
    /// Questions of the peer that are not answered. Dropping the sender tells of a cancellation.
    open: HashMap<u32, watch::Sender<()>>,
}

/// A question of this side.
#[derive(Debug)]
struct Asked {
    /// `None` after a cancellation that could not be queued.
    answer: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
    _place: OwnedSemaphorePermit,
}

/// A question of the peer that was accepted.
#[derive(Debug)]
pub struct Question {
    pub(crate) id: u32,
    pub(crate) question: Bytes,
    pub(crate) asker: watch::Receiver<()>,
    /// The answer is about to be queued.
    pub(crate) is_answering: bool,
    pub(crate) is_ended: bool,
}

impl Requests {
    pub(crate) fn new() -> Self {
        let places = Arc::new(Semaphore::new(MAX_OPEN));
        Self { places, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Asks and waits for the answer. A dropped future cancels.
    pub(crate) async fn ask(
        &self,
        outbox: &Outbox,
        question: Bytes,
    ) -> Result<Bytes, RequestError> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| RequestError::Canceled)?; // it is never closed
        let (answer, answered) = oneshot::channel();
        let id = {
            let state = &mut *self.state.lock();
            state.next = state.next.wrapping_add(1);
            state.asked.insert(state.next, Asked { answer: Some(answer), _place: place });
            state.next
        };
        let mut canceling = CancelOnDrop { requests: self, outbox, id, is_sent: false };
        let pieces = record::question(id, question);
        outbox.push(pieces).await.map_err(record::request_error)?;
        canceling.is_sent = true;
        answered.await.unwrap_or(Err(RequestError::Canceled)) // the connection has ended
    }

    /// Waits for the next question of the peer.
    pub(crate) async fn accept(&self) -> Question {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let state = &mut *self.state.lock();
                if let Some((id, question)) = state.waiting.pop_front()
                    && let Some(asker) = state.open.get(&id).map(watch::Sender::subscribe)
                {
                    if !state.waiting.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Question { id, question, asker, is_answering: false, is_ended: false };
                }
            }
            arrived.await;
        }
    }

    /// Ends a question of the peer, before its answer or refusal is queued. Returns false if the
    /// peer cancelled it.
    pub(crate) fn finish(&self, id: u32) -> bool {
        self.state.lock().open.remove(&id).is_some()
    }

    /// Handles a record about requests. `limit` is that of a question or an answer.
    pub(crate) fn on_record(
        &self,
        outbox: &Outbox,
        record: Record,
        limit: usize,
    ) -> Result<(), Violation> {
        match record {
            Record::Question { id, question } => {
                let Some(question) = question else {
                    // Without room in the queue the asker waits until its deadline.
                    let _ = outbox.try_push(&mut record::refusal(id, request_code::TOO_LARGE));
                    return Ok(());
                };
                {
                    let state = &mut *self.state.lock();
                    if state.open.len() >= MAX_OPEN || state.open.contains_key(&id) {
                        return Err(Violation("too many open questions"));
                    }
                    state.open.insert(id, watch::Sender::new(()));
                    state.waiting.push_back((id, question));
                }
                self.arrived.notify_one();
            }
            Record::Answer { id, answer: Ok(answer) } => self.answered(id, Ok(answer)),
            Record::Answer { id, answer: Err(size) } => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                self.answered(id, Err(RequestError::TooLarge { size, limit }));
            }
            Record::Refusal { id, code } => {
                self.answered(id, Err(RequestError::NoAnswer { code }));
            }
            Record::Cancel { id } => {
                let canceled = {
                    let state = &mut *self.state.lock();
                    state.waiting.retain(|(waiting, _)| *waiting != id);
                    state.open.remove(&id)
                };
                drop(canceled); // wakes the answering task
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&self, id: u32, answer: Result<Bytes, RequestError>) {
        let asked = self.state.lock().asked.remove(&id);
        if let Some(waiting) = asked.and_then(|mut asked| asked.answer.take()) {
            let _ = waiting.send(answer); // it may have cancelled
        }
    }
}

/// Cancels a question on drop, unless it was answered.
struct CancelOnDrop<'a> {
    requests: &'a Requests,
    outbox: &'a Outbox,
    id: u32,
    is_sent: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if !self.requests.state.lock().asked.contains_key(&self.id) {
            return;
        }
        let is_told = !self.is_sent || self.outbox.try_push(&mut record::cancel(self.id)).is_ok();
        let dropped = {
            let asked = &mut self.requests.state.lock().asked;
            match asked.get_mut(&self.id) {
                // The peer still counts the question, so it keeps its place until the peer ends it.
                Some(asked) if !is_told => {
                    asked.answer = None;
                    None
                }
                _ => asked.remove(&self.id),
            }
        };
        drop(dropped);
    }
}
