//! `MemoryConnection`: messages over a virtual network.

use super::datagrams::LARGEST as LARGEST_DATAGRAM;
use super::pipe::frame;
use super::requests::Asked;
use super::wire::{Side, Wire};
use crate::Limits;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_kit::admission::Place;
use net_kit::coop;
use net_kit::facts::ConnectionFacts;
use net_kit::guard::OnDrop;
use net_kit::memory_budget::Unfinished;
use net_kit::progress::{Snapshot, Stuck, unless_stuck};
use net_kit::receipts::Control;
use net_kit::registry::{Entry, Handle, Member, Registry};
use net_kit::request_reader::RequestReader;
use net_kit::telemetry::Sample;
use net_traits::{
    CloseOutcome, CloseReason, DatagramError, DatagramStatistics, NetConnection, NetDatagrams,
    NetQuestion, NetRequests, RecvError, RequestError, SendAckedError, SendError, close_code,
    request_code,
};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A connection of [`MemoryTransport`](crate::memory::MemoryTransport).
#[derive(Clone)]
pub struct MemoryConnection {
    shared: Handle<Shared>,
}

/// One side's view of a connection.
pub(super) struct Shared {
    entry: Entry<Self>,
    seat: Seat,
    /// Code and reason of the local close, once it has begun.
    closing: Mutex<Option<CloseReason>>,
    /// The message that is being received.
    unfinished: Mutex<Unfinished>,
    /// `Some` for accepted connections, until the end is seen.
    place: Mutex<Option<Place>>,
}

/// The place of one side of a connection in the network.
pub(super) struct Seat {
    pub(super) wire: Arc<Wire>,
    pub(super) side: Side,
    pub(super) limits: Limits,
}

impl MemoryConnection {
    pub(super) fn new(
        registry: &Arc<Registry<Shared>>,
        seat: Seat,
        facts: ConnectionFacts,
        revocations: u64,
        place: Option<Place>,
    ) -> Self {
        let handshake = place.as_ref().map(Place::number);
        let closing = Mutex::default();
        let make = |entry: Entry<_>| Shared {
            unfinished: Mutex::new(Unfinished::new(entry.share())),
            entry,
            seat,
            closing,
            place: place.into(),
        };
        Self { shared: registry.register(facts, handshake, revocations, make) }
    }

    pub(super) fn from_shared(shared: Handle<Shared>) -> Self {
        Self { shared }
    }

    /// Sends raw bytes, for tests of peers that violate the protocol.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued all bytes or none.
    pub async fn send_raw(&self, bytes: Bytes) -> Result<(), SendError> {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.push(*side, bytes).await.map_err(SendError::Closed)
    }

    /// Ends the byte stream, possibly inside a message. Data sent later begins with a new message.
    pub fn end_raw(&self) {
        let Seat { wire, side, .. } = &self.shared.seat;
        wire.end(*side);
    }

    /// Begins a question with these bytes and does not finish it. Waits until the question is
    /// refused.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoAnswer`] with the code of the refusal, [`RequestError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future cancels the question.
    pub async fn begin_question_raw(&self, bytes: Bytes) -> Result<Infallible, RequestError> {
        let Seat { wire, side, limits } = &self.shared.seat;
        let asked = wire.ask(*side, (bytes, false), 0, limits.operation_timeout);
        match asked.await {
            Ok(_) => Err(RequestError::NoAnswer { code: request_code::NO_ANSWER }),
            Err(error) => Err(error),
        }
    }

    fn frame(&self, parts: &[Bytes]) -> Result<(usize, Bytes), SendError> {
        let Shared { seat, closing, .. } = &*self.shared;
        if let Some(reason) = closing.lock().clone() {
            // Another task may have closed first.
            let end = seat.wire.ended(seat.side).now_or_never();
            return Err(SendError::Closed(end.unwrap_or(reason)));
        }
        let (size, limit) = (parts.iter().map(Bytes::len).sum(), seat.limits.max_message_size);
        let frame = frame(parts).filter(|_| size <= limit);
        Ok((size, frame.ok_or(SendError::TooLarge { size, limit })?))
    }
}

impl Shared {
    /// Waits until the connection has ended. The network has no callbacks, so the first call that
    /// sees the end reports it to the telemetry.
    async fn ended(&self) -> CloseReason {
        let Shared { entry, seat, place, .. } = self;
        let reason = seat.wire.ended(seat.side).await;
        entry.telemetry().closed(&reason);
        entry.undelivered(seat.wire.undelivered(seat.side));
        drop(place.lock().take());
        reason
    }

