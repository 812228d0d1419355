//! A lane is an outbox and the stream that sends its messages, opened on demand and replaced when the
//! peer stops it.
//!
//! A message that a stopped stream had begun is lost; those still queued use the next stream.

use bytes::Bytes;
use net_kit::outbox::{Outbox, Work};
use net_traits::SendError;
use quinn::{Connection, SendStream, VarInt, WriteError};

/// Writes messages until this side closes and the peer has acknowledged all of them, or until the
/// connection is lost.
pub(crate) async fn drive(outbox: &Outbox, connection: &Connection, priority: i32) {
    while let Err(WriteError::Stopped(code)) = drive_stream(outbox, connection, priority).await {
        outbox.report(SendError::Stopped { code: code.into_inner() });
    }
}

/// Writes messages to one stream, which the first message opens.
async fn drive_stream(
    outbox: &Outbox,
    connection: &Connection,
    priority: i32,
) -> Result<(), WriteError> {
    let mut open: Option<SendStream> = None;
    loop {
        let work = match &open {
            None => outbox.work().await,
            Some(stream) => tokio::select! {
                biased;
                work = outbox.work() => work,
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
                let _ = stream.set_priority(priority); // a new stream is open
                open.insert(stream)
            }
        };
        let written = write(outbox, stream, &mut frame.pieces).await;
        outbox.wrote_frame(&frame);
        written?;
    }
}

async fn write(
    outbox: &Outbox,
    stream: &mut SendStream,
    mut rest: &mut [Bytes],
) -> Result<(), WriteError> {
    while !rest.is_empty() {
        let written = stream.write_chunks(rest).await?;
        outbox.wrote(written.bytes);
        rest = &mut rest[written.chunks..];
    }
    Ok(())
}

/// Returns an error if the peer stopped the stream with a code.
fn result(stopped: Option<VarInt>) -> Result<(), WriteError> {
    stopped.map_or(Ok(()), |code| Err(WriteError::Stopped(code)))
}
