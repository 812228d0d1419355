//! Requests over QUIC, each a question and its answer on its own bidirectional stream.
//!
//! A side that cancels resets its direction and stops the other one, which notifies the peer
//! immediately. If the connection is lost, futures remain pending, and `net_kit::backend` reports
//! the end.

use crate::native::{Quinn, varint};
use bytes::Bytes;
use net_kit::backend::{PeerQuestion, Session};
use net_kit::request_reader::RequestReader;
use net_traits::{Cause, RequestError, request_code};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use std::future::pending;

/// The stream of a request of either side. Dropping it cancels the request, unless it has ended.
pub struct Request {
    write: SendStream,
    read: RecvStream,
    has_ended: bool,
}

/// Asks the peer and waits for the answer.
pub(crate) async fn ask(session: &Session<Quinn>, question: Bytes) -> Result<Bytes, RequestError> {
    let Ok((write, read)) = session.native().connection.open_bi().await else {
        return pending().await;
    };
    let mut request = Request::new(write, read);
    let answer = request.ask(question, session.request_reader()).await;
    if let Err(RequestError::TooLarge { .. }) = answer {
        request.end(request_code::TOO_LARGE);
    }
    answer
}

impl PeerQuestion<Quinn> for Request {
    async fn read(&mut self, session: &Session<Quinn>) -> Result<Bytes, RequestError> {
        let mut question = session.request_reader();
        loop {
            match question.wait(self.read.read_chunk(usize::MAX, true)).await? {
                Ok(Some(piece)) => question.push(&piece.bytes)?,
                Ok(None) => return Ok(question.finish()),
                Err(ReadError::ConnectionLost(_)) => pending().await,
                Err(_) => return Err(RequestError::Canceled),
            }
        }
    }

    async fn answer(
        &mut self,
        session: &Session<Quinn>,
        answer: Bytes,
    ) -> Result<(), RequestError> {
        let Self { write, has_ended, .. } = self;
        let written = async {
            let _close_waits = session.native().answers.read().await;
            write.write_chunk(answer).await?;
            let _ = write.finish(); // fails if the peer stopped the stream
            write.stopped().await?.map_or(Ok(()), |code| Err(WriteError::Stopped(code)))
        };
        match session.unless_stuck(std::iter::empty(), written).await? {
            Ok(()) => {
                *has_ended = true;
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

impl Request {
    pub(crate) fn new(write: SendStream, read: RecvStream) -> Self {
        Self { write, read, has_ended: false }
    }

    /// Ends both directions, unless they have ended.
    fn end(&mut self, code: u64) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let _ = self.write.reset(varint(code));
            let _ = self.read.stop(varint(code));
        }
    }

    async fn ask(
        &mut self,
        question: Bytes,
        mut reader: RequestReader,
    ) -> Result<Bytes, RequestError> {
        let Self { read, write, has_ended } = self;
        let answer = async {
            loop {
                match read.read_chunk(usize::MAX, true).await {
                    Ok(Some(piece)) => reader.push(&piece.bytes)?,
                    Ok(None) => return Ok(reader.finish()),
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
}

impl Drop for Request {
    fn drop(&mut self) {
        self.end(request_code::CANCELED);
    }
}
