//! Requests over QUIC, each a question and its answer on its own bidirectional stream, as
//! docs/wire-protocol.md says.

use crate::connection::QuinnConnection;
use async_trait::async_trait;
use bytes::Bytes;
use net_traits::{Cause, NetConnection, NetQuestion, NetRequests, RequestError, request_code};
use quinn::{ReadToEndError, RecvStream, SendStream, VarInt};
use std::fmt;
use std::future::pending;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A question of the peer, see [`NetQuestion`].
pub struct QuinnQuestion {
    /// Locked while a task waits for a cancellation, so `answer` and `refuse` own it.
    send: Mutex<SendStream>,
    recv: RecvStream,
    limit: usize,
    is_ended: bool,
    connection: QuinnConnection,
}

/// Cancels a question on drop. Both calls do nothing once their direction has ended.
struct Asked {
    send: SendStream,
    recv: RecvStream,
    code: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.send.reset(code(self.code));
        let _ = self.recv.stop(code(self.code));
    }
}

fn code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

impl QuinnConnection {
    async fn lost(&self) -> RequestError {
        RequestError::Closed(self.watch_close().await)
    }

    async fn ask(&self, question: Bytes, limit: usize) -> Result<Bytes, RequestError> {
        let Ok((send, recv)) = self.quic().open_bi().await else { return Err(self.lost().await) };
        let mut asked = Asked { send, recv, code: request_code::CANCELED };
        // A peer that answers before it has read the whole question stops it; the answer counts.
        if asked.send.write_all(&question).await.is_ok() {
            let _ = asked.send.finish();
        }
        match asked.recv.read_to_end(limit).await {
            Ok(answer) => Ok(answer.into()),
            Err(ReadToEndError::TooLong) => {
                asked.code = request_code::TOO_LARGE;
                Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
            }
            Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                Err(RequestError::NoAnswer { code: code.into_inner() })
            }
            Err(_) => Err(self.lost().await),
        }
    }
}

#[async_trait]
impl NetRequests for QuinnConnection {
    type Question = QuinnQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let (size, limit) = (question.len(), self.max_request_size());
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        let answer = timeout(deadline, self.ask(question, limit)).await;
        answer.unwrap_or(Err(RequestError::TimedOut { after: deadline }))
    }

    async fn accept_request(&self) -> Result<QuinnQuestion, RequestError> {
        let Ok((send, recv)) = self.quic().accept_bi().await else {
            return Err(self.lost().await);
        };
        let limit = self.max_request_size();
        let connection = self.clone();
        Ok(QuinnQuestion { send: send.into(), recv, limit, is_ended: false, connection })
    }
}

impl QuinnQuestion {
    fn end(&mut self, with: u64) {
        if !std::mem::replace(&mut self.is_ended, true) {
            let _ = self.send.get_mut().reset(code(with));
            let _ = self.recv.stop(code(with));
        }
    }
}

#[async_trait]
impl NetQuestion for QuinnQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        let limit = self.limit;
        match self.recv.read_to_end(limit).await {
            Ok(question) => Ok(question.into()),
            Err(ReadToEndError::TooLong) => {
                self.end(request_code::TOO_LARGE);
                Err(RequestError::TooLarge { size: limit.saturating_add(1), limit })
            }
            Err(ReadToEndError::Read(quinn::ReadError::ConnectionLost(_))) => {
                Err(self.connection.lost().await)
            }
            Err(_) => Err(RequestError::Canceled),
        }
    }

    async fn answer(mut self, answer: Bytes) -> Result<(), RequestError> {
        let (size, limit) = (answer.len(), self.limit);
        if size > limit {
            self.end(request_code::TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        let after = self.connection.no_progress_timeout();
        let send = self.send.get_mut();
        let written = async {
            send.write_all(&answer).await?;
            let _ = send.finish(); // it was neither finished nor reset
            Ok(send.stopped().await)
        };
        let written: Result<_, quinn::WriteError> = match timeout(after, written).await {
            Ok(written) => written,
            Err(_) => return Err(RequestError::TimedOut { after }),
        };
        match written {
            Ok(Ok(None)) => {
                self.is_ended = true;
                Ok(())
            }
            Ok(Ok(Some(_))) | Err(quinn::WriteError::Stopped(_)) => Err(RequestError::Canceled),
            Ok(Err(_)) | Err(quinn::WriteError::ConnectionLost(_)) => {
                Err(self.connection.lost().await)
            }
            Err(error) => Err(RequestError::Transport(Cause::new(error))),
        }
    }

    fn refuse(mut self, code: u64) {
        self.end(code);
    }

    async fn canceled(&self) {
        let stopped = self.send.lock().await.stopped();
        if let Ok(None) = stopped.await {
            pending::<()>().await; // all was acknowledged, which needs an answer
        }
    }
}

impl Drop for QuinnQuestion {
    fn drop(&mut self) {
        self.end(request_code::NO_ANSWER); // does nothing after an answer
    }
}

impl fmt::Debug for QuinnQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuinnQuestion").field("stream", &self.recv.id()).finish_non_exhaustive()
    }
}
