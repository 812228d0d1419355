//! The task of a connection: it reads all streams of the peer into the inbox, drives the lanes, and
//! observes the end.

use crate::handshake::ended;
use crate::lane;
use crate::link::Quinn;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_kit::backend::Session;
use net_kit::frame::FrameDecoder;
use net_kit::handshake::Handshake;
use net_traits::RecvError;
use quinn::{ConnectionError, ReadError, RecvStream, VarInt};
use std::pin::pin;

/// The code that stops a stream on which the peer announced a message over the limit.
const MESSAGE_TOO_LARGE: VarInt = VarInt::from_u32(1);

/// The priority of the stream for urgent messages, above the default of 0.
const URGENT: i32 = i32::MAX;

/// Runs the connection until it has ended and everything that arrived was received.
pub(crate) async fn drive(session: &Session<Quinn>, handshake: &Handshake) {
    let link = session.link();
    let ended = async {
        let error = link.connection.closed().await;
        if error == ConnectionError::LocallyClosed {
            link.close_sent().await;
        }
        session.end(handshake.lost(ended(error)));
    };
    let read = async {
        read_all(session).await;
        session.over().await;
        session.drained();
    };
    let write = async {
        let ordinary = session.lanes().iter().map(|lane| (lane, 0));
        let lanes = ordinary.chain([(session.urgent(), URGENT)]);
        let send = |(lane, priority)| lane::drive(lane, &link.connection, priority);
        join_all(lanes.map(send)).await;
        let _all_sent = link.answers.write().await;
        if let Some((code, reason)) = session.urgent().closing() {
            session.abort(code, &reason);
        }
    };
    let rest = pin!(async { tokio::join!(ended, read) });
    if let Either::Right(((), rest)) = select(rest, pin!(write)).await {
        rest.await;
    }
}

/// Reads all streams until the connection has ended.
async fn read_all(session: &Session<Quinn>) {
    let mut streams = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = session.link().connection.accept_uni() => match accepted {
                Ok(stream) => streams.push(read(session, stream)),
                Err(_) => break,
            },
            Some(()) = streams.next() => {}
        }
    }
    while streams.next().await.is_some() {}
}

/// Reads one stream into the inbox.
async fn read(session: &Session<Quinn>, mut stream: RecvStream) {
    let mut decoder = FrameDecoder::new(session.options().max_message_size);
    let end = loop {
        let Ok(()) = session.room().await else { return };
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => {
                if !session.receive(&mut decoder, &chunk.bytes).await {
                    let _ = stream.stop(MESSAGE_TOO_LARGE); // it may have ended
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
    end.into_iter().for_each(|error| session.inbox().push_one(Err(error)));
}
