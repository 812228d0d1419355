//! `StreamPool`: the streams of a connection, opened when needed and used again.
//!
//! Messages go out on one or more lanes, and on one more for urgent ones. All streams of the peer feed
//! one inbox; they are accepted while somebody waits for a message.

use crate::inbox::{FrameSink, Inbox, SinkStatus};
use crate::lane::{Lane, QueueError};
use bytes::Bytes;
use futures_util::future::join_all;
use msquic_async::connection::Connection;
use msquic_async::{ReadStream, WriteStream};
use net_traits::frame;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long sending may make no progress, unless
/// [configured](crate::MsQuicTransportConfig::stream_op_timeout) otherwise.
pub const STREAM_OP_TIMEOUT: Duration = Duration::from_secs(12);

/// The code with which a stream is stopped whose peer announced a message beyond the limit.
pub const STREAM_CODE_MESSAGE_TOO_LARGE: u64 = 1;

pub(crate) struct StreamPool {
    inbox: Arc<Inbox>,
    /// At least one.
    lanes: Vec<Lane>,
    urgent: Lane,
    is_closed: AtomicBool,
    inbound: Mutex<Vec<(Arc<ReadStream>, Arc<SinkStatus>)>>,
    /// Streams with answers to requests, until they are acknowledged.
    answers: Mutex<Vec<Weak<WriteStream>>>,
}

impl StreamPool {
    pub(crate) fn new(inbox: Arc<Inbox>, lanes: usize) -> Self {
        Self {
            inbox,
            lanes: (0..lanes.max(1)).map(|_| Lane::new(false)).collect(),
            urgent: Lane::new(true),
            is_closed: AtomicBool::new(false),
            inbound: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The lane for the next message: the one in which the least waits.
    fn lane(&self, is_urgent: bool) -> &Lane {
        match &*self.lanes {
            _ if is_urgent => &self.urgent,
            [only] => only,
            lanes => lanes.iter().min_by_key(|lane| lane.pending_bytes()).unwrap_or(&self.urgent),
        }
    }

    /// Queues one message, whole or not at all.
    pub(crate) async fn send(
        &self,
        connection: &Connection,
        header: [u8; frame::HEADER],
        parts: &[Bytes],
        is_urgent: bool,
        no_progress: Duration,
    ) -> Result<(), QueueError> {
        self.lane(is_urgent).send(connection, &header, parts, no_progress).await
    }

    /// Queues one message if that needs no waiting.
    pub(crate) fn try_send(
        &self,
        header: [u8; frame::HEADER],
        message: Bytes,
    ) -> Result<(), QueueError> {
        self.lane(false).try_send(&header, &[message])
    }

    /// A lane that [`try_send`](Self::try_send) needs prepared, unless somebody is at it.
    pub(crate) fn unprepared(&self) -> Option<usize> {
        self.lanes.iter().position(Lane::wants_preparation)
    }

    /// Opens the stream of an [unprepared](Self::unprepared) lane.
    pub(crate) async fn prepare(
        &self,
        lane: usize,
        connection: &Connection,
        no_progress: Duration,
    ) {
        self.lanes[lane].prepare(connection, no_progress).await;
    }

    /// Waits until msquic has taken over everything that was queued.
    pub(crate) async fn flush(
        &self,
        connection: &Connection,
        no_progress: Duration,
    ) -> Result<(), QueueError> {
        let lanes = self.lanes.iter().chain([&self.urgent]);
        let flushed = join_all(lanes.map(|lane| lane.flush(connection, no_progress))).await;
        flushed.into_iter().collect()
    }

    /// Lets nothing more be sent and waits until the peer's QUIC has acknowledged what was, or makes
    /// no progress. False if that had been done before.
    pub(crate) async fn finish(&self, connection: &Connection, no_progress: Duration) -> bool {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return false;
        }
        let mut streams: Vec<_> =
            self.lanes.iter().chain([&self.urgent]).filter_map(Lane::close).collect();
        streams.extend(self.answers.lock().iter().filter_map(Weak::upgrade));
        join_all(streams.iter().map(|stream| Lane::drain(connection, stream, no_progress))).await;
        true
    }

    /// Knows a stream that carries an answer, for as long as somebody waits for its acknowledgement.
    pub(crate) fn add_answer(&self, stream: &Arc<WriteStream>) {
        let mut answers = self.answers.lock();
        answers.retain(|stream| stream.strong_count() > 0);
        answers.push(Arc::downgrade(stream));
    }

    /// Feeds a stream of the peer into the inbox.
    pub(crate) fn add_inbound(&self, stream: ReadStream) {
        let stream = Arc::new(stream);
        let (sink, status) = FrameSink::new(&self.inbox);
        // Known to the others before the sink runs: they resume and stop what it pauses and breaks.
        let ended = {
            let mut inbound = self.inbound.lock();
            inbound.push((stream.clone(), status));
            inbound.extract_if(.., |(_, status)| status.is_ended()).collect::<Vec<_>>()
        };
        drop(ended);
        let is_first = stream.set_sink(Box::new(sink)).is_ok();
        debug_assert!(is_first, "a stream was just accepted");
    }

    /// There is room in the inbox again.
    pub(crate) fn resume(&self) {
        let streams: Vec<_> =
            self.inbound.lock().iter().map(|(stream, _)| stream.clone()).collect();
        streams.iter().for_each(|stream| stream.resume());
    }

    /// Stops the streams that cannot be understood any more.
    pub(crate) fn stop_broken(&self) {
        let broken = {
            let mut inbound = self.inbound.lock();
            inbound.extract_if(.., |(_, status)| status.is_broken()).collect::<Vec<_>>()
        };
        for (stream, _) in broken {
            let _ = stream.abort_read(STREAM_CODE_MESSAGE_TOO_LARGE);
        }
    }
}
