//! The handling of msquic's events for a stream.

use super::error::StartError;
use super::inner::{SinkSlot, StreamInner};
use super::state::{ReceiveInput, SendInput, StartState};
use crate::ffi::calls::Calls;
use crate::ffi::receive::Received;
use crate::ffi::status::Status;
use crate::ffi::stream::{Abort, StreamEvent, StreamHandler};
use std::sync::Arc;

impl StreamHandler for StreamInner {
    fn on_event(self: &Arc<Self>, event: StreamEvent, calls: Calls<'_>) {
        match event {
            StreamEvent::StartComplete { status, id } => {
                self.handle_event_start_complete(status, id);
            }
            StreamEvent::SendComplete { canceled } => self.handle_event_send_complete(canceled),
            StreamEvent::IdealSendBuffer { bytes } => self.handle_event_ideal_send_buffer(bytes),
            StreamEvent::PeerSendShutdown => self.handle_event_receive_end(ReceiveInput::Finished),
            StreamEvent::PeerSendAborted { code } => {
                self.handle_event_receive_end(ReceiveInput::Reset(code));
            }
            StreamEvent::PeerReceiveAborted { code } => {
                self.handle_event_send_end(SendInput::StoppedByPeer(code));
            }
            StreamEvent::SendShutdownComplete { graceful: true } => {
                self.handle_event_send_end(SendInput::Acknowledged);
            }
            StreamEvent::SendShutdownComplete { graceful: false } => {}
            StreamEvent::ShutdownComplete { connection } => {
                self.handle_event_shutdown_complete(connection, calls);
            }
        }
    }

    fn on_receive(self: &Arc<Self>, received: Received<'_>) -> usize {
        if received.is_copied() {
            self.handle_event_receive_now(&received)
        } else {
            let length = received.length();
            self.handle_event_receive_held(received);
            length
        }
    }
}

