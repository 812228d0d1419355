//! `StreamPool`: the streams on which a connection sends, opened on demand and reused.
//!
//! Messages are sent on one or more lanes, plus one for urgent messages.

use crate::MsQuicTransportConfig;
use crate::lane::{Lane, QueueError, drain, drain_answer, sum};
use bytes::Bytes;
use futures_util::future::{join, join_all, select_all};
use msquic_async::Connection;
use msquic_async::WriteStream;
use net_kit::frame;
use net_kit::loss_reports::LossReports;
use net_kit::progress::Timeouts;
use net_kit::receipts::Receipts;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

pub(crate) struct StreamPool {
    /// At least one.
    lanes: Vec<Lane>,
    urgent: Lane,
    receipts: Lane,
    pub(crate) loss_reports: Arc<LossReports>,
    is_closed: AtomicBool,
    /// Streams with answers to requests, until acknowledged.
    answers: Mutex<Vec<Weak<WriteStream>>>,
}

impl StreamPool {
    pub(crate) fn new(config: &MsQuicTransportConfig, receipts: Option<&Arc<Receipts>>) -> Self {
        let loss_reports = Arc::default();
        Self {
            lanes: (0..config.send_streams.max(1))
                .map(|_| Lane::new(&loss_reports, receipts.cloned(), false))
                .collect(),
            urgent: Lane::new(&loss_reports, receipts.cloned(), true),
            receipts: Lane::new(&Arc::default(), None, true),
            loss_reports,
            is_closed: AtomicBool::new(false),
            answers: Mutex::default(),
        }
    }

    /// Returns the lane for the next message: that with the fewest queued bytes.
    fn lane(&self, is_urgent: bool) -> &Lane {
        match &*self.lanes {
            _ if is_urgent => &self.urgent,
            [only] => only,
            lanes => lanes.iter().min_by_key(|lane| lane.pending_bytes()).unwrap_or(&self.urgent),
        }
    }

    /// Queues one message completely or not at all, and returns its stream.
    pub(crate) async fn send(
        &self,
        connection: &Connection,
        header: &[u8],
        parts: &[Bytes],
        is_urgent: bool,
        timeouts: impl FnOnce() -> Timeouts,
    ) -> Result<Arc<WriteStream>, QueueError> {
        self.lane(is_urgent).send(connection, header, parts, timeouts).await
    }

    /// Queues receipts or confirmations on their stream, which the peer reads even if its inbox is
    /// full.
    pub(crate) async fn send_records(
        &self,
        connection: &Connection,
        records: &[u8],
        timeouts: impl FnOnce() -> Timeouts,
    ) -> Result<(), QueueError> {
        self.receipts.send(connection, records, &[], timeouts).await.map(drop)
    }

    /// Waits until the peer has acknowledged all receipts.
    pub(crate) async fn flush_receipts(&self, connection: &Connection, timeouts: Timeouts) {
        let _ = self.receipts.flush(connection, timeouts).await; // a failure has no consequence here
    }

    /// Queues one message without waiting.
    pub(crate) fn try_send(
        &self,
        header: [u8; frame::HEADER],
        message: Bytes,
    ) -> Result<(), QueueError> {
        self.lane(false).try_send(&header, &[message]).map(drop)
    }

    /// Queues messages with their headers while there is room, and returns how many, at least one.
    pub(crate) fn try_send_many(
        &self,
        messages: &[([u8; frame::HEADER], &Bytes)],
    ) -> Result<usize, QueueError> {
        self.lane(false).try_send_many(messages)
    }

    /// Returns the index of a lane that [`try_send`](Self::try_send) needs and that no other task
    /// prepares.
    pub(crate) fn unprepared(&self) -> Option<usize> {
        self.lanes.iter().position(Lane::wants_preparation)
    }

    /// Returns the lane for messages that are not urgent with this index.
    pub(crate) fn ordinary(&self, index: usize) -> &Lane {
        &self.lanes[index]
    }

    /// Opens the streams for messages that are not urgent.
    pub(crate) async fn open(
        &self,
        connection: &Connection,
        timeouts: Timeouts,
    ) -> Result<(), QueueError> {
        for lane in &self.lanes {
            lane.open(connection, timeouts).await?;
        }
        Ok(())
    }

    /// Returns the number of queued bytes.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.lanes.iter().chain([&self.urgent]).map(Lane::pending_bytes).sum()
    }

    /// Waits until the peer has acknowledged all queued messages.
    pub(crate) async fn flush(
        &self,
        connection: &Connection,
        timeouts: Timeouts,
    ) -> Result<(), QueueError> {
        let lanes = self.all_lanes().map(|lane| lane.flush(connection, timeouts));
        let flushed = join_all(lanes).await;
        flushed.into_iter().collect()
    }

    /// Waits until the peer stops a stream with messages.
    pub(crate) async fn stopped(&self) -> QueueError {
        select_all(self.all_lanes().map(|lane| Box::pin(lane.stopped()))).await.0
    }

    /// Stops sending. Returns `None` if already stopped.
    pub(crate) fn close(&self) -> Option<Closing> {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return None;
        }
        let streams = self.all_lanes().filter_map(Lane::close).collect();
        let answers = self.answers.lock().iter().filter_map(Weak::upgrade).collect();
        Some(Closing { streams, answers })
    }

    /// Returns how many messages the peer has not acknowledged, at most, and their bytes.
    pub(crate) fn unconfirmed(&self) -> (u64, u64) {
        self.all_lanes().map(Lane::unconfirmed).fold((0, 0), sum)
    }

    fn all_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().chain([&self.urgent])
    }

    /// Registers a stream with an answer until it is acknowledged.
    pub(crate) fn add_answer(&self, stream: &Arc<WriteStream>) {
        let mut answers = self.answers.lock();
        answers.retain(|stream| stream.strong_count() > 0);
        answers.push(Arc::downgrade(stream));
    }
}

/// The streams of a connection that is being closed. Keep it, and with it the answers, until the
/// connection has ended.
pub(crate) struct Closing {
    streams: Vec<Arc<WriteStream>>,
    answers: Vec<Arc<WriteStream>>,
}

impl Closing {
    /// Waits until the peer has acknowledged all messages and answers, or makes no progress. Returns whether it
    /// has acknowledged messages.
    pub(crate) async fn drain(&self, connection: &Connection, timeouts: Timeouts) -> bool {
        let streams = self.streams.iter().map(|it| drain(it, connection, timeouts));
        let answers = self.answers.iter().map(|it| drain_answer(connection, it, timeouts));
        let (drained, _) = join(join_all(streams), join_all(answers)).await;
        drained.contains(&true)
    }
}
