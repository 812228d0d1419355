//! The sink of a stream, the thread of its events, and threads that resume, set or stop it.

use super::inner::StreamInner;
use super::sink::{ReceiveEnd, ReceiveSink};
use super::streams::{event, offer, stream};
use crate::ffi::receive::Received;
use crate::ffi::stream::{StreamEvent, StreamHandler};
use crate::support::Model;
use crate::{deep_model, model};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;

pub(crate) const MODELS: &[Model] = &[
    ("a_sink_that_is_resumed_gets_each_byte_once", a_sink_that_is_resumed_gets_each_byte_once),
    ("a_sink_gets_held_bytes_once", a_sink_gets_held_bytes_once),
    ("a_sink_that_is_set_late_gets_all", a_sink_that_is_set_late_gets_all),
    (
        "a_sink_that_is_stopped_while_it_runs_gets_its_end",
        a_sink_that_is_stopped_while_it_runs_gets_its_end,
    ),
    ("a_stopped_sink_gets_its_end_once", a_stopped_sink_gets_its_end_once),
];

/// What a sink has received. It has room for some bytes, which a reader takes.
#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    room: usize,
    received: Vec<u8>,
    ends: Vec<ReceiveEnd>,
}

struct Sink(Arc<Inbox>);

impl Inbox {
    fn new(room: usize) -> Arc<Self> {
        let state = Mutex::new(State { room, ..State::default() });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    /// Takes what waits; `None` after the end.
    fn take(&self) -> Option<()> {
        let mut state = self.state.lock().unwrap();
        while state.waiting.is_empty() && state.ends.is_empty() {
            state = self.changed.wait(state).unwrap();
        }
        if state.waiting.is_empty() {
            return None;
        }
        let taken = std::mem::take(&mut state.waiting);
        state.received.extend(taken);
        Some(())
    }

    fn assert(&self, received: &[u8], end: &ReceiveEnd) {
        let state = self.state.lock().unwrap();
        assert_eq!([&state.received[..], &state.waiting].concat(), received);
        assert_eq!(state.ends, std::slice::from_ref(end));
    }
}

impl ReceiveSink for Sink {
    fn receive(&mut self, data: &[u8]) -> usize {
        let state = &mut *self.0.state.lock().unwrap();
        assert!(state.ends.is_empty(), "bytes after the end");
        let taken = data.len().min(state.room - state.waiting.len());
        state.waiting.extend(&data[..taken]);
        self.0.changed.notify_all();
        taken
    }

    fn end(&mut self, end: ReceiveEnd) {
        self.0.state.lock().unwrap().ends.push(end);
        self.0.changed.notify_all();
    }
}

/// A thread that takes what the sink has received, and resumes it.
fn reader(stream: &Arc<StreamInner>, inbox: &Arc<Inbox>) -> thread::JoinHandle<()> {
    let (stream, inbox) = (stream.clone(), inbox.clone());
    thread::spawn(move || {
        while inbox.take().is_some() {
            stream.resume_sink();
        }
    })
}

fn a_sink_that_is_resumed_gets_each_byte_once() {
    deep_model(|| {
        let (stream, inbox) = (stream(100), Inbox::new(1));
        assert!(stream.set_sink(Box::new(Sink(inbox.clone()))).is_ok());
        let reader = reader(&stream, &inbox);
        offer(&stream, b"abc");
        event(&stream, StreamEvent::PeerSendShutdown);
        reader.join().unwrap();
        inbox.assert(b"abc", &ReceiveEnd::Finished);
    });
}

fn a_sink_gets_held_bytes_once() {
    deep_model(|| {
        let (stream, inbox) = (stream(100), Inbox::new(1));
        assert!(stream.set_sink(Box::new(Sink(inbox.clone()))).is_ok());
        let reader = reader(&stream, &inbox);
        stream.on_receive(Received { bytes: b"ab", is_copied: false, is_last: false });
        stream.on_receive(Received { bytes: b"c", is_copied: false, is_last: true });
        reader.join().unwrap();
        inbox.assert(b"abc", &ReceiveEnd::Finished);
    });
}

fn a_sink_that_is_set_late_gets_all() {
    model(|| {
        let (stream, inbox) = (stream(100), Inbox::new(100));
        let setter = thread::spawn({
            let (stream, inbox) = (stream.clone(), inbox.clone());
            move || assert!(stream.set_sink(Box::new(Sink(inbox))).is_ok())
        });
        offer(&stream, b"ab");
        event(&stream, StreamEvent::PeerSendShutdown);
        setter.join().unwrap();
        inbox.assert(b"ab", &ReceiveEnd::Finished);
    });
}

fn a_sink_that_is_stopped_while_it_runs_gets_its_end() {
    model(|| {
        let (stream, inbox) = (stream(100), Inbox::new(100));
        assert!(stream.set_sink(Box::new(Sink(inbox.clone()))).is_ok());
        let stopper = thread::spawn({
            let stream = stream.clone();
            move || stream.abort_read(1)
        });
        offer(&stream, b"ab");
        assert!(stopper.join().unwrap().is_ok());
        assert_eq!(inbox.state.lock().unwrap().ends.len(), 1);
    });
}

fn a_stopped_sink_gets_its_end_once() {
    deep_model(|| {
        let (stream, inbox) = (stream(100), Inbox::new(1));
        assert!(stream.set_sink(Box::new(Sink(inbox.clone()))).is_ok());
        let resumer = thread::spawn({
            let (stream, inbox) = (stream.clone(), inbox.clone());
            move || {
                let _ = inbox.take();
                stream.resume_sink();
            }
        });
        let stopper = thread::spawn({
            let stream = stream.clone();
            move || stream.abort_read(1)
        });
        let taken = stream.on_receive(Received { bytes: b"ab", is_copied: true, is_last: false });
        assert!(taken <= 2);
        event(&stream, StreamEvent::PeerSendShutdown);
        assert!(stopper.join().unwrap().is_ok());
        resumer.join().unwrap();
        let state = inbox.state.lock().unwrap();
        assert_eq!(state.ends.len(), 1);
    });
}
