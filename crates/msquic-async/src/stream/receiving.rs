//! Reading: from msquic to the queue of a stream, and from there to a reader or a sink.

use super::error::ReadError;
use super::inner::{DROPPED, Exclusive, SinkSlot, StreamInner};
use super::recv_buffer::StreamRecvBuffer;
use super::sink::{ReceiveEnd, ReceiveSink};
use super::state::{ReceiveInput, ReceiveState, StartState};
use crate::buffer::ReceiveQueue;
use crate::ffi::receive::Held;
use crate::ffi::stream::Abort;

impl Exclusive {
    /// Takes the sink to run it; `None` if there is none or another thread runs it.
    pub(super) fn take_sink(&mut self) -> Option<Box<dyn ReceiveSink>> {
        match std::mem::replace(&mut self.sink, SinkSlot::Busy { again: false }) {
            SinkSlot::Idle(sink) => Some(sink),
            other => {
                self.sink = other;
                None
            }
        }
    }
}

impl StreamInner {
    pub(super) fn try_read_chunk(&self) -> Option<Result<Option<StreamRecvBuffer>, ReadError>> {
        self.try_read(|queue| StreamRecvBuffer(queue.chunk(usize::MAX)))
    }

    /// Calls `read` to take bytes from the queue. Returns `Ok(None)` at the end of the stream,
    /// `None` when nothing has arrived.
    pub(super) fn try_read<T>(
        &self,
        read: impl FnOnce(&mut ReceiveQueue<Held>) -> T,
    ) -> Option<Result<Option<T>, ReadError>> {
        let (value, resume, has_more, _spent) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.received.is_empty() || !matches!(exclusive.sink, SinkSlot::None) {
                return Some(exclusive.receive.end()?.map(|()| None));
            }
            let received = &mut exclusive.received;
            let value = read(received);
            (value, received.resume(), !received.is_empty(), received.take_spent())
        };
        if has_more {
            self.readable.pass_on();
        }
        if resume {
            self.native.enable_receive();
        }
        Some(Ok(Some(value)))
    }

    pub(super) fn abort_read(&self, code: u64) -> Result<(), ReadError> {
        let (was_open, _spent) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.receive == ReceiveState::None {
                return Err(ReadError::Closed);
            }
            let is_started = exclusive.start == StartState::Started;
            let was_open = exclusive.receive.is_open() && is_started;
            if exclusive.receive.is_open() && !is_started {
                exclusive.stop = Some(code);
            }
            exclusive.receive.apply(ReceiveInput::Stop);
            exclusive.received.clear();
            (was_open, exclusive.received.take_spent())
        };
        if was_open {
            self.native.abort(Abort::Receive, code);
        }
        self.wake_readers();
        self.end_sink();
        Ok(())
    }

    /// Returns how the peer ended the stream; `None` if it has not.
    pub(super) fn received_reset(&self) -> Option<Result<Option<u64>, ReadError>> {
        Some(match self.exclusive.lock().receive.end()? {
            Ok(()) => Ok(None),
            Err(ReadError::Reset(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        })
    }

    pub(super) fn wake_readers(&self) {
        self.readable.wake_all();
        self.receive_ended.wake_all();
    }

    pub(super) fn set_sink(&self, sink: Box<dyn ReceiveSink>) -> Result<(), Box<dyn ReceiveSink>> {
        {
            let mut exclusive = self.exclusive.lock();
            if !matches!(exclusive.sink, SinkSlot::None) {
                return Err(sink);
            }
            exclusive.sink = SinkSlot::Busy { again: false };
        }
        self.run_sink(sink);
        Ok(())
    }

    /// Offers the bytes that the sink did not take to it again.
    pub(super) fn resume_sink(&self) {
        let sink = {
            let mut exclusive = self.exclusive.lock();
            if let SinkSlot::Busy { again } = &mut exclusive.sink {
                *again = true;
            }
            exclusive.take_sink()
        };
        if let Some(sink) = sink {
            self.run_sink(sink);
        }
    }

    /// Passes the end of the stream to the sink, unless it is paused or another thread runs it.
    pub(super) fn end_sink(&self) {
        let sink = {
            let mut exclusive = self.exclusive.lock();
            exclusive.received.is_empty().then(|| exclusive.take_sink()).flatten()
        };
        if let Some(sink) = sink {
            self.run_sink(sink);
        }
    }

    /// Runs the sink, which this thread has taken: passes the bytes in the queue and the end, if
    /// that has arrived, and resumes receiving.
    pub(super) fn run_sink(&self, mut sink: Box<dyn ReceiveSink>) {
        let mut exclusive = self.exclusive.lock();
        loop {
            exclusive.sink = SinkSlot::Busy { again: false };
            let bytes = exclusive.received.chunk(usize::MAX);
            let is_last = exclusive.received.is_empty();
            let end = exclusive.receive.end().filter(|_| is_last);
            let spent = exclusive.received.take_spent();
            drop(exclusive);
            drop(spent);

            let taken = if bytes.is_empty() { 0 } else { sink.receive(&bytes).min(bytes.len()) };
            let took_all = taken == bytes.len();
            if took_all && let Some(end) = end {
                sink.end(ReceiveEnd::from_result(end));
                self.exclusive.lock().sink = SinkSlot::Ended;
                drop(sink);
                return self.sink_ended();
            }
            let rest = bytes.slice(taken..);
            drop(bytes);

            exclusive = self.exclusive.lock();
            if exclusive.receive == ReceiveState::Stopped {
                exclusive.received.discard(rest);
            } else {
                exclusive.received.unread(rest);
            }
            // Bytes have arrived meanwhile, besides those that the sink left, or the end has.
            let has_more = if exclusive.received.is_empty() {
                exclusive.receive.end().is_some()
            } else {
                took_all
            };
            if has_more || matches!(exclusive.sink, SinkSlot::Busy { again: true }) {
                continue;
            }
            exclusive.sink = SinkSlot::Idle(sink);
            let resume = exclusive.received.is_empty() && exclusive.received.resume();
            let spent = exclusive.received.take_spent();
            drop(exclusive);
            drop(spent);
            if resume {
                self.native.enable_receive();
            }
            return;
        }
    }

    /// Releases the stream: its sink has received the end, or none could be created.
    pub(super) fn sink_ended(&self) {
        self.release();
        if let Some(id) = self.id.get()
            && !self.is_local
        {
            self.connection.sink_ended(*id);
        }
    }

    /// Sends STOP_SENDING when the reader is dropped, unless the direction has ended.
    pub(super) fn reader_dropped(&self) {
        let _ = self.abort_read(DROPPED);
    }
}
