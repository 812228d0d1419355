//! `StreamPool`: the streams of a connection, opened on demand and reused.
//!
//! Messages are sent on one or more lanes, plus one for urgent messages. All streams of the peer
//! feed one inbox. Streams are accepted by `recv`.

use crate::MsQuicTransportConfig;
use crate::frame_sink::{FrameSink, SinkStatus};
use crate::lane::{Lane, QueueError};
use bytes::Bytes;
use futures_util::future::join_all;
use msquic_async::connection::Connection;
use msquic_async::{ReadStream, WriteStream};
use net_kit::frame;
use net_kit::inbox::Inbox;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The code that stops a stream on which the peer announced a message over the limit.
pub const STREAM_CODE_MESSAGE_TOO_LARGE: u64 = 1;

pub(crate) struct StreamPool {
    inbox: Arc<Inbox>,
    max_received_message: usize,
    /// At least one.
    lanes: Vec<Lane>,
    urgent: Lane,
    is_closed: AtomicBool,
    inbound: Mutex<Vec<(Arc<ReadStream>, Arc<SinkStatus>)>>,
    /// Streams with answers to requests, until acknowledged.
    answers: Mutex<Vec<Weak<WriteStream>>>,
}

impl StreamPool {
    pub(crate) fn new(config: &MsQuicTransportConfig) -> Self {
        Self {
            inbox: Arc::new(Inbox::new(config.receive_queue)),
            max_received_message: config.max_received_message,
            lanes: (0..config.send_streams.max(1)).map(|_| Lane::new(false)).collect(),
            urgent: Lane::new(true),
            is_closed: AtomicBool::new(false),
            inbound: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Returns the lane for the next message: that with the fewest queued bytes.
    fn lane(&self, is_urgent: bool) -> &Lane {
        match &*self.lanes {
            _ if is_urgent => &self.urgent,
            [only] => only,
            lanes => lanes.iter().min_by_key(|lane| lane.pending_bytes()).unwrap_or(&self.urgent),
        }
    }

    /// Queues one message completely or not at all.
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

    /// Queues one message without waiting.
    pub(crate) fn try_send(
        &self,
        header: [u8; frame::HEADER],
        message: Bytes,
    ) -> Result<(), QueueError> {
        self.lane(false).try_send(&header, &[message])
    }

    /// Returns a lane that [`try_send`](Self::try_send) needs and that no other task prepares.
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

    /// Waits until msquic has accepted all queued messages.
    pub(crate) async fn flush(
        &self,
        connection: &Connection,
        no_progress: Duration,
    ) -> Result<(), QueueError> {
        let lanes = self.lanes.iter().chain([&self.urgent]);
        let flushed = join_all(lanes.map(|lane| lane.flush(connection, no_progress))).await;
        flushed.into_iter().collect()
    }

    /// Stops sending, and waits until the peer has acknowledged all messages or makes no progress.
    /// Returns false if already stopped.
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

    /// Registers a stream with an answer until it is acknowledged.
    pub(crate) fn add_answer(&self, stream: &Arc<WriteStream>) {
        let mut answers = self.answers.lock();
        answers.retain(|stream| stream.strong_count() > 0);
        answers.push(Arc::downgrade(stream));
    }

    /// Connects a stream of the peer to the inbox.
    pub(crate) fn add_inbound(&self, stream: ReadStream) {
        let stream = Arc::new(stream);
        let (sink, status) = FrameSink::new(&self.inbox, self.max_received_message);
        // Registered before the sink runs, so that readers can resume or stop the stream.
        let ended = {
            let mut inbound = self.inbound.lock();
            inbound.push((stream.clone(), status));
            inbound.extract_if(.., |(_, status)| status.is_ended()).collect::<Vec<_>>()
        };
        drop(ended);
        let is_first = stream.set_sink(Box::new(sink)).is_ok();
        debug_assert!(is_first, "a stream was just accepted");
    }

    /// Resumes paused streams after the inbox has room again.
    pub(crate) fn resume(&self) {
        let streams: Vec<_> =
            self.inbound.lock().iter().map(|(stream, _)| stream.clone()).collect();
        streams.iter().for_each(|stream| stream.resume());
    }

    /// Stops the streams that can no longer be decoded.
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
