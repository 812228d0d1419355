//! The task of a connection: reads into the inbox, writes from the outbox, and closes.

use crate::handshake::ended;
use crate::native::{TcpTls, outbox};
use crate::record::{self, Record, RecordDecoder, Violation};
use net_kit::backend::Session;
use net_kit::coop;
use net_kit::handshake::Handshake;
use net_kit::options::keep_alive;
use net_kit::outbox::{Frame, Outbox, Work};
use net_traits::{Cause, CloseReason};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// The interval of keep-alives while nothing else is written, unless the idle timeout requires a
/// shorter one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long an ended connection may take to send its close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of a read, in bytes: the largest TLS record.
const READ: usize = 16 * 1024;

/// Drives a connection until it ends.
pub(crate) async fn drive(
    session: &Session<TcpTls>,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    handshake: &Handshake,
) {
    let deadline = async {
        session.ended().await;
        sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        () = serve(session, stream, handshake) => {}
        () = deadline => {}
    }
}

/// Ends the connection, unless it has ended.
pub(crate) fn end(session: &Session<TcpTls>, reason: CloseReason) {
    session.end(reason);
    session.drained();
}

async fn serve(
    session: &Session<TcpTls>,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    handshake: &Handshake,
) {
    let outbox = outbox(session);
    let (mut reader, mut writer) = split(stream);
    let interval = keep_alive(KEEP_ALIVE, session.config().idle_timeout);
    let end_of_peer = {
        let broken = Notify::new();
        let mut reading = std::pin::pin!(read(session, &mut reader, handshake, &broken));
        tokio::select! {
            end_of_peer = &mut reading => end_of_peer,
            written = write(outbox, &mut writer, interval) => {
                match written {
                    // The peer confirms the close by ending its direction. If it closes too, it may
                    // have dropped messages, and does not confirm them.
                    Ok(()) => {
                        outbox.wrote_all();
                        let end_of_peer = reading.await;
                        if end_of_peer == EndOfPeer::Finished {
                            outbox.confirm();
                        }
                        return end(session, end_of_peer.reason()); // close_notify is sent already
                    }
                    // Data that the peer sent before can still be read, often with the reason.
                    Err(error) => {
                        session.fail(handshake.lost(ended(error)));
                        broken.notify_one();
                    }
                }
                reading.await
            }
        }
    };
    // Send close_notify only after a graceful end. If this side was closing too, it may have
    // dropped messages, and close_notify would confirm them.
    let is_graceful = !matches!(end_of_peer, EndOfPeer::Lost(_)) && outbox.closing().is_none();
    end(session, end_of_peer.reason());
    if is_graceful {
        let _ = writer.shutdown().await; // the peer may be gone
    }
}

/// How the direction of the peer ended.
#[derive(Debug, PartialEq, Eq)]
enum EndOfPeer {
    /// The peer closed the connection.
    Closed {
        code: u64,
        reason: String,
    },
    /// The peer ended its direction without a close record.
    Finished,
    Lost(CloseReason),
}

impl EndOfPeer {
    fn reason(self) -> CloseReason {
        match self {
            Self::Closed { code, reason } => CloseReason::Peer { code, reason },
            Self::Finished => CloseReason::Peer { code: 0, reason: String::new() },
            Self::Lost(reason) => reason,
        }
    }
}

