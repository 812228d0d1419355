//! `Lane`: a stream that sends messages, opened on demand and replaced when the peer stops it.
//!
//! Handles queue messages in the outbox; the lane, a part of the connection's task, writes them. A
//! message that a stopped stream had begun is lost; those still queued use the next stream.

use bytes::Bytes;
use net_kit::outbox::{Outbox, Work};
use net_traits::SendError;
use quinn::{Connection, SendStream, VarInt, WriteError};

/// The priority of streams for urgent messages, above the default of 0.
const URGENT: i32 = i32::MAX;

pub(crate) struct Lane<'a> {
    outbox: &'a Outbox,
    priority: i32,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(outbox: &'a Outbox) -> Self {
        Self { outbox, priority: 0 }
    }

    pub(crate) fn urgent(outbox: &'a Outbox) -> Self {
        Self { outbox, priority: URGENT }
    }

    /// Writes messages until this side closes and the peer has acknowledged all of them, or until
    /// the connection is lost.
    pub(crate) async fn drive(self, connection: &Connection) {
        while let Err(WriteError::Stopped(code)) = self.drive_stream(connection).await {
            self.outbox.report(SendError::Stopped { code: code.into_inner() });
        }
    }

    /// Writes messages to one stream, which the first message opens.
    async fn drive_stream(&self, connection: &Connection) -> Result<(), WriteError> {
        let mut open: Option<SendStream> = None;
        loop {
            let work = match &open {
                None => self.outbox.work().await,
                Some(stream) => tokio::select! {
                    biased;
                    work = self.outbox.work() => work,
                    stopped = stream.stopped() => return result(stopped?),
                },
            };
            let Work::Frame(mut frame) = work else {
                let Some(mut stream) = open else { return Ok(()) };
                let _ = stream.finish(); // fails if the peer stopped the stream
                return result(stream.stopped().await?);
            };
            let stream = match &mut open {
                Some(stream) => stream,
                None => {
                    let stream = connection.open_uni().await?;
                    let _ = stream.set_priority(self.priority); // a new stream is open
                    open.insert(stream)
                }
            };
            let written = self.write(stream, &mut frame.pieces).await;
            self.outbox.wrote_frame(&frame);
            written?;
        }
    }

    async fn write(&self, stream: &mut SendStream, pieces: &mut [Bytes]) -> Result<(), WriteError> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let written = stream.write_chunks(rest).await?;
            self.outbox.wrote(written.bytes);
            rest = &mut rest[written.chunks..];
        }
        Ok(())
    }
}

/// Returns an error if the peer stopped the stream with a code.
fn result(stopped: Option<VarInt>) -> Result<(), WriteError> {
    stopped.map_or(Ok(()), |code| Err(WriteError::Stopped(code)))
}
