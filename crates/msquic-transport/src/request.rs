//! Requests over QUIC, each a question and its answer on its own stream.
//!
//! On the wire a request is a bidirectional stream: the bytes of the question and then FIN in one
//! direction, the bytes of the answer and then FIN in the other. A side that cancels resets its
//! direction and stops the other, which notifies the peer at once.

use crate::connection::MsQuicNetConnection;
use crate::lane::unless_stuck;
use crate::shared::Shared;
use async_trait::async_trait;
use bytes::Bytes;
use msquic_async::{ReadError, ReadStream, StreamStartError, StreamType, WriteError, WriteStream};
use net_kit::coop;
use net_kit::progress::Stuck;
use net_kit::request_reader::RequestReader;
use net_traits::{Cause, NetConnection, NetQuestion, NetRequests, RequestError, request_code};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A question of the peer, see [`NetQuestion`].
///
/// [`answer`](NetQuestion::answer) waits until the peer's QUIC stack has acknowledged the answer.
/// If the peer's task is not reading, at most the first 256 KiB are buffered for it, and with an
/// unpatched library the rest is lost if the connection is then closed.
pub struct MsQuicQuestion {
    read: ReadStream,
    write: Arc<WriteStream>,
    connection: MsQuicNetConnection,
}

#[async_trait]
impl NetQuestion for MsQuicQuestion {
    async fn question(&mut self) -> Result<Bytes, RequestError> {
        let limit = self.connection.shared.config.max_request_size;
        let mut question = RequestReader::new(self.connection.shared.share(), limit);
        let question = loop {
            let error = match question.wait(self.read.read_chunk()).await {
                Ok(Ok(Some(piece))) => match question.push(&piece) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Ok(Ok(None)) => break Ok(question.finish()),
                Ok(Err(ReadError::ConnectionLost(_))) => {
                    RequestError::Closed(self.connection.watch_close().await)
                }
                Ok(Err(_)) => RequestError::Canceled,
                Err(late) => late,
            };
            match error {
                RequestError::TooLarge { .. } => self.abort(request_code::TOO_LARGE),
                RequestError::TimedOut { .. } => self.abort(request_code::TOO_SLOW),
                _ => {}
            }
            break Err(error);
        };
        self.connection.shared.entry.hand_out_request(question)
    }

    async fn canceled(&self) {
        let _ = self.write.stopped().await;
    }

    async fn answer(self, answer: Bytes) -> Result<(), RequestError> {
        let Shared { inner, config, stream_pool, .. } = &*self.connection.shared;
        let (size, limit) = (answer.len(), config.max_request_size);
        if size > limit {
            self.abort(request_code::TOO_LARGE);
            return Err(RequestError::TooLarge { size, limit });
        }
        let written = async {
            self.write.enqueue(std::slice::from_ref(&answer)).await?;
            stream_pool.add_answer(&self.write);
            poll_fn(|cx| self.write.poll_finish_write(cx)).await
        };
        match unless_stuck(inner, &self.write, config.timeouts(), written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(WriteError::ConnectionLost(_))) => {
                Err(RequestError::Closed(self.connection.watch_close().await))
            }
            Ok(Err(_)) => Err(RequestError::Canceled),
            Err(Stuck(after)) => Err(RequestError::TimedOut { after }),
        }
    }

    fn refuse(self, code: u64) {
        self.abort(code);
    }
}

impl MsQuicQuestion {
    /// Aborts both directions; a direction that has ended is not affected.
    fn abort(&self, code: u64) {
        let _ = self.write.abort_write(code);
        let _ = self.read.abort_read(code);
    }
}

impl Drop for MsQuicQuestion {
    fn drop(&mut self) {
        self.abort(request_code::NO_ANSWER); // does nothing after an answer
    }
}

impl fmt::Debug for MsQuicQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsQuicQuestion").field("stream", &self.read.id()).finish_non_exhaustive()
    }
}

/// A request that was sent. It is cancelled on drop, unless it was answered.
struct Asked {
    read: ReadStream,
    write: WriteStream,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Both calls do nothing once their direction has ended.
        let _ = self.write.abort_write(request_code::CANCELED);
        let _ = self.read.abort_read(request_code::CANCELED);
    }
}

#[async_trait]
impl NetRequests for MsQuicNetConnection {
    type Question = MsQuicQuestion;

    async fn request(&self, question: Bytes, deadline: Duration) -> Result<Bytes, RequestError> {
        let (size, limit) = (question.len(), self.shared.config.max_request_size);
        if size > limit {
            coop::spend().await; // not before, as questions that are asked at once are sent in order
            return Err(RequestError::TooLarge { size, limit });
        }
        let ask = async {
            let opened = self.shared.inner.open_outbound_stream(StreamType::Bidirectional, false);
            let stream = match opened.await {
                Ok(stream) => stream,
                Err(StreamStartError::ConnectionLost(_)) => {
                    return Err(RequestError::Closed(self.watch_close().await));
                }
                Err(error) => return Err(RequestError::Transport(Cause::new(error))),
            };
            let (Some(read), Some(write)) = stream.split() else {
                return Err(RequestError::Transport(Cause::new("a stream lacks a direction")));
            };
            let asked = Asked { read, write };
            // A peer that answers before it has read the whole question stops it; the answer is
            // valid.
            if asked.write.enqueue(std::slice::from_ref(&question)).await.is_ok() {
                let _ = asked.write.finish();
            }
            let mut answer = RequestReader::new(self.shared.share(), limit);
            loop {
                match asked.read.read_chunk().await {
                    Ok(Some(piece)) => answer.push(&piece).inspect_err(|_| {
                        let _ = asked.read.abort_read(request_code::TOO_LARGE);
                    })?,
                    Ok(None) => return Ok(answer.finish()),
                    Err(ReadError::Reset(code)) => return Err(RequestError::NoAnswer { code }),
                    Err(_) => return Err(RequestError::Closed(self.watch_close().await)),
                }
            }
        };
        let answer = timeout(deadline, ask).await;
        let answer = answer.unwrap_or(Err(RequestError::TimedOut { after: deadline }));
        self.shared.entry.hand_out_request(answer)
    }

    async fn accept_request(&self) -> Result<MsQuicQuestion, RequestError> {
        coop::spend().await;
        loop {
            let Ok(stream) = self.shared.inner.accept_inbound_stream().await else {
                return Err(RequestError::Closed(self.watch_close().await));
            };
            if let (Some(read), Some(write)) = stream.split() {
                let write = Arc::new(write);
                let question = MsQuicQuestion { read, write, connection: self.clone() };
                return self.shared.entry.hand_out_request(Ok(question));
            }
        }
    }
}
