//! Writing: from the queue of a stream to msquic.

use super::error::{StartError, WriteError};
use super::inner::{DROPPED, Exclusive, StreamInner};
use super::state::{ReceiveInput, SendInput, SendState, StartState};
use crate::buffer::SendQueue;
use crate::ffi::status::Status;
use crate::ffi::stream::Abort;
use bytes::Bytes;

impl StreamInner {
    /// Calls `write` to put bytes into the queue, and sends them; `None` if there is no room.
    pub(super) fn try_write<T>(
        &self,
        write: impl FnOnce(&mut SendQueue, &mut SendState) -> T,
    ) -> Option<Result<T, WriteError>> {
        let (written, has_more_room, is_closed) = {
            let exclusive = &mut *self.exclusive.lock();
            if let Err(error) = exclusive.check_writable() {
                return Some(Err(error));
            }
            if exclusive.queue.room() == 0 {
                return None;
            }
            let written = write(&mut exclusive.queue, &mut exclusive.send);
            (written, exclusive.queue.room() > 0, !exclusive.send.is_open())
        };
        if is_closed {
            self.room.wake_all();
        } else if has_more_room {
            self.room.pass_on();
        }
        self.pump();
        Some(Ok(written))
    }

    /// Puts all of `chunks` into the queue and returns how many bytes they are.
    pub(super) fn try_write_chunks(
        &self,
        chunks: &[Bytes],
        fin: bool,
    ) -> Option<Result<usize, WriteError>> {
        self.try_write(|queue, send| {
            chunks.iter().for_each(|chunk| queue.push(chunk));
            if fin {
                send.apply(SendInput::Finish);
                queue.finish();
            }
            chunks.iter().map(Bytes::len).sum()
        })
    }

    /// Puts `head` and all of `pieces` into the queue and returns the offset behind them.
    pub(crate) fn try_enqueue(
        &self,
        head: &[u8],
        pieces: &[Bytes],
    ) -> Option<Result<u64, WriteError>> {
        self.try_write(|queue, _| {
            queue.push_copy(head);
            pieces.iter().for_each(|piece| queue.push(piece));
            queue.end_write(head.len() + pieces.iter().map(Bytes::len).sum::<usize>());
            queue.queued()
        })
    }

    /// Puts messages into the queue while there is room, and returns how many.
    pub(super) fn try_enqueue_many<const HEAD: usize>(
        &self,
        messages: &[([u8; HEAD], &Bytes)],
    ) -> Result<usize, WriteError> {
        let enqueued = self.try_write(|queue, _| {
            let fitting = messages.iter().take_while(|(head, message)| {
                let has_room = queue.room() > 0;
                if has_room {
                    queue.push_copy(head);
                    queue.push(message);
                    queue.end_write(HEAD + message.len());
                }
                has_room
            });
            fitting.count()
        });
        enqueued.unwrap_or(Ok(0))
    }

    /// Marks the end of the stream after what was written; further writes fail.
    pub(super) fn finish(&self) -> Result<(), WriteError> {
        {
            let exclusive = &mut *self.exclusive.lock();
            if matches!(exclusive.send, SendState::Finishing | SendState::Finished) {
                return Ok(());
            }
            exclusive.check_writable()?;
            exclusive.send.apply(SendInput::Finish);
            exclusive.queue.finish();
        }
        self.room.wake_all();
        self.pump();
        Ok(())
    }

    /// Finishes the stream and returns the result; `None` while the peer has not acknowledged
    /// everything.
    pub(super) fn try_finish(&self) -> Option<Result<(), WriteError>> {
        match self.finish() {
            Ok(()) => self.finished(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns the result of finishing; `None` while the peer has not acknowledged everything.
    fn finished(&self) -> Option<Result<(), WriteError>> {
        self.exclusive.lock().send.finished()
    }

    /// Whether all bytes up to `offset` are completed.
    pub(crate) fn completed(&self, offset: u64) -> Option<Result<(), WriteError>> {
        let exclusive = self.exclusive.lock();
        if exclusive.queue.completed() >= offset {
            return Some(Ok(()));
        }
        match exclusive.send {
            SendState::Open | SendState::Finishing | SendState::Finished => None,
            _ => Some(exclusive.send.check_open()),
        }
    }

    pub(super) fn pending_writes(&self) -> (u64, u64) {
        let writes = self.exclusive.lock().queue.incomplete();
        (writes.count, writes.bytes)
    }

    pub(super) fn completed_offset(&self) -> u64 {
        self.exclusive.lock().queue.completed()
    }

    /// Resets the stream when the writer is dropped, unless it was finished.
    pub(super) fn writer_dropped(&self) {
        if self.exclusive.lock().send == SendState::Open {
            let _ = self.abort_write(DROPPED);
        }
    }

    /// Returns how the peer ended the stream; `None` if it has not.
    pub(super) fn stopped(&self) -> Option<Result<Option<u64>, WriteError>> {
        Some(match self.exclusive.lock().send.finished()? {
            Ok(()) => Ok(None),
            Err(WriteError::Stopped(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        })
    }

    pub(super) fn queued(&self) -> u64 {
        self.exclusive.lock().queue.queued()
    }

    pub(super) fn abort_write(&self, code: u64) -> Result<(), WriteError> {
        let (what, _given_up, _ticket) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.send == SendState::None {
                return Err(WriteError::Closed);
            }
            if !exclusive.send.apply(SendInput::Abort) {
                return Ok(());
            }
            if exclusive.start == StartState::Started {
                (Abort::Send, exclusive.queue.cut(), None)
            } else {
                // While a start is in progress, its completion handles the ticket.
                let ticket = exclusive.ticket.take_if(|_| exclusive.start == StartState::Idle);
                exclusive.start = StartState::Failed(StartError::Closed);
                exclusive.receive.apply(ReceiveInput::Stop);
                (Abort::Everything, exclusive.queue.cut(), ticket)
            }
        };
        self.native.abort(what, code);
        if what == Abort::Everything {
            self.start_waker.wake();
            self.wake_readers();
        }
        self.wake_writers();
        Ok(())
    }

    /// Submits batches until none is due.
    pub(super) fn pump(&self) {
        loop {
            let Some(batch) = self.exclusive.lock().queue.next_batch() else { return };
            let sent = self.native.send(batch.data, batch.fin);
            let (failed, _given_up) = {
                let exclusive = &mut *self.exclusive.lock();
                exclusive.queue.submitted(sent.is_ok());
                match sent {
                    Ok(()) => (false, None),
                    // The stream or the connection is ending. Writers wait for the event that says
                    // why.
                    Err(Status::ABORTED | Status::INVALID_STATE) => {
                        (false, Some(exclusive.queue.cut()))
                    }
                    Err(status) => {
                        let failed = exclusive.send.apply(SendInput::Failed(status));
                        (failed, Some(exclusive.queue.cut()))
                    }
                }
            };
            if failed {
                self.native.abort(Abort::Send, 0);
                self.wake_writers();
            }
        }
    }

    pub(super) fn wake_writers(&self) {
        self.room.wake_all();
        self.progress.wake_all();
        self.send_ended.wake_all();
    }
}

impl Exclusive {
    fn check_writable(&self) -> Result<(), WriteError> {
        match self.start {
            StartState::Idle | StartState::Starting => Err(WriteError::NotStarted),
            StartState::Started | StartState::Failed(_) | StartState::Lost => {
                self.send.check_open()
            }
        }
    }
}
