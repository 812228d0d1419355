//! `Connection`: messages over one connection of a backend.

use super::{Backend, Secured, Session, Urgent};
use crate::admission::Place;
use crate::coop;
use crate::datagram::Counters;
use crate::frame;
use crate::guard::OnDrop;
use crate::handshake::Handshake;
use crate::inbox::Inbox;
use crate::loss_reports::LossCursor;
use crate::outbox::Outbox;
use crate::receipts::Control;
use crate::registry::{Entry, Handle, Lingering, Member, Registry};
use crate::telemetry::Sample;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, join, select, try_join_all};
use net_traits::address::canonical;
use net_traits::{
    CloseOutcome, CloseReason, DatagramError, MessageStatistics, NetConnection, NetDatagrams,
    RecvError, SendAckedError, SendError,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;

/// How many messages [`send_many`](NetConnection::send_many) queues for one unit of the task's
/// cooperative budget, and under one lock.
const AT_ONCE: usize = 64;

/// A connection of a [`Transport`](super::Transport).
pub struct Connection<B: Backend> {
    pub(super) shared: Handle<Shared<B>>,
    losses: LossCursor,
}

/// What the handles of a connection share.
pub(crate) struct Shared<B: Backend> {
    pub(super) session: Arc<Session<B>>,
    pub(super) entry: Entry<Self>,
    pub(super) datagrams: Counters,
    /// Passes the last handle's [`Lingering`] to the task of the connection.
    release: Mutex<Option<oneshot::Sender<Lingering<Self>>>>,
}

impl<B: Backend> Connection<B> {
    /// Registers a connection after its handshake and starts its task. `place` is that of an
    /// accepted connection.
    pub(super) fn start(
        Secured { native, io, facts }: Secured<B>,
        handshake: Handshake,
        config: &Arc<B::Config>,
        registry: &Arc<Registry<Shared<B>>>,
        revocations: u64,
        place: Option<Place>,
    ) -> Self {
        let number = place.as_ref().map(Place::number);
        let (release, released) = oneshot::channel();
        let has_receipts = facts.has_receipts();
        let shared = registry.register(facts, number, revocations, |entry: Entry<_>| Shared {
            session: Session::new(config, native, entry.share(), has_receipts),
            entry,
            datagrams: Counters::default(),
            release: Mutex::new(Some(release)),
        });
        let telemetry = shared.entry.telemetry().clone();
        let session = shared.session.clone();
        let driven = B::drive(session.clone(), io, handshake);
        let (of_task, weak) = (session.clone(), Arc::downgrade(Handle::member(&shared)));
        let abandon = OnDrop(move || {
            let was_open = of_task.abandon();
            if let Some(shared) = weak.upgrade() {
                let lost = if was_open { of_task.unconfirmed() } else { of_task.lost() };
                shared.entry.undelivered(lost);
            }
        });
        tokio::spawn(async move {
            let _abandon = abandon; // also runs if the runtime is shut down, or was before
            // If the runtime is shut down, the end is reported here.
            let _abandoned = OnDrop(|| telemetry.abandoned());
            let ended = async {
                telemetry.closed(&session.ended().await);
                B::ended(&session).await;
                drop(place);
            };
            let lingering = async {
                if let Ok(lingering) = released.await {
                    lingering.run(session.options().linger).await;
                }
            };
            run_beside(driven, join(ended, lingering)).await;
        });
        Self::new(shared)
    }

    pub(super) fn new(shared: Handle<Shared<B>>) -> Self {
        let losses = shared.session.loss_reports().cursor();
        Self { shared, losses }
    }

    pub(super) fn session(&self) -> &Session<B> {
        &self.shared.session
    }

    /// Returns how many messages were queued and delivered.
    pub fn message_statistics(&self) -> MessageStatistics {
        self.shared.entry.message_statistics()
    }

    /// Returns the span of the connection's events, to instrument tasks that serve the connection.
    pub fn span(&self) -> &tracing::Span {
        self.shared.entry.span()
    }

    async fn queue(&self, parts: &[Bytes], lane: &Outbox) -> Result<(), SendError> {
        coop::spend().await;
        let (size, pieces) = self.pieces(parts)?;
        self.queue_pieces(size, pieces, lane).await
    }

    async fn queue_pieces(
        &self,
        size: usize,
        mut pieces: Vec<Bytes>,
        lane: &Outbox,
    ) -> Result<(), SendError> {
        match lane.try_push(&mut pieces) {
            Err(SendError::WouldBlock) => {
                self.session().unless_stuck([lane].into_iter(), lane.push(pieces)).await??;
            }
            result => result?,
        }
        self.shared.entry.sent(size);
        Ok(())
    }

    /// Queues messages from the front of `messages` while there is room, at most [`AT_ONCE`], up to one
    /// over the limit. Returns how many.
    fn try_queue_many(
        &self,
        messages: &mut VecDeque<Bytes>,
        lane: &Outbox,
    ) -> Result<usize, SendError> {
        let (mut rest, mut bytes) = (AT_ONCE, 0);
        let pushed = lane.try_push_many(|| {
            rest = usize::checked_sub(rest, 1)?;
            let (size, pieces) = self.pieces(std::slice::from_ref(messages.front()?)).ok()?;
            messages.pop_front();
            bytes += size;
            Some(pieces)
        })?;
        self.shared.entry.sent_many(pushed, bytes);
        Ok(pushed)
    }

    /// Sends the receipts for messages that were received.
    fn received<T>(&self, received: Result<T, RecvError>) -> Result<T, RecvError> {
        if received.is_ok() {
            self.session().send_due_receipts();
        }
        received
    }

    /// Returns the size of a message and the pieces to be written.
    fn pieces(&self, parts: &[Bytes]) -> Result<(usize, Vec<Bytes>), SendError> {
        let size = parts.iter().map(Bytes::len).sum();
        let limit = self.session().options().max_message_size;
        let pieces = frame::encode(parts).filter(|_| size <= limit);
        Ok((size, pieces.ok_or(SendError::TooLarge { size, limit })?))
    }
}

impl<B: Urgent> Connection<B> {
    /// Sends one message ahead of all queued messages and of the message in progress.
    ///
    /// Urgent messages use their own stream with a higher priority, and arrive in the order in
    /// which they were queued. A peer with a full receive queue receives neither urgent nor other
    /// messages. Otherwise see [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or none of it.
    pub async fn send_urgent(&self, message: Bytes) -> Result<(), SendError> {
        self.queue(&[message], self.session().urgent()).await
    }
}

impl<B: Backend> Member for Shared<B> {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn has_ended(&self) -> bool {
        self.session.has_ended()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.session.abort(code, reason);
    }

    fn unread(&self) -> Option<usize> {
        B::unread(&self.session)
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        let session = &*self.session;
        if !session.close(code, reason) {
            coop::spend().await;
            return CloseOutcome::AlreadyClosed(session.ended().await);
        }
        self.entry.telemetry().closing(code, reason);
        {
            let _close = OnDrop(|| session.abort(code, reason)); // also if this future is dropped
            // If the peer takes no data for too long, close without waiting further.
            let _ = session.unless_stuck(session.all_lanes(), session.ended()).await;
        }
        session.ended().await;
        let (messages, bytes) = session.unconfirmed();
        self.entry.undelivered((messages, bytes));
        CloseOutcome::from_unconfirmed(messages, bytes, B::CONFIRMED)
    }

    fn linger(&self, lingering: Lingering<Self>) {
        self.session.clear(); // nothing can receive it any more
        let task = self.release.lock().take();
        let _ = task.map(|task| task.send(lingering)); // the task may have ended with its runtime
    }

    fn unconfirmed(&self) -> (u64, u64) {
        self.session.unconfirmed()
    }

    fn lost(&self) -> (u64, u64) {
        self.session.lost()
    }

    fn discard(&self) {
        self.session.clear();
    }

    async fn sample(&self) -> Option<Sample> {
        let queued = self.session.all_lanes().map(|lane| lane.queued() as u64).sum();
        Some(Sample { queued, ..B::path(self.session.native()) })
    }
}

#[async_trait]
impl<B: Backend> NetConnection for Connection<B> {
    crate::facts_getters!(except addresses shared.entry.facts());

    fn is_trusted(&self) -> bool {
        self.shared.entry.is_trusted()
    }

    fn local_addr(&self) -> SocketAddr {
        self.shared.entry.facts().local_addr()
    }

    fn remote_addr(&self) -> SocketAddr {
        let now = B::remote_addr(self.session().native()).map(canonical);
        now.unwrap_or_else(|| self.shared.entry.facts().remote_addr())
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.send_parts(&[message]).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        self.queue(parts, self.session().lane()).await
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let (size, mut pieces) = self.pieces(&[message])?;
        self.session().lane().try_push(&mut pieces)?;
        self.shared.entry.sent(size);
        Ok(())
    }

    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        while !messages.is_empty() {
            coop::spend().await;
            let lane = self.session().lane();
            match self.try_queue_many(messages, lane) {
                Ok(pushed) if pushed > 0 => {}
                Ok(_) | Err(SendError::WouldBlock) => {
                    // The queue is full, or the first message is too large.
                    let first = messages.front().map(std::slice::from_ref).unwrap_or_default();
                    let (size, pieces) = self.pieces(first)?;
                    self.queue_pieces(size, pieces, lane).await?;
                    messages.pop_front();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        coop::spend().await;
        let session = self.session();
        let receipts = session.receipts().ok_or(SendAckedError::Unsupported)?;
        let (size, mut pieces) = self.pieces(&[message]).map_err(SendAckedError::NotSent)?;
        let mut ended = pin!(session.ended());
        let mut expected = match select(pin!(receipts.expect()), ended.as_mut()).await {
            Either::Left((expected, _)) => expected,
            Either::Right((reason, _)) => {
                return Err(SendAckedError::NotSent(SendError::Closed(reason)));
            }
        };
        pieces.insert(0, Control::Mark(expected.number()).encode().into());
        let lane = session.lane();
        expected.set_stream(lane.number());
        let queued = self.queue_pieces(size, pieces, lane).await;
        queued.map_err(SendAckedError::NotSent)?;
        expected.queued();
        match select(pin!(expected.receipt()), pin!(session.read_out())).await {
            Either::Left((receipt, _)) => receipt,
            Either::Right((reason, _)) => Err(SendAckedError::Unknown(SendError::Closed(reason))),
        }
    }

    async fn flush(&self) -> Result<(), SendError> {
        coop::spend().await;
        let (session, before) = (self.session(), self.losses.position());
        let flushed = try_join_all(session.all_lanes().map(Outbox::flushed));
        session.unless_stuck(session.all_lanes(), flushed).await??;
        session.loss_reports().check(&self.losses, before)
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        coop::spend().await;
        let received = self.session().recv(Inbox::pop).await;
        self.received(self.shared.entry.hand_out(received))
    }

    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError> {
        if limit == 0 {
            return Ok(0);
        }
        coop::spend().await;
        let received = self.session().recv(|inbox| inbox.pop_many(messages, limit)).await;
        self.received(self.shared.entry.hand_out_many(received, messages))
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        Member::close(&*self.shared, code, reason).await
    }

    fn abort(&self, code: u64, reason: &str) {
        self.session().abort(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        coop::spend().await;
        self.session().ended().await
    }

    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        if B::datagram_queue(self.session().config()) > 0 {
            Ok(self)
        } else {
            Err(DatagramError::Unsupported)
        }
    }
}

/// Runs the task of a connection to its end, and `others` beside it. What `others` waits for may have happened in
/// the last step of the task, so they are polled once more, even if that step has used up the cooperative budget.
async fn run_beside(driven: impl Future<Output = ()>, others: impl Future) {
    let (mut driven, mut others) = (pin!(driven), pin!(others));
    match select(driven.as_mut(), others.as_mut()).await {
        Either::Left(((), _)) => drop(unconstrained(others).now_or_never()),
        Either::Right((_, _)) => driven.await,
    }
}

impl<B: Backend> Clone for Connection<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), losses: self.losses.clone() }
    }
}

impl<B: Backend> fmt::Debug for Connection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.entry.facts().debug("Connection", f)
    }
}

#[cfg(test)]
mod tests {
    use super::run_beside;
    use std::cell::Cell;
    use tokio::sync::watch;
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    #[tokio::test]
    async fn an_end_is_seen_although_the_budget_is_used_up() {
        let (end, mut ended) = watch::channel(false);
        let driven = async {
            end.send_replace(true);
            while has_budget_remaining() {
                consume_budget().await;
            }
        };
        let is_reported = Cell::new(false);
        let report = async {
            ended.wait_for(|ended| *ended).await.unwrap();
            is_reported.set(true);
        };
        run_beside(driven, report).await;
        assert!(is_reported.get());
    }
}