impl StreamInner {
    fn handle_event_start_complete(&self, status: Status, id: u64) {
        if !status.is_ok() {
            return self.start_failed(status);
        }
        self.set_id(id);
        self.connection.count_opened(self.stream_type);
        let (ticket, stop) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.start == StartState::Starting {
                exclusive.start = StartState::Started;
            }
            (exclusive.ticket.take(), exclusive.stop.take())
        };
        if let Some(ticket) = ticket {
            ticket.spend();
        }
        if let Some(code) = stop {
            self.native.abort(Abort::Receive, code);
        }
        self.start_waker.wake();
    }

    fn handle_event_ideal_send_buffer(&self, bytes: u64) {
        let most = self.max_send_buffer;
        let ideal = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.exclusive.lock().queue.grow(ideal, most);
        self.pump();
        self.room.wake_one();
    }

    fn handle_event_send_complete(&self, canceled: bool) {
        let (completed, has_room) = {
            let exclusive = &mut *self.exclusive.lock();
            if canceled {
                exclusive.queue.cancel();
            } else {
                exclusive.queue.complete();
            }
            (exclusive.queue.completed(), exclusive.queue.room() > 0)
        };
        self.pump();
        self.progress.wake_up_to(completed);
        if has_room {
            self.room.wake_one();
        }
    }

    /// Copies what the queue or the sink takes. The rest stays with msquic, which offers it again
    /// once receiving is resumed. When the connection is closing it is offered for the last time
    /// (C44), and the queue takes what the sink leaves.
    fn handle_event_receive_now(&self, received: &Received<'_>) -> usize {
        let is_rest = self.connection.is_closing();
        let mut exclusive = self.exclusive.lock();
        if !exclusive.receive.is_open() {
            return received.length(); // discarded: the stream is not read
        }
        // A paused sink is offered nothing; the queue keeps the last bytes of a closing connection.
        let is_paused = !exclusive.received.is_empty() || is_rest && exclusive.received.is_paused();
        let mut sink = match std::mem::replace(&mut exclusive.sink, SinkSlot::None) {
            SinkSlot::None => {
                let taken = exclusive.received.push(received.slices(), is_rest);
                drop(exclusive);
                self.readable.wake_one();
                return taken;
            }
            SinkSlot::Idle(sink) if !is_paused => sink,
            // The sink has to take older bytes first. The thread that passes those to the sink also
            // passes the rest, or resumes receiving.
            other => {
                exclusive.sink = other;
                if is_rest {
                    return exclusive.received.push(received.slices(), true);
                }
                exclusive.received.pause();
                return 0;
            }
        };
        exclusive.sink = SinkSlot::Busy { again: false };
        drop(exclusive);

        let (mut taken, mut left) = (0, Vec::new());
        for slice in received.slices() {
            let part = if left.is_empty() { sink.receive(slice).min(slice.len()) } else { 0 };
            taken += part;
            if part < slice.len() {
                left.push(&slice[part..]);
            }
        }
        let mut exclusive = self.exclusive.lock();
        // The end: this side stopped the stream meanwhile.
        let again = matches!(exclusive.sink, SinkSlot::Busy { again: true })
            || exclusive.receive.end().is_some();
        if !left.is_empty() && exclusive.receive.is_open() && is_rest {
            taken += exclusive.received.push(left.into_iter(), true);
        } else if !left.is_empty() {
            exclusive.received.pause();
        }
        if again {
            drop(exclusive);
            self.run_sink(sink);
        } else {
            exclusive.sink = SinkSlot::Idle(sink);
        }
        taken
    }

    /// Holds all bytes, for the reader or the sink. The end is reported now, since msquic indicates
    /// it only after all bytes are completed.
    fn handle_event_receive_held(&self, received: Received<'_>) {
        let is_last = received.is_last;
        let runs = received.hold();
        let sink = {
            let exclusive = &mut *self.exclusive.lock();
            if !exclusive.receive.is_open() {
                return; // discarded: the stream is not read
            }
            // A sink that has not taken everything waits to be resumed.
            let sink = exclusive.received.is_empty().then(|| exclusive.take_sink()).flatten();
            runs.into_iter().for_each(|run| exclusive.received.hold(run));
            if is_last {
                exclusive.receive.apply(ReceiveInput::Finished);
            }
            sink
        };
        if is_last {
            self.wake_readers();
        } else {
            self.readable.wake_one();
        }
        if let Some(sink) = sink {
            self.run_sink(sink);
        }
    }

    fn handle_event_receive_end(&self, input: ReceiveInput) {
        if self.exclusive.lock().receive.apply(input) {
            self.wake_readers();
            self.end_sink();
        }
    }

    fn handle_event_send_end(&self, input: SendInput) {
        let (changed, _given_up) = {
            let exclusive = &mut *self.exclusive.lock();
            let changed = exclusive.send.apply(input);
            (changed, changed.then(|| exclusive.queue.cut()))
        };
        if changed {
            self.wake_writers();
        }
    }

    fn handle_event_shutdown_complete(&self, connection: bool, calls: Calls<'_>) {
        if connection {
            self.connection.close_reason_in_stream_event(calls);
        }
        // A stream that ends alone was aborted by this side.
        let lost = connection.then(|| self.connection.error_or_closing());
        let (_given_up, _ticket, _spent) = {
            let exclusive = &mut *self.exclusive.lock();
            // Unread bytes are copied, so that a later reader does not keep the connection open.
            exclusive.received.copy_held();
            exclusive.send.apply(match lost.clone() {
                Some(error) => SendInput::ConnectionLost(error),
                None => SendInput::Abort,
            });
            if exclusive.receive.is_open() {
                exclusive.receive.apply(match lost.clone() {
                    Some(error) => ReceiveInput::ConnectionLost(error),
                    None => ReceiveInput::Stop,
                });
            }
            if !matches!(exclusive.start, StartState::Started | StartState::Failed(_)) {
                let error = lost.map_or(StartError::Closed, StartError::ConnectionLost);
                exclusive.start = StartState::Failed(error);
            }
            (exclusive.queue.cut(), exclusive.ticket.take(), exclusive.received.take_spent())
        };
        self.start_waker.wake();
        self.wake_readers();
        self.wake_writers();
        self.end_sink();
    }
}
