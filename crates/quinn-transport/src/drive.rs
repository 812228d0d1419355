//! The task of a connection: reads all streams of the peer into the inbox, writes the messages of
//! the lanes, and observes the end.
//!
//! A lane is an outbox and its stream, which is opened on demand and replaced when the peer stops
//! it. The message in progress is then lost; queued messages use the next stream.

use crate::native::{Quinn, ended, reader};
use crate::request;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_kit::handshake::Handshake;
use net_kit::outbox::{Frame, Outbox, Work};
use net_kit::{backend::Session, coop, quic::let_older_peer_read};
use net_traits::RecvError;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::future::ready;
use std::pin::pin;

/// The code that stops a stream on which the peer announced a message over the limit.
const MESSAGE_TOO_LARGE: VarInt = VarInt::from_u32(1);

/// The priority of the stream for urgent messages, above the default of 0.
const URGENT: i32 = i32::MAX;

/// Runs the connection until it has ended and all received data is in the inbox.
pub(crate) async fn drive(session: &Session<Quinn>, handshake: &Handshake) {
    let native = session.native();
    let ended = async {
        let error = native.connection.closed().await;
        if error == ConnectionError::LocallyClosed {
            native.close_sent().await;
        }
        session.end(handshake.lost(ended(error)));
    };
    let read = async {
        tokio::join!(read_all(session), request::read_all(session));
        session.ended().await;
        session.drained();
    };
    let write = async {
        let send = |(lane, first)| send(session, lane, if first { URGENT } else { 0 });
        // Dropping a stream resets it, so they are kept until the connection is closed.
        let mut streams = join_all(session.outboxes().map(send)).await;
        let _all_sent = native.answers.write().await;
        native.connection.set_send_window(1); // see `acknowledged`
        let lanes = session.outboxes().zip(&mut streams);
        join_all(lanes.map(|((lane, _), stream)| acknowledged(session, lane, stream))).await;
        // Shows whether the peer accepts requests, and sends nothing.
        let request = native.connection.open_bi().now_or_never();
        let is_older = session.receipts().is_none() && request.is_none();
        let needs_time = is_older && streams.iter().any(Option::is_some);
        let (delay, rtt) = (session.config().older_peer_delay, native.connection.rtt());
        let_older_peer_read(needs_time, delay, ready(rtt), session.ended()).await;
        if let Some((code, reason)) = session.urgent().closing() {
            session.abort(code, &reason);
        }
    };
    let datagrams = async {
        while let Ok(datagram) = native.connection.read_datagram().await {
            session.datagrams().push(&datagram);
            coop::spend().await;
        }
    };
    let rest = pin!(async { tokio::join!(datagrams, ended, read) });
    if let Either::Right(((), rest)) = select(rest, pin!(write)).await {
        rest.await;
    }
}

/// Reads all streams until the connection has ended.
async fn read_all(session: &Session<Quinn>) {
    let mut streams = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = session.native().connection.accept_uni() => match accepted {
                Ok(stream) => streams.push(read(session, stream)),
                Err(_) => break,
            },
            Some(()) = streams.next() => {}
        }
    }
    while streams.next().await.is_some() {}
}

/// Reads one stream into the inbox.
async fn read(session: &Session<Quinn>, stream: RecvStream) {
    let mut reader = reader(session, stream);
    let mut decoder = session.decoder();
    let mut unfinished = session.unfinished();
    let end = loop {
        let Ok(()) = reader.pausing(0, session.room_for(&decoder)).await else { return };
        match reader.next().await {
            Ok(Some(data)) => {
                let received = session.receive(&mut decoder, &mut unfinished, &data);
                if !reader.pausing(data.len(), received).await {
                    let _ = reader.stream.stop(MESSAGE_TOO_LARGE); // it may have ended
                    return;
                }
            }
            Ok(None) => break decoder.truncated(),
            Err(ReadError::Reset(code)) => {
                let reset = RecvError::Reset { code: code.into_inner() };
                break decoder.truncated().map(|_| reset);
            }
            Err(_) => break None, // the end of the connection is reported
        }
    };
    drop(unfinished); // the reader of the error resumes the streams that wait for it
    end.into_iter().for_each(|error| session.inbox().push_one(Err(error)));
}

/// The stream of a lane. It is dropped once the connection has ended or the stream was stopped. quinn would
/// keep its data for three probe timeouts more.
struct Lane(SendStream);

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = self.0.reset(VarInt::from_u32(0)); // it may be stopped
    }
}

/// Writes messages until this side closes, or the connection is lost. Returns the open stream.
async fn send(session: &Session<Quinn>, outbox: &Outbox, priority: i32) -> Option<Lane> {
    loop {
        let mut begun = None;
        let sent = send_on_stream(session, outbox, priority, &mut begun).await;
        let Err(WriteError::Stopped(code)) = sent else { return sent.ok().flatten() };
        session.stopped(outbox, begun.as_ref(), code.into_inner());
    }
}

/// Writes messages to one stream, which is opened for the first message, until this side closes.
/// `begun` is the message that is not written completely.
async fn send_on_stream(
    session: &Session<Quinn>,
    outbox: &Outbox,
    priority: i32,
    begun: &mut Option<Frame>,
) -> Result<Option<Lane>, WriteError> {
    let mut open: Option<Lane> = None;
    loop {
        let work = match &open {
            None => outbox.work().await,
            Some(Lane(stream)) => tokio::select! {
                biased;
                work = outbox.work() => work,
                stopped = stream.stopped() => {
                    return Err(stopped?.map_or(WriteError::ClosedStream, WriteError::Stopped));
                }
            },
        };
        let Work::Frame(frame) = work else { return Ok(open) };
        let Lane(stream) = match &mut open {
            Some(stream) => stream,
            None => {
                let stream = session.native().connection.open_uni().await?;
                let _ = stream.set_priority(priority); // a new stream is open
                open.insert(Lane(stream))
            }
        };
        let mut rest = &mut begun.insert(frame).pieces[..];
        while !rest.is_empty() {
            let written = stream.write_chunks(rest).await?;
            outbox.wrote(written.bytes);
            rest = &mut rest[written.chunks..];
        }
        begun.take().iter().for_each(|frame| outbox.wrote_frame(frame));
    }
}

/// Waits until the peer has acknowledged what was written to a stream, if it is open.
///
/// The stream is not finished: older peers read a finished stream again and again. quinn shows no other
/// acknowledgements, but with a send window of one byte, a stream is writable only once nothing is
/// unacknowledged on the connection.
async fn acknowledged(session: &Session<Quinn>, outbox: &Outbox, stream: &mut Option<Lane>) {
    let Some(Lane(stream)) = stream else { return };
    match stream.write(&[]).await {
        Ok(_) => outbox.confirm(),
        Err(WriteError::Stopped(code)) => session.stopped(outbox, None, code.into_inner()),
        Err(_) => {} // the connection is lost
    }
}
