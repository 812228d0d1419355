//! `Session`: the state that the handles of a connection share with its task.
//!
//! Handles queue messages in the lanes, which the task writes. The task fills the inbox, from which
//! the handles receive. A dropped `send` has queued the whole message or nothing, and a dropped
//! `recv` has taken nothing.
//!
//! ```text
//!         close (handles)              the lanes are written, or no progress
//! open ───────────────▶ closing ─────────────────────────────────────────────▶ ended
//!   ├──── fail (nothing can be written; data may still arrive) ──── end ────────▲
//!   └──── abort, or the end that the task observes ─────────────────────────────┘
//! ```

use super::{Backend, Questions};
use crate::coop;
use crate::datagram::Queue;
use crate::frame::FrameDecoder;
use crate::inbox::Inbox;
use crate::loss_reports::LossReports;
use crate::memory_budget::{Share, Unfinished};
use crate::options::{CommonOptions, TransportOptions};
use crate::outbox::{self, Frame, Outbox};
use crate::progress::{Snapshot, Stuck, unless_stuck};
use crate::receipts::{Control, Receipts};
use crate::request_reader::RequestReader;
use net_traits::{Cause, CloseReason, RecvError, SendError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long the inbox of a connection that cannot send any more may stay full.
const FULL_INBOX_TIMEOUT: Duration = Duration::from_secs(1);

/// How many messages are decoded for one unit of the task's cooperative budget.
const ENTRIES_PER_OPERATION: u32 = 16;

/// The state that the handles of a connection share with its task.
pub struct Session<B: Backend> {
    config: Arc<B::Config>,
    options: CommonOptions,
    native: B::Native,
    inbox: Inbox,
    datagrams: Queue,
    questions: Questions<B::Question>,
    /// Of equal priority; at least one.
    lanes: Vec<Outbox>,
    urgent: Option<Outbox>,
    receipt_lane: Option<Outbox>,
    /// `None` if the peer's version has no receipts.
    receipts: Option<Receipts>,
    loss_reports: LossReports,
    /// Wakes the task: the inbox may have room.
    taken: Notify,
    /// The reason why nothing can be sent any more.
    failed: OnceLock<CloseReason>,
    end: watch::Sender<Option<CloseReason>>,
    /// Everything that arrived before the end is in the inbox.
    is_drained: AtomicBool,
}

impl<B: Backend> Session<B> {
    pub(super) fn new(
        config: &Arc<B::Config>,
        native: B::Native,
        share: &Arc<Share>,
        has_receipts: bool,
    ) -> Arc<Self> {
        let (options, lanes) = (config.common(), B::lanes(config));
        let mut numbers = 0_u16..;
        let mut lane = || match numbers.next().filter(|_| has_receipts) {
            Some(number) => Outbox::with_probes(options.send_queue, number),
            None => Outbox::new(options.send_queue),
        };
        // In the order of `all_lanes`, in which confirmations find them.
        let of_messages = std::iter::repeat_with(&mut lane).take(lanes.ordinary.max(1)).collect();
        let urgent = lanes.has_urgent.then(&mut lane);
        Arc::new(Self {
            config: config.clone(),
            native,
            inbox: Inbox::charged(options.receive_queue, share.clone()),
            datagrams: Queue::new(B::datagram_queue(config), share),
            questions: Questions::new(),
            lanes: of_messages,
            urgent,
            receipt_lane: (has_receipts && lanes.has_receipts).then(lane),
            receipts: has_receipts.then(Receipts::default),
            loss_reports: LossReports::default(),
            options,
            taken: Notify::new(),
            failed: OnceLock::new(),
            end: watch::Sender::default(),
            is_drained: AtomicBool::new(false),
        })
    }

    /// Returns the configuration of the transport.
    pub fn config(&self) -> &B::Config {
        &self.config
    }

    /// Returns the options that all transports have.
    pub fn options(&self) -> &CommonOptions {
        &self.options
    }

    /// Returns the state of the backend.
    pub fn native(&self) -> &B::Native {
        &self.native
    }

    /// Returns the received messages.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Returns the received datagrams.
    pub fn datagrams(&self) -> &Queue {
        &self.datagrams
    }

    /// Returns the questions of the peer that were not accepted.
    pub fn questions(&self) -> &Questions<B::Question> {
        &self.questions
    }

    /// Returns the lanes of equal priority.
    pub fn lanes(&self) -> &[Outbox] {
        &self.lanes
    }

    /// Returns the lane for urgent messages, or the first lane if there is none.
    pub fn urgent(&self) -> &Outbox {
        self.urgent.as_ref().unwrap_or(&self.lanes[0])
    }

    /// Returns all lanes with messages.
    pub fn all_lanes(&self) -> impl Iterator<Item = &Outbox> {
        self.lanes.iter().chain(&self.urgent)
    }

    /// Returns everything that the task has to write: each lane, and whether it has a higher
    /// priority.
    pub fn outboxes(&self) -> impl Iterator<Item = (&Outbox, bool)> {
        let first = self.receipt_lane.iter().chain(&self.urgent).map(|lane| (lane, true));
        self.lanes.iter().map(|lane| (lane, false)).chain(first)
    }

    /// Returns the marked messages, unless the peer's version has no receipts.
    pub fn receipts(&self) -> Option<&Receipts> {
        self.receipts.as_ref()
    }

    /// Queues a receipt for a message with a mark.
    pub fn send_receipt(&self, number: u32, is_taken: bool) {
        let lane = self.receipt_lane();
        self.receipts.iter().for_each(|receipts| receipts.send(lane, number, is_taken));
    }

    /// Handles a control record of the peer that is not a mark, after the messages before it. Returns
    /// false if the negotiated version does not have such records.
    pub fn on_control(&self, record: Control) -> bool {
        let Some(receipts) = &self.receipts else { return false };
        match record {
            Control::Mark(_) => {}
            Control::Receipt { number, is_taken } => receipts.on_receipt(number, is_taken),
            // Messages before the probe may have been discarded.
            Control::Probe(_) if self.inbox.is_discarding() => {}
            Control::Probe(number) => self.receipt_lane().push_confirmation(number),
            Control::Confirmation(number) => {
                let lane = self.all_lanes().nth(outbox::lane_of(number));
                lane.into_iter().for_each(|lane| lane.confirmed(number));
            }
        }
        true
    }

    fn receipt_lane(&self) -> &Outbox {
        self.receipt_lane.as_ref().unwrap_or(&self.lanes[0])
    }

    /// Returns the lane with the shortest queue, for the next message.
    pub(super) fn lane(&self) -> &Outbox {
        match &*self.lanes {
            [only] => only,
            lanes => lanes.iter().min_by_key(|lane| lane.queued()).unwrap_or(&lanes[0]),
        }
    }

    /// Waits for `operation`, which waits for `lanes`, as long as the peer takes data.
    ///
    /// # Errors
    ///
    /// [`Stuck`]; `operation` is dropped.
    ///
    /// # Cancel safety
    ///
    /// That of `operation`.
    pub async fn unless_stuck<'a, T>(
        &'a self,
        lanes: impl Iterator<Item = &'a Outbox>,
        operation: impl Future<Output = T>,
    ) -> Result<T, Stuck> {
        let lanes: Vec<_> = lanes.collect();
        let mut before = B::progress(&self.native);
        let progress = move || {
            let mut snapshot = Snapshot::default();
            for of_lane in lanes.iter().map(|lane| lane.snapshot()) {
                snapshot.done += of_lane.done;
                snapshot.is_moving |= of_lane.is_moving;
            }
            // That a lane waits for its confirmation says nothing about one that cannot be written.
            snapshot.is_moving &= lanes.iter().all(|lane| lane.is_written());
            let now = B::progress(&self.native);
            snapshot.is_moving |= std::mem::replace(&mut before, now) != now;
            snapshot
        };
        unless_stuck(self.options.timeouts(), progress, operation).await
    }

    /// Creates the decoder of a stream that the peer opened.
    pub fn decoder(&self) -> FrameDecoder {
        FrameDecoder::with_receipts(self.options.max_message_size, self.receipts.is_some())
    }

    /// Waits until a stream may be read: until the inbox has [room](Self::room), or not at all if
    /// the stream has carried receipts only.
    ///
    /// # Errors
    ///
    /// See [`room`](Self::room).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn room_for(&self, decoder: &FrameDecoder) -> Result<(), CloseReason> {
        match decoder.is_of_receipts() {
            true => Ok(()),
            false => self.room().await,
        }
    }

    /// Waits until the inbox has room. There is always room once it drops what exceeds its limit.
    ///
    /// # Errors
    ///
    /// The reason given to [`fail`](Self::fail), if the application then receives nothing for 1 s.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn room(&self) -> Result<(), CloseReason> {
        loop {
            let taken = self.taken.notified();
            if self.inbox.room() > 0 {
                return Ok(());
            }
            match self.failed.get() {
                None => taken.await,
                Some(reason) => {
                    timeout(FULL_INBOX_TIMEOUT, taken).await.map_err(|_| reason.clone())?
                }
            }
        }
    }

    /// Decodes the data of a stream into the inbox, waiting for [room](Self::room) and for the
    /// connection's share of memory. Returns false if the stream cannot be decoded any more; the
    /// error is in the inbox.
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses the rest of the data.
    pub async fn receive(
        &self,
        decoder: &mut FrameDecoder,
        unfinished: &mut Unfinished,
        mut data: &[u8],
    ) -> bool {
        coop::spend_for(data.len()).await;
        let mut steps = 1;
        loop {
            if steps % ENTRIES_PER_OPERATION == 0 {
                coop::spend().await;
            }
            steps += 1;
            match decoder.control(&mut data) {
                Ok(None) => {}
                Ok(Some(record)) => {
                    self.on_control(record);
                    continue;
                }
                Err(error) => {
                    self.inbox.push_one(Err(error));
                    return false;
                }
            }
            if data.is_empty() {
                return true;
            }
            let Ok(()) = self.room().await else { return false };
            let allowance = self.allowance(unfinished).await;
            let (mut part, rest) = data.split_at(allowance.min(data.len()));
            let decoded = decoder.decode(&mut part).transpose();
            let (arrived, buffer) = decoder.unfinished();
            unfinished.set(arrived, buffer);
            data = &data[data.len() - rest.len() - part.len()..];
            let Some(entry) = decoded else {
                if data.is_empty() {
                    return true;
                }
                continue;
            };
            let is_broken = entry.is_err();
            match decoder.take_mark().filter(|_| !is_broken) {
                Some(number) => self.inbox.push_marked(entry, number),
                None => self.inbox.push_one(entry),
            }
            if is_broken {
                return false;
            }
        }
    }

    /// Creates the memory charge of a stream that the peer opened.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished::new(self.inbox.share())
    }

    /// Creates the reader of a question or an answer of the peer.
    pub fn request_reader(&self) -> RequestReader {
        RequestReader::new(self.inbox.share(), self.options.max_request_size)
    }

    /// Waits until a stream may accept data, and returns how many bytes.
    async fn allowance(&self, unfinished: &Unfinished) -> usize {
        loop {
            let taken = self.taken.notified();
            match unfinished.allowance() {
                0 => taken.await,
                allowance => return allowance,
            }
        }
    }

    /// Waits for what `pop` takes from the inbox.
    pub(super) async fn recv<T>(
        &self,
        pop: impl FnMut(&Inbox) -> Option<(Result<T, RecvError>, bool)>,
    ) -> Result<T, RecvError> {
        let is_drained = || self.is_drained.load(Ordering::Acquire);
        let end = || is_drained().then(|| self.end.borrow().clone()).flatten();
        let (received, resume) = self.inbox.recv_with(end, pop).await;
        if resume || self.failed.get().is_some() {
            self.taken.notify_waiters();
        }
        received
    }

    /// Waits until the connection has ended and what arrived before was read, and returns the reason. Messages
    /// are not read while the inbox is full, for which it waits 1 s.
    pub(super) async fn read_out(&self) -> CloseReason {
        let reason = self.ended().await;
        let drained = async {
            loop {
                let taken = self.taken.notified();
                if self.is_drained.load(Ordering::Acquire) {
                    return;
                }
                taken.await;
            }
        };
        let _is_full = timeout(FULL_INBOX_TIMEOUT, drained).await;
        reason
    }

    /// Queues the receipts for messages that `recv` has returned.
    pub(super) fn send_due_receipts(&self) {
        for number in self.inbox.take_due() {
            self.send_receipt(number, true);
        }
    }

    /// Stops queueing; the task closes after the queued messages. Returns false if the connection
    /// is closing or has ended.
    pub(super) fn close(&self, code: u64, reason: &str) -> bool {
        let closed = self.outboxes().filter(|(lane, _)| lane.close(code, reason)).count();
        if closed > 0 {
            self.drop_excess();
        }
        closed > 0
    }

    /// Drops the queued messages and closes the connection, unless it is closed.
    pub fn abort(&self, code: u64, reason: &str) {
        self.drop_excess();
        B::abort(self, code, reason);
    }

    /// Keeps a full inbox from delaying a close, unless the peer's confirmations have a stream of their own. What
    /// has no room is then dropped and not confirmed. Otherwise it may have been acknowledged already, and waits
    /// for the application.
    fn drop_excess(&self) {
        if !B::lanes(&self.config).has_receipts {
            self.inbox.drop_excess();
            self.taken.notify_waiters();
        }
    }

    /// Drops the received messages that were not taken, and those that arrive from now on.
    pub(super) fn clear(&self) {
        self.inbox.clear();
        self.datagrams.clear();
        self.taken.notify_waiters();
    }

    /// Stops queueing. `code` and `reason` replace those of a close in progress. For
    /// [`Backend::abort`]; [`end`](Self::end) comes next.
    pub fn abort_lanes(&self, code: u64, reason: &str) {
        self.outboxes().for_each(|(lane, _)| lane.abort(code, reason));
    }

    /// Records that the peer stopped the stream of a lane with `code`. The messages that were
    /// written to it and not confirmed are lost, and so is the `begun` one.
    pub fn stopped(&self, lane: &Outbox, begun: Option<&Frame>, code: u64) {
        let stopped = SendError::Stopped { code };
        self.receipts.iter().for_each(|receipts| receipts.lost(lane.number(), &stopped));
        lane.report(begun, stopped, || self.loss_reports.record(code));
    }

    pub(super) fn loss_reports(&self) -> &LossReports {
        &self.loss_reports
    }

    /// Records that nothing can be sent any more, while data may still be received.
    pub fn fail(&self, reason: CloseReason) {
        let reason = self.failed.get_or_init(|| reason);
        self.outboxes().for_each(|(lane, _)| lane.fail(reason.clone()));
        self.taken.notify_waiters();
    }

    /// Ends the connection, unless it has ended. A local close takes precedence as the reason.
    /// Received messages remain until [`drained`](Self::drained) is called.
    pub fn end(&self, reason: CloseReason) {
        let reasons = self.outboxes().map(|(lane, _)| lane.end(reason.clone()));
        let reason = reasons.last().unwrap_or(reason);
        self.inbox.share().lift_limits();
        self.taken.notify_waiters();
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(reason);
            is_first
        });
    }

    /// Ends a connection whose task was dropped. Returns false if it had ended before.
    pub(super) fn abandon(&self) -> bool {
        let had_ended = self.has_ended();
        let what = "the runtime that drove the connection has ended, or its task panicked";
        self.end(CloseReason::Transport(Cause::new(what)));
        self.drained();
        !had_ended
    }

    /// Records that everything that arrived is in the inbox: `recv` then returns the end after it.
    pub fn drained(&self) {
        self.is_drained.store(true, Ordering::Release);
        self.taken.notify_waiters();
        self.inbox.wake_all();
    }

    /// Returns how many messages the peer has not confirmed, at most, and their bytes.
    pub(super) fn unconfirmed(&self) -> (u64, u64) {
        self.sum(Outbox::unconfirmed)
    }

    /// Returns how many messages are lost with the connection, which has ended, and their bytes. An end by this
    /// side discards what the peer has not confirmed; otherwise the peer may have what was sent, unless its
    /// confirmation is overdue.
    pub(super) fn lost(&self) -> (u64, u64) {
        match self.closing() {
            Some(CloseReason::Local { .. }) => self.unconfirmed(),
            _ => self.sum(Outbox::suspected),
        }
    }

    fn sum(&self, of_lane: impl Fn(&Outbox) -> (u64, u64)) -> (u64, u64) {
        let sum = |(messages, bytes), (more, size)| (messages + more, bytes + size);
        self.all_lanes().map(of_lane).fold((0, 0), sum)
    }

    /// Returns whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Returns why nothing can be sent any more, if so.
    pub(super) fn closing(&self) -> Option<CloseReason> {
        let local = || self.urgent().closing();
        let end = self.end.borrow().clone().or_else(|| self.failed.get().cloned());
        end.or_else(|| local().map(|(code, reason)| CloseReason::Local { code, reason }))
    }

    /// Waits until the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn ended(&self) -> CloseReason {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(CloseReason::TimedOut) // does not occur: `self` owns the sender
    }
}
