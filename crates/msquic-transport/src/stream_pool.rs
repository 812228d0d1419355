//! `StreamPool`: the streams of a connection, opened when needed and used again.
//!
//! One stream sends. It is opened by the first message and replaced when the peer stops it. All
//! streams of the peer feed one inbox; they are accepted while somebody waits for a message.

use crate::frame;
use crate::inbox::{FrameSink, Inbox, SinkStatus};
use bytes::Bytes;
use msquic_async::connection::Connection;
use msquic_async::stream::StartError;
use msquic_async::{ReadStream, StreamType, WriteError, WriteStream};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long sending may make no progress, unless
/// [configured](crate::MsQuicTransportConfig::stream_op_timeout) otherwise.
pub const STREAM_OP_TIMEOUT: Duration = Duration::from_secs(12);

/// The code with which a stream is stopped whose peer announced a message beyond the limit.
pub const STREAM_CODE_MESSAGE_TOO_LARGE: u64 = 1;

pub(crate) struct StreamPool {
    inbox: Arc<Inbox>,
    send: Mutex<SendSlot>,
    /// Held by the task that opens the sending stream.
    opening: tokio::sync::Mutex<()>,
    inbound: Mutex<Vec<(Arc<ReadStream>, Arc<SinkStatus>)>>,
}

enum SendSlot {
    Empty,
    Open(Arc<WriteStream>),
    /// Nothing is sent any more.
    Closed,
}

/// Why a message was not queued.
pub(crate) enum QueueError {
    TimedOut,
    Stopped(u64),
    /// The connection is over.
    Connection,
    /// This side is closing.
    Closed,
    Other(String),
}

impl StreamPool {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self {
            inbox,
            send: Mutex::new(SendSlot::Empty),
            opening: tokio::sync::Mutex::default(),
            inbound: Mutex::default(),
        }
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Queues one message, whole or not at all.
    pub(crate) async fn send(
        &self,
        connection: &Connection,
        header: [u8; frame::HEADER],
        message: Bytes,
        no_progress: Duration,
    ) -> Result<(), QueueError> {
        let frame = [Bytes::copy_from_slice(&header), message];
        loop {
            let stream = self.acquire_send(connection, no_progress).await?;
            let queued =
                unless_stuck(connection, &stream, no_progress, stream.enqueue(&frame)).await?;
            match queued {
                Ok(_) => return Ok(()),
                Err(error) => self.replace(&stream, error)?,
            }
        }
    }

    /// Takes a broken stream out; `Ok` when another one may do better.
    fn replace(&self, stream: &Arc<WriteStream>, error: WriteError) -> Result<(), QueueError> {
        {
            let mut slot = self.send.lock();
            match &*slot {
                SendSlot::Open(open) if Arc::ptr_eq(open, stream) => *slot = SendSlot::Empty,
                SendSlot::Closed => return Err(QueueError::Closed),
                _ => {}
            }
        }
        match error {
            WriteError::Stopped(code) => Err(QueueError::Stopped(code)),
            WriteError::ConnectionLost(_) => Err(QueueError::Connection),
            WriteError::Closed => Ok(()),
            error => Err(QueueError::Other(error.to_string())),
        }
    }

    /// The stream that sends, opened if there is none.
    async fn acquire_send(
        &self,
        connection: &Connection,
        no_progress: Duration,
    ) -> Result<Arc<WriteStream>, QueueError> {
        if let Some(stream) = self.open_stream()? {
            return Ok(stream);
        }
        let open = async {
            let _opening = self.opening.lock().await;
            if let Some(stream) = self.open_stream()? {
                return Ok(stream);
            }
            let opened = connection.open_outbound_stream(StreamType::Unidirectional, false).await;
            let stream = opened.map_err(|error| match error {
                StartError::ConnectionLost(_) => QueueError::Connection,
                error => QueueError::Other(error.to_string()),
            })?;
            let Some(stream) = stream.split().1.map(Arc::new) else {
                return Err(QueueError::Other("the stream cannot send".to_owned()));
            };
            let mut slot = self.send.lock();
            match *slot {
                SendSlot::Closed => Err(QueueError::Closed),
                _ => {
                    *slot = SendSlot::Open(stream.clone());
                    Ok(stream)
                }
            }
        };
        timeout(no_progress, open).await.map_err(|_| QueueError::TimedOut)?
    }

    fn open_stream(&self) -> Result<Option<Arc<WriteStream>>, QueueError> {
        match &*self.send.lock() {
            SendSlot::Open(stream) => Ok(Some(stream.clone())),
            SendSlot::Empty => Ok(None),
            SendSlot::Closed => Err(QueueError::Closed),
        }
    }

    /// Lets nothing more be sent and waits until the peer's QUIC has acknowledged what was, or makes
    /// no progress. False if that had been done before.
    pub(crate) async fn finish(&self, connection: &Connection, no_progress: Duration) -> bool {
        let slot = std::mem::replace(&mut *self.send.lock(), SendSlot::Closed);
        match slot {
            SendSlot::Closed => false,
            SendSlot::Empty => true,
            SendSlot::Open(stream) => {
                let finished = std::future::poll_fn(|cx| stream.poll_finish_write(cx));
                let _ = unless_stuck(connection, &stream, no_progress, finished).await;
                true
            }
        }
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

/// Waits for `operation` as long as msquic takes bytes over or sends some now and then. A slow link
/// makes progress in small steps, between which msquic takes over nothing.
async fn unless_stuck<T>(
    connection: &Connection,
    stream: &WriteStream,
    no_progress: Duration,
    operation: impl Future<Output = T>,
) -> Result<T, QueueError> {
    tokio::pin!(operation);
    let mut sent = None;
    loop {
        let completed = stream.completed();
        if let Ok(output) = timeout(no_progress, &mut operation).await {
            return Ok(output);
        }
        let statistics = connection.statistics().await;
        let sent_now = statistics.ok().map(|statistics| statistics.sent_stream_bytes);
        let is_stuck = stream.completed() == completed && (sent_now.is_none() || sent_now == sent);
        if is_stuck {
            return Err(QueueError::TimedOut);
        }
        sent = sent_now;
    }
}
