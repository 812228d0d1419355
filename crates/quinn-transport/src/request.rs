//! Requests over QUIC, each a question and its answer on its own stream.
//!
//! A side that cancels resets its direction and stops the other, which notifies the peer at once.

use crate::connection::QuinnConnection;
use async_trait::async_trait;
use bytes::Bytes;
use net_kit::progress::{Stuck, unless_stuck};
use net_traits::{Cause, NetConnection, NetQuestion, NetRequests, RequestError, request_code};
use quinn::{ReadError, ReadToEndError, RecvStream, SendStream, VarInt, WriteError};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// A question of the peer, see [`NetQuestion`].
///
/// [`answer`](NetQuestion::answer) waits until the peer's QUIC has acknowledged the answer.
pub struct QuinnQuestion {
    read: RecvStream,
    write: SendStream,
    connection: QuinnConnection,
    is_over: bool,
}

#[async_trait]
impl NetQuestion for QuinnQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        let limit = self.connection.core().config.max_request_size;
        match self.read.read_to_end(limit).await {
            Ok(question) => Ok(question.into()),
            Err(ReadToEndError::TooLong) => {
                self.end(request_code::TOO_LARGE);
                Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
            }
            Err(ReadToEndError::Read(ReadError::ConnectionLost(_))) => {
                Err(self.connection.closed().await)
            }
            Err(_) => Err(RequestError::Canceled),
        }
    }

    async fn answer(mut self, answer: Bytes) -> Result<(), RequestError> {
        let connection = self.connection.clone();
        let core = connection.core();
        let (size, limit) = (answer.len(), core.config.max_request_size);
        if size > limit {
            self.end(request_code::TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        let written = async {
            let _close_waits = core.answers.read().await;
            self.write.write_chunk(answer).await?;
            let _ = self.write.finish(); // fails if the peer stopped the stream
            match self.write.stopped().await? {
                Some(code) => Err(WriteError::Stopped(code)),
                None => Ok(()),
            }
        };
        let progress = core.progress(std::iter::empty());
        match unless_stuck(core.config.no_progress_timeout, progress, written).await {
            Ok(Ok(())) => {
                self.is_over = true;
                Ok(())
            }
            Ok(Err(WriteError::ConnectionLost(_))) => Err(connection.closed().await),
            Ok(Err(_)) => Err(RequestError::Canceled),
            Err(Stuck(after)) => Err(RequestError::TimedOut { after }),
        }
    }

    fn refuse(mut self, code: u64) {
        self.end(code);
    }

    async fn canceled(&self) {
        let _ = self.write.stopped().await; // the connection may end
    }
}

impl QuinnQuestion {
    /// Ends both directions, unless they have ended.
    fn end(&mut self, code: u64) {
        if !std::mem::replace(&mut self.is_over, true) {
            end(&mut self.write, &mut self.read, code);
        }
    }
}

impl Drop for QuinnQuestion {
    fn drop(&mut self) {
        self.end(request_code::NO_ANSWER);
    }
}

impl fmt::Debug for QuinnQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuinnQuestion").field("stream", &self.read.id()).finish_non_exhaustive()
    }
}

/// Each call fails if its direction has ended.
fn end(write: &mut SendStream, read: &mut RecvStream, code: u64) {
    let _ = write.reset(varint(code));
    let _ = read.stop(varint(code));
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Cancels the request on drop, unless it was answered.
struct Asked {
    read: RecvStream,
    write: SendStream,
    is_answered: bool,
}

impl Asked {
    async fn ask(&mut self, question: Bytes, limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        let Self { read, write, is_answered } = self;
        let answer = read.read_to_end(limit);
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
        *is_answered = is_asked || write.reset(varint(request_code::CANCELED)).is_ok();
        Ok(answer)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            end(&mut self.write, &mut self.read, request_code::CANCELED);
        }
    }
}

#[async_trait]
impl NetRequests for QuinnConnection {
    type Question = QuinnQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let core = self.core();
        let (size, limit) = (question.len(), core.config.max_request_size);
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        let ask = async {
            let Ok((write, read)) = core.connection.open_bi().await else {
                return Err(self.closed().await);
            };
            let mut asked = Asked { read, write, is_answered: false };
            match asked.ask(question, limit).await {
                Ok(answer) => Ok(answer.into()),
                Err(ReadToEndError::TooLong) => {
                    end(&mut asked.write, &mut asked.read, request_code::TOO_LARGE);
                    Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
                }
                Err(ReadToEndError::Read(ReadError::Reset(code))) => {
                    Err(RequestError::NoAnswer { code: code.into_inner() })
                }
                Err(ReadToEndError::Read(ReadError::ConnectionLost(_))) => Err(self.closed().await),
                Err(error) => Err(RequestError::Transport(Cause::new(error))),
            }
        };
        let asked = timeout(deadline, ask).await;
        asked.unwrap_or(Err(RequestError::TimedOut { after: deadline }))
    }

    async fn accept_request(&self) -> Result<QuinnQuestion, RequestError> {
        match self.core().connection.accept_bi().await {
            Ok((write, read)) => {
                Ok(QuinnQuestion { read, write, connection: self.clone(), is_over: false })
            }
            Err(_) => Err(self.closed().await),
        }
    }
}

impl QuinnConnection {
    async fn closed(&self) -> RequestError {
        RequestError::Closed(self.watch_close().await)
    }
}