    /// Waits for `operation` as long as the peer makes progress.
    async fn unless_stuck<T>(
        &self,
        operation: impl Future<Output = Result<T, CloseReason>>,
    ) -> Result<T, SendError> {
        let Seat { wire, side, limits } = &self.seat;
        let snapshot = || Snapshot { done: wire.progress(*side), is_moving: wire.is_moving(*side) };
        match unless_stuck(limits.timeouts(), snapshot, operation).await {
            Ok(result) => result.map_err(SendError::Closed),
            Err(Stuck(after)) => Err(SendError::TimedOut { after }),
        }
    }
}

impl Member for Shared {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn has_ended(&self) -> bool {
        self.seat.wire.ended(self.seat.side).now_or_never().is_some()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.seat.wire.close(self.seat.side, code, reason);
        let _reported = self.ended().now_or_never();
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        let Seat { wire, side, .. } = &self.seat;
        if let Some(reason) = wire.ended(*side).now_or_never() {
            coop::spend().await;
            return CloseOutcome::AlreadyClosed(reason);
        }
        let is_first = {
            let mut closing = self.closing.lock();
            let is_first = closing.is_none();
            closing.get_or_insert_with(|| CloseReason::Local { code, reason: reason.to_owned() });
            is_first
        };
        if !is_first {
            return CloseOutcome::AlreadyClosed(self.ended().await);
        }
        self.entry.telemetry().closing(code, reason);
        let (messages, bytes) = {
            let _close = OnDrop(|| wire.close(*side, code, reason)); // also if this future is dropped
            let _ = self.unless_stuck(wire.delivered(*side)).await; // do not wait for a stuck peer
            wire.undelivered(*side)
        };
        self.ended().await;
        CloseOutcome::from_unconfirmed(messages, bytes, CloseOutcome::Delivered)
    }

    async fn sample(&self) -> Option<Sample> {
        let (_, queued) = self.seat.wire.undelivered(self.seat.side);
        Some(Sample { queued, ..Sample::default() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(reason) = self.seat.wire.ended(self.seat.side).now_or_never() {
            self.entry.telemetry().closed(&reason);
            self.entry.undelivered(self.seat.wire.undelivered(self.seat.side));
        }
    }
}

#[async_trait]
impl NetConnection for MemoryConnection {
    net_kit::facts_getters!(shared.entry.facts());

    fn is_trusted(&self) -> bool {
        self.shared.entry.is_trusted()
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        coop::spend().await;
        let (size, frame) = self.frame(parts)?;
        let Seat { wire, side, .. } = &self.shared.seat;
        self.shared.unless_stuck(wire.push(*side, frame)).await?;
        self.shared.entry.sent(size);
        Ok(())
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let (size, frame) = self.frame(&[message])?;
        let Seat { wire, side, .. } = &self.shared.seat;
        if !wire.try_push(*side, &frame).map_err(SendError::Closed)? {
            return Err(SendError::WouldBlock);
        }
        self.shared.entry.sent(size);
        Ok(())
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        coop::spend().await;
        let Seat { wire, side, .. } = &self.shared.seat;
        let (size, frame) = self.frame(&[message]).map_err(SendAckedError::NotSent)?;
        let mut arriving = pin!(wire.receive_receipts(*side));
        let mut expected = tokio::select! {
            biased;
            expected = wire.receipts(*side).expect() => expected,
            reason = &mut arriving => {
                return Err(SendAckedError::NotSent(SendError::Closed(reason)));
            }
        };
        let marked = [&Control::Mark(expected.number()).encode()[..], &frame].concat();
        let pushed = self.shared.unless_stuck(wire.push(*side, marked.into())).await;
        pushed.map_err(SendAckedError::NotSent)?;
        expected.queued();
        self.shared.entry.sent(size);
        tokio::select! {
            biased;
            receipt = expected.receipt() => return receipt,
            _ = arriving => {}
        }
        // The receipt may have arrived at the same time.
        match expected.receipt().now_or_never() {
            Some(receipt) => receipt,
            None => Err(SendAckedError::Unknown(SendError::Closed(self.shared.ended().await))),
        }
    }

    async fn flush(&self) -> Result<(), SendError> {
        coop::spend().await;
        let Seat { wire, side, .. } = &self.shared.seat;
        self.shared.unless_stuck(wire.delivered(*side)).await
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        coop::spend().await;
        let Seat { wire, side, .. } = &self.shared.seat;
        let (received, mark) = wire.take(*side, &self.shared.unfinished).await;
        if let Err(RecvError::Closed(_)) = received {
            self.shared.ended().await;
        }
        let is_message = received.is_ok();
        let received = self.shared.entry.hand_out(received);
        if let Some(number) = mark.filter(|_| received.is_ok() == is_message) {
            wire.send_receipt(*side, number, is_message);
        }
        received
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        Member::close(&*self.shared, code, reason).await
    }

    fn abort(&self, code: u64, reason: &str) {
        Member::abort(&*self.shared, code, reason);
    }

    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        Ok(self)
    }

    async fn watch_close(&self) -> CloseReason {
        coop::spend().await;
        self.shared.ended().await
    }
}

#[async_trait]
impl NetDatagrams for MemoryConnection {
    fn max_datagram_size(&self) -> Option<usize> {
        Some(LARGEST_DATAGRAM)
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        let (size, limit) = (datagram.len(), LARGEST_DATAGRAM);
        if size > limit {
            return Err(DatagramError::TooLarge { size, limit });
        }
        let seat = &self.shared.seat;
        seat.wire.send_datagram(seat.side, datagram).map_err(DatagramError::Closed)
    }

