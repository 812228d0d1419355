//! `Requests`: the questions of both sides of a connection that have no answer yet. Pure.
//!
//! A question of this side keeps its place until its answer or refusal arrives, or until its
//! cancellation is queued, so that the peer never has more open questions than [`MAX_OPEN`].
//! Cancellations and refusals are queued even if there is no room. Both are bounded: a question
//! needs room before it can be cancelled, and a peer that does not read refusals may not ask
//! further questions.

use crate::record::{self, Record, Violation};
use bytes::Bytes;
use net_kit::memory_budget::{Charge, Share};
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
    /// Places for questions that the application has accepted. A peer that cancels them may ask further ones, while
    /// the application still works on the former.
    accepted: Arc<Semaphore>,
    /// Wakes tasks that accept questions.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    asked: HashMap<u32, Asked>,
    /// Questions of the peer that are not accepted.
    waiting: VecDeque<(u32, Bytes, Charge)>,
    /// Questions of the peer that are not answered. Dropping a sender reports a cancellation.
    open: HashMap<u32, watch::Sender<()>>,
    /// The positions of refusals that were not written when the last question arrived.
    refusals: Vec<u64>,
}

/// A question of this side.
#[derive(Debug)]
struct Asked {
    answer: oneshot::Sender<Result<Bytes, RequestError>>,
    _place: OwnedSemaphorePermit,
}

/// A question of the peer that was accepted.
#[derive(Debug)]
pub struct Question {
    pub(crate) id: u32,
    pub(crate) question: Bytes,
    /// The memory of the question.
    _charge: Charge,
    /// `None` once the answer is queued.
    pub(crate) place: Option<OwnedSemaphorePermit>,
    pub(crate) asker: watch::Receiver<()>,
    /// The answer is about to be queued.
    pub(crate) is_answering: bool,
    pub(crate) is_ended: bool,
}

impl Requests {
    pub(crate) fn new() -> Self {
        let [places, accepted] = [(); 2].map(|()| Arc::new(Semaphore::new(MAX_OPEN)));
        Self { places, state: Mutex::default(), accepted, arrived: Notify::new() }
    }