/// Reads until the connection ends, and returns how. Once `broken` is notified, it reads
/// only what has already arrived. After an abort, it discards until the close is sent.
async fn read(
    session: &Session<TcpTls>,
    reader: &mut (impl AsyncRead + Unpin),
    handshake: &Handshake,
    broken: &Notify,
) -> EndOfPeer {
    let (inbox, options) = (session.inbox(), session.options());
    let mut decoder = RecordDecoder::new(options.max_message_size, options.max_request_size);
    let mut unfinished = session.unfinished();
    let mut buffer = vec![0; READ];
    let mut read_timeout = session.config().idle_timeout;
    let mut over = std::pin::pin!(session.ended());
    loop {
        if let Err(reason) = session.room().await {
            return EndOfPeer::Lost(reason);
        }
        let read = tokio::select! {
            biased;
            _ = &mut over => {
                drop((decoder, unfinished)); // free the memory of unfinished messages
                while let Ok(1..) = reader.read(&mut buffer).await {}
                return EndOfPeer::Finished;
            }
            read = timeout(read_timeout, reader.read(&mut buffer)) => read,
            () = broken.notified() => {
                read_timeout = read_timeout.min(CLOSE_TIMEOUT);
                continue;
            }
        };
        let count = match read {
            Err(_) => return EndOfPeer::Lost(CloseReason::TimedOut),
            Ok(Err(error)) => return EndOfPeer::Lost(handshake.lost(ended(error))),
            Ok(Ok(0)) => {
                // A peer that ends in answer to a close of this side drops the message in progress.
                let cut = decoder.truncated().filter(|_| outbox(session).closing().is_none());
                cut.into_iter().for_each(|cut| inbox.push_one(Err(cut)));
                return EndOfPeer::Finished;
            }
            Ok(Ok(count)) => count,
        };
        coop::spend_for(count).await;
        let mut data = &buffer[..count];
        loop {
            let decoded = decoder.decode(&mut data);
            let (arrived, size) = decoder.unfinished();
            unfinished.set(arrived, size);
            match decoded {
                Ok(None) => break,
                Ok(Some(Record::KeepAlive)) => {}
                Ok(Some(Record::Close { code, reason })) => {
                    return EndOfPeer::Closed { code, reason };
                }
                Ok(Some(Record::Message(message))) => {
                    if let Err(reason) = session.room().await {
                        return EndOfPeer::Lost(reason);
                    }
                    match decoder.take_mark() {
                        Some(number) => inbox.push_marked(Ok(message), number),
                        None => inbox.push_one(Ok(message)),
                    }
                }
                Ok(Some(Record::Broken(error))) => {
                    inbox.push_one(Err(error));
                    if let Some(number) = decoder.take_mark() {
                        session.send_receipt(number, false);
                    }
                }
                Ok(Some(Record::Control(record))) => {
                    if !session.on_control(record) {
                        return violation("a record that the negotiated version does not have");
                    }
                }
                Ok(Some(record)) => {
                    let handled = match session.native().requests() {
                        Ok(requests) => {
                            let limit = options.max_request_size;
                            requests.on_record(outbox(session), inbox.share(), record, limit)
                        }
                        Err(_) => {
                            Err(Violation("a request, which the negotiated version does not have"))
                        }
                    };
                    if let Err(Violation(what)) = handled {
                        return violation(what);
                    }
                }
                Err(Violation(what)) => return violation(what),
            }
        }
    }
}

fn violation(what: &'static str) -> EndOfPeer {
    EndOfPeer::Lost(CloseReason::ProtocolViolation(Cause::new(what)))
}

/// Writes until this side has closed.
async fn write(
    outbox: &Outbox,
    writer: &mut (impl AsyncWrite + Unpin),
    interval: Duration,
) -> io::Result<()> {
    loop {
        match timeout(interval, outbox.work()).await {
            Ok(Work::Frame(frame)) => {
                write_frame(outbox, writer, &frame).await?;
                if outbox.is_empty() {
                    writer.flush().await?;
                }
                outbox.wrote_frame(&frame);
            }
            Ok(Work::Close(code, reason)) => {
                writer.write_all(&record::close(code, &reason)).await?;
                return writer.shutdown().await;
            }
            Err(_) => {
                writer.write_all(&record::keep_alive()).await?;
                writer.flush().await?;
            }
        }
    }
}

async fn write_frame(
    outbox: &Outbox,
    writer: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
) -> io::Result<()> {
    for piece in &frame.pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let count = writer.write(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            outbox.wrote(count);
            rest = &rest[count..];
        }
    }
    Ok(())
}
