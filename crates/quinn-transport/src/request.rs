//! Requests over QUIC, each a question and its answer on its own bidirectional stream.
//!
//! A side that cancels resets its direction and stops the other one, which notifies the peer
//! immediately. If the connection is lost, futures remain pending, and `net_kit::backend` reports
//! the end.
//!
//! The task of the connection reads the questions of the peer, whether or not the application accepts them, so
//! that their memory is charged.

use crate::native::{Quinn, reader, varint};
use crate::reader::Reader;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_kit::backend::{PeerQuestion, Session};
use net_kit::request_reader::{RequestReader, refusal};
use net_traits::{Cause, RequestError, request_code};
use quinn::{ReadError, SendStream, VarInt, WriteError};
use std::future::pending;
use tokio::sync::oneshot;

/// Reads all questions of the peer until the connection has ended.
pub(crate) async fn read_all(session: &Session<Quinn>) {
    let mut reading = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = session.native().connection.accept_bi() => match accepted {
                Ok((write, read)) => {
                    let (read_to, question) = oneshot::channel();
                    let (stop, stopped) = oneshot::channel();
                    let reader = reader(session, read);
                    reading.push(read_one(session, reader, read_to, stopped));
                    session.questions().push(Question { write, question: Some(question), stop: Some(stop) });
                }
                Err(_) => break,
            },
            Some(()) = reading.next() => {}
        }
    }
    session.questions().clear();
}

/// Reads a question, unless it is stopped.
async fn read_one(
    session: &Session<Quinn>,
    mut reader: Reader,
    question: oneshot::Sender<Result<RequestReader, RequestError>>,
    mut stopped: oneshot::Receiver<VarInt>,
) {
    let read = async {
        let mut question = session.request_reader();
        loop {
            match question.wait(reader.next()).await? {
                Ok(Some(piece)) => question.push(&piece)?,
                Ok(None) => return Ok(question),
                Err(ReadError::ConnectionLost(_)) => pending().await,
                Err(_) => return Err(RequestError::Canceled),
            }
        }
    };
    let (code, read) = tokio::select! {
        code = &mut stopped => (code.ok(), None),
        read = read => (read.as_ref().err().and_then(refusal).map(varint), Some(read)),
    };
    if let Some(code) = code {
        let _ = reader.stream.stop(code); // it may have ended
    }
    drop(reader); // its memory is released before the application learns the result
    if let Some(read) = read {
        let _ = question.send(read); // it may have been dropped meanwhile
    }
}

/// A question of the peer. Dropping it refuses it, unless it has ended.
pub struct Question {
    write: SendStream,
    /// What was read; `None` once it is taken.
    question: Option<oneshot::Receiver<Result<RequestReader, RequestError>>>,
    /// Stops the stream of the question; `None` once the request has ended.
    stop: Option<oneshot::Sender<VarInt>>,
}

impl PeerQuestion<Quinn> for Question {
    async fn read(&mut self, _: &Session<Quinn>) -> Result<Bytes, RequestError> {
        let question = self.question.as_mut().ok_or(RequestError::Canceled)?;
        let read = question.await;
        self.question = None;
        match read {
            Ok(read) => read.map(RequestReader::finish),
            Err(_) => pending().await, // the connection has ended
        }
    }

    async fn answer(
        &mut self,
        session: &Session<Quinn>,
        answer: Bytes,
    ) -> Result<(), RequestError> {
        let write = &mut self.write;
        let written = async {
            let _close_waits = session.native().answers.read().await;
            write.write_chunk(answer).await?;
            let _ = write.finish(); // fails if the peer stopped the stream
            write.stopped().await?.map_or(Ok(()), |code| Err(WriteError::Stopped(code)))
        };
        match session.unless_stuck(std::iter::empty(), written).await? {
            Ok(()) => {
                self.stop = None;
                Ok(())
            }
            Err(WriteError::ConnectionLost(_)) => pending().await,
            Err(_) => Err(RequestError::Canceled),
        }
    }

    fn end(&mut self, _: &Session<Quinn>, code: u64) {
        self.end(code);
    }

    async fn canceled(&self) {
        let _ = self.write.stopped().await; // the connection may end
    }
}

impl Question {
    /// Ends both directions, unless they have ended.
    fn end(&mut self, code: u64) {
        if let Some(stop) = self.stop.take() {
            let _ = self.write.reset(varint(code));
            let _ = stop.send(varint(code)); // everything may be read
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.end(request_code::CANCELED);
    }
}

/// Asks the peer and waits for the answer.
pub(crate) async fn ask(session: &Session<Quinn>, question: Bytes) -> Result<Bytes, RequestError> {
    let Ok((write, read)) = session.native().connection.open_bi().await else {
        return pending().await;
    };
    let reader = reader(session, read).without_timeout();
    let mut request = Request { write, reader, has_ended: false };
    let answer = request.ask(session, question).await;
    if let Err(RequestError::TooLarge { .. }) = answer {
        request.end(request_code::TOO_LARGE);
    }
    answer
}

/// A request of this side. Dropping it cancels it, unless it has ended.
struct Request {
    write: SendStream,
    reader: Reader,
    has_ended: bool,
}

impl Request {
    async fn ask(
        &mut self,
        session: &Session<Quinn>,
        question: Bytes,
    ) -> Result<Bytes, RequestError> {
        let Self { reader, write, has_ended } = self;
        let answer = async {
            let mut answer = session.request_reader();
            loop {
                match reader.next().await {
                    Ok(Some(piece)) => answer.push(&piece)?,
                    Ok(None) => return Ok(answer.finish()),
                    Err(ReadError::Reset(code)) => {
                        return Err(RequestError::NoAnswer { code: code.into_inner() });
                    }
                    Err(ReadError::ConnectionLost(_)) => pending().await,
                    Err(error) => return Err(RequestError::Transport(Cause::new(error))),
                }
            }
        };
        tokio::pin!(answer);
        let mut is_asked = false;
        let answer = tokio::select! {
            answer = &mut answer => answer,
            asked = write.write_chunk(question) => {
                is_asked = asked.is_ok() && write.finish().is_ok();
                answer.await // a peer that does not read the whole question may answer
            }
        }?;
        // The peer must not take a part of the question for the whole.
        *has_ended = is_asked || write.reset(varint(request_code::CANCELED)).is_ok();
        Ok(answer)
    }

    /// Ends both directions, unless they have ended.
    fn end(&mut self, code: u64) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let _ = self.write.reset(varint(code));
            let _ = self.reader.stream.stop(varint(code));
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.end(request_code::CANCELED);
    }
}