    /// Asks and waits for the answer. Dropping the future cancels the question.
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
            state.asked.insert(state.next, Asked { answer, _place: place });
            state.next
        };
        let mut canceling = CancelOnDrop { requests: self, outbox, id, is_sent: false };
        let pieces = record::question(id, question);
        outbox.push(pieces).await.map_err(record::request_error)?;
        canceling.is_sent = true;
        answered.await.unwrap_or(Err(RequestError::Canceled)) // the connection has ended
    }

    /// Waits for the next question of the peer, while fewer than [`MAX_OPEN`] are accepted.
    pub(crate) async fn accept(&self) -> Question {
        let place = self.accepted.clone().acquire_owned().await.ok(); // it is never closed
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let state = &mut *self.state.lock();
                if let Some((id, question, _charge)) = state.waiting.pop_front()
                    && let Some(asker) = state.open.get(&id).map(watch::Sender::subscribe)
                {
                    if !state.waiting.is_empty() {
                        self.arrived.notify_one();
                    }
                    let (is_answering, is_ended) = (false, false);
                    return Question {
                        id,
                        question,
                        _charge,
                        place,
                        asker,
                        is_answering,
                        is_ended,
                    };
                }
            }
            arrived.await;
        }
    }

    /// Ends a question of the peer before its answer or refusal is queued. Returns false if the
    /// peer cancelled it.
    pub(crate) fn finish(&self, id: u32) -> bool {
        self.state.lock().open.remove(&id).is_some()
    }

    /// Rejects the question of the peer, if the connection is open.
    pub(crate) fn refuse(&self, outbox: &Outbox, id: u32, code: u64) {
        if let Ok(position) = outbox.push_control(record::refusal(id, code)) {
            self.state.lock().refusals.push(position);
        }
    }

    /// Handles a record about requests. Questions are charged to `share`. `limit` is the maximum
    /// size of a question or an answer.
    pub(crate) fn on_record(
        &self,
        outbox: &Outbox,
        share: &Arc<Share>,
        record: Record,
        limit: usize,
    ) -> Result<(), Violation> {
        match record {
            Record::Question { id, question } => {
                let written = outbox.written();
                let mut charge = Charge::new(share);
                charge.set(question.as_ref().map_or(0, Bytes::len));
                let is_short = {
                    let state = &mut *self.state.lock();
                    // One refusal more: the one that is being written may have reached the peer.
                    state.refusals.retain(|position| *position > written);
                    let is_full = state.open.len() >= MAX_OPEN || state.refusals.len() > MAX_OPEN;
                    if is_full || state.open.contains_key(&id) {
                        return Err(Violation("too many open questions"));
                    }
                    question.map(|question| {
                        state.open.insert(id, watch::Sender::new(()));
                        state.waiting.push_back((id, question, charge));
                    })
                };
                match is_short {
                    Some(()) => self.arrived.notify_one(),
                    None => self.refuse(outbox, id, request_code::TOO_LARGE),
                }
            }
            Record::Answer { id, answer: Ok(answer) } => self.resolve(id, Ok(answer)),
            Record::Answer { id, answer: Err(size) } => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                self.resolve(id, Err(RequestError::TooLarge { size, limit }));
            }
            Record::Refusal { id, code } => {
                self.resolve(id, Err(RequestError::NoAnswer { code }));
            }
            Record::Cancel { id } => {
                let canceled = {
                    let state = &mut *self.state.lock();
                    state.waiting.retain(|(waiting, ..)| *waiting != id);
                    state.open.remove(&id)
                };
                drop(canceled); // wakes the answering task
            }
            _ => {}
        }
        Ok(())
    }

    fn resolve(&self, id: u32, answer: Result<Bytes, RequestError>) {
        let asked = self.state.lock().asked.remove(&id);
        if let Some(Asked { answer: waiting, .. }) = asked {
            let _ = waiting.send(answer); // the caller may have cancelled
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
        if self.is_sent {
            // It fails only if the connection has ended.
            let _ = self.outbox.push_control(record::cancel(self.id));
        }
        // Free the place after the cancellation is queued, so that the next question follows it.
        let canceled = self.requests.state.lock().asked.remove(&self.id);
        drop(canceled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordDecoder;
    use futures_util::FutureExt;
    use net_kit::outbox::Work;

    /// Returns the queued records, which are not recorded as written.
    fn queued(outbox: &Outbox) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(Work::Frame(frame)) = outbox.work().now_or_never() {
            let bytes = frame.pieces.concat();
            records.extend(RecordDecoder::new(100, 100).decode(&mut &bytes[..]).unwrap());
        }
        records
    }

    fn question(id: u32, question: Option<Bytes>) -> Record {
        Record::Question { id, question }
    }

    #[tokio::test]
    async fn a_cancellation_needs_no_room_and_frees_the_place() {
        let (requests, outbox) = (Requests::new(), Outbox::new(1));
        let asked = requests.ask(&outbox, "one".into()).now_or_never();
        assert!(asked.is_none(), "the question is queued, and the queue is full");
        let expected = [question(1, Some("one".into())), Record::Cancel { id: 1 }];
        assert_eq!(queued(&outbox), expected);
        assert_eq!(requests.places.available_permits(), MAX_OPEN);
        let asked = requests.ask(&outbox, "two".into()).now_or_never();
        assert!(asked.is_none(), "the question waits for room");
        assert_eq!(queued(&outbox), [], "what the peer does not know is not cancelled");
    }

    #[tokio::test]
    async fn a_refusal_needs_no_room() {
        let (requests, outbox) = (Requests::new(), Outbox::new(1));
        let share = Arc::new(Share::unlimited());
        outbox.push(record::cancel(0)).await.unwrap();
        requests.on_record(&outbox, &share, question(1, None), 100).unwrap();
        let expected = Record::Refusal { id: 1, code: request_code::TOO_LARGE };
        assert_eq!(queued(&outbox), [Record::Cancel { id: 0 }, expected]);
    }

    #[tokio::test]
    async fn canceled_questions_count_while_the_application_has_them() {
        let (requests, outbox) = (Requests::new(), Outbox::new(1));
        let share = Arc::new(Share::unlimited());
        let ask = |id| {
            let question = question(id, Some("why?".into()));
            requests.on_record(&outbox, &share, question, 100).unwrap();
        };
        let mut accepted = Vec::new();
        for id in 0..MAX_OPEN as u32 {
            ask(id);
            accepted.push(requests.accept().now_or_never().unwrap());
            requests.on_record(&outbox, &share, Record::Cancel { id }, 100).unwrap();
        }
        ask(99);
        assert!(requests.accept().now_or_never().is_none());
        accepted.pop();
        assert_eq!(requests.accept().now_or_never().unwrap().id, 99);
    }

    #[tokio::test]
    async fn a_peer_that_reads_no_refusals_may_not_ask_further() {
        let (requests, outbox) = (Requests::new(), Outbox::new(1));
        let share = Arc::new(Share::unlimited());
        let mut asked = 0;
        let mut ask = |content: Option<Bytes>| {
            asked += 1;
            requests.on_record(&outbox, &share, question(asked, content), 100).map(|()| asked)
        };
        for _ in 0..MAX_OPEN {
            ask(None).unwrap();
        }
        // The peer may have read the first refusal already.
        let id = ask(Some("short".into())).unwrap();
        assert!(requests.finish(id));
        requests.refuse(&outbox, id, 7);
        ask(Some("too many".into())).unwrap_err();
        let Work::Frame(refusal) = outbox.work().await else { panic!("refusals are queued") };
        outbox.wrote_frame(&refusal);
        ask(Some("again".into())).unwrap();
    }
}