    async fn recv_datagram(&self) -> Result<Bytes, DatagramError> {
        coop::spend().await;
        let seat = &self.shared.seat;
        let received = seat.wire.recv_datagram(seat.side).await;
        self.shared.entry.hand_out_datagram(received.map_err(DatagramError::Closed))
    }

    fn datagram_statistics(&self) -> DatagramStatistics {
        let seat = &self.shared.seat;
        seat.wire.datagram_statistics(seat.side)
    }
}

#[async_trait]
impl NetRequests for MemoryConnection {
    type Question = MemoryQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let Seat { wire, side, limits } = &self.shared.seat;
        let (size, limit) = (question.len(), limits.max_request_size);
        let refused = match self.shared.closing.lock().clone() {
            _ if size > limit => Some(RequestError::TooLarge { size, limit }),
            closing => closing.map(RequestError::Closed),
        };
        if let Some(refused) = refused {
            coop::spend().await; // not before, as questions that are asked at once are sent in order
            return Err(refused);
        }
        let answer = wire.ask(*side, (question, true), limit, deadline).await;
        if answer.is_err() {
            coop::spend().await; // it may have been ready
        }
        self.shared.entry.hand_out_request(answer)
    }

    async fn accept_request(&self) -> Result<MemoryQuestion, RequestError> {
        coop::spend().await;
        let Seat { wire, side, limits } = &self.shared.seat;
        let asked = wire.asked(*side).await?;
        let question = MemoryQuestion::new(asked, limits.max_request_size, self.clone());
        self.shared.entry.hand_out_request(Ok(question))
    }
}

/// A question of the peer over a [`MemoryConnection`].
pub struct MemoryQuestion {
    asked: Asked,
    limit: usize,
    connection: MemoryConnection,
}

impl MemoryQuestion {
    pub(super) fn new(asked: Asked, limit: usize, connection: MemoryConnection) -> Self {
        Self { asked, limit, connection }
    }
}

#[async_trait]
impl NetQuestion for MemoryQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        if let Some(reason) = self.connection.shared.ended().now_or_never() {
            return Err(RequestError::Closed(reason));
        }
        if self.asked.answer.is_closed() {
            return Err(RequestError::Canceled);
        }
        let (size, limit) = (self.asked.question.len(), self.limit);
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        if !self.asked.is_whole {
            let mut reader = RequestReader::new(self.connection.shared.entry.share(), limit);
            reader.push(&self.asked.question)?;
            let late = reader.wait(pending::<Infallible>()).await;
            let (answered, _) = oneshot::channel();
            let answer = std::mem::replace(&mut self.asked.answer, answered);
            let _ = answer.send(Err(request_code::TOO_SLOW)); // the peer may have cancelled
            match late? {}
        }
        self.connection.shared.entry.hand_out_request(Ok(self.asked.question.clone()))
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        let (size, limit) = (answer.len(), self.limit);
        if size > limit {
            let _ = self.asked.answer.send(Err(request_code::TOO_LARGE)); // the peer may have cancelled
            return Err(RequestError::TooLarge { size, limit });
        }
        if let Some(reason) = self.connection.shared.ended().now_or_never() {
            return Err(RequestError::Closed(reason));
        }
        self.asked.answer.send(Ok(answer)).map_err(|_| RequestError::Canceled)
    }

    fn refuse(self, code: u64) {
        let _ = self.asked.answer.send(Err(code.min(close_code::MAX))); // the peer may have cancelled
    }

    async fn canceled(&self) {
        let mut asker = self.asked.asker.clone();
        while asker.changed().await.is_ok() {}
    }
}

impl fmt::Debug for MemoryQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQuestion")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.entry.facts().debug("MemoryConnection", f)
    }
}
