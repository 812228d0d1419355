//! The events of one handle, as the callbacks record them, and how a test answers them.

use super::callbacks::{on_connection_event, on_stream_event};
use super::handles::{Kind, Object, Open};
use crate::ffi::Handle;
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use msquic::ffi;
use parking_lot::Mutex;
use std::cell::Cell;
use std::ffi::c_void;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How long a test waits for an event before it fails.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a test checks that something does not happen. A shorter time only makes it miss more.
pub(super) const MOMENT: Duration = Duration::from_millis(50);

/// An event with copies of what it points to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Connected {
        resumed: bool,
    },
    ShutdownByTransport {
        status: Status,
        code: u64,
    },
    ShutdownByPeer {
        code: u64,
    },
    ConnectionOver {
        app_close: bool,
    },
    PeerStream {
        handle: Handle,
    },
    StreamsAvailable,
    DatagramState {
        max: Option<u16>,
    },
    Datagram(Vec<u8>),
    DatagramSend {
        context: usize,
        state: ffi::QUIC_DATAGRAM_SEND_STATE,
    },
    Certificate(Option<Vec<u8>>),
    Resumed,
    Ticket(Vec<u8>),
    Started {
        status: Status,
        accepted: bool,
    },
    PeerAccepted,
    Received {
        data: Vec<u8>,
        fin: bool,
        first: usize,
    },
    Sent {
        context: usize,
        canceled: bool,
    },
    PeerSendShutdown,
    PeerSendAborted {
        code: u64,
    },
    PeerReceiveAborted {
        code: u64,
    },
    SendOver {
        graceful: bool,
    },
    StreamOver {
        by_connection: bool,
        app_close: bool,
    },
    NewConnection {
        handle: Handle,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
    },
    StopComplete {
        app_close: bool,
    },
    /// Of no interest here.
    Other(u32),
}

impl Event {
    /// Whether no event of the handle may follow (C13).
    pub(super) fn is_last(&self) -> bool {
        matches!(
            self,
            Self::ConnectionOver { .. } | Self::StreamOver { .. } | Self::StopComplete { .. }
        )
    }
}

/// An event, with its thread and order.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) event: Event,
    pub(super) thread: ThreadId,
    /// Incremented with each event of the process.
    pub(super) order: u64,
}

/// What a callback does to the native event.
pub(super) struct Answer {
    pub(super) status: ffi::QUIC_STATUS,
    /// For RECEIVE: how many bytes were taken, if not all.
    pub(super) taken: Option<u64>,
    /// For PEER_STREAM_STARTED: sets DELAY_ID_FC_UPDATES.
    pub(super) delays_credit: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: ffi::QUIC_STATUS_SUCCESS, taken: None, delays_credit: false }
    }
}

impl Answer {
    pub(super) fn status(status: Status) -> Self {
        Self { status: status.to_raw(), ..Self::default() }
    }

    pub(super) fn taken(bytes: u64) -> Self {
        Self { taken: Some(bytes), ..Self::default() }
    }
}

/// A running callback. API calls with its handle run inline.
pub(super) struct Call<'a> {
    handle: Handle,
    pub(super) event: &'a Event,
}

// SAFETY: C4: a handle that has events is open, and stays so during the callback unless the test closes it there.
unsafe impl Open for Call<'_> {
    fn handle(&self) -> Handle {
        self.handle
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        job()
    }
}

impl Call<'_> {
    /// Takes ownership of the connection or stream that the event offers; `react` answers its events from now on.
    pub(super) fn adopt(
        &self,
        react: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static,
    ) -> Object {
        let (handle, kind) = match *self.event {
            Event::NewConnection { handle, .. } => (handle, Kind::Connection),
            Event::PeerStream { handle } => (handle, Kind::Stream),
            ref event => panic!("{event:?} offers nothing"),
        };
        let (recorder, events) = Recorder::create(react);
        let function = match kind {
            Kind::Connection => on_connection_event as *mut c_void,
            _ => on_stream_event as *mut c_void,
        };
        // SAFETY: C13, C18: before any event of the offered handle; the context is never freed.
        unsafe { call!(SetCallbackHandler(handle.0, function, recorder)) };
        Object::new(handle, kind, events)
    }
}

/// Receives the events of one handle.
pub(super) struct Events(mpsc::Receiver<Seen>);

impl Events {
    /// The next event.
    #[track_caller]
    pub(super) fn next(&self) -> Seen {
        match self.0.recv_timeout(TIMEOUT) {
            Ok(seen) => seen,
            Err(error) => panic!("no event: {error}"),
        }
    }

    /// The next event that `is_wanted`; those before it are dropped.
    #[track_caller]
    pub(super) fn until(&self, is_wanted: impl Fn(&Event) -> bool) -> Seen {
        let mut before = Vec::new();
        loop {
            match self.0.recv_timeout(TIMEOUT) {
                Ok(seen) if is_wanted(&seen.event) => return seen,
                Ok(seen) => before.push(seen.event),
                Err(error) => panic!("{error} after {before:?}"),
            }
        }
    }

    /// All events up to the last one.
    #[track_caller]
    pub(super) fn all(&self) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            all.push(self.next());
            if all.last().is_some_and(|seen| seen.event.is_last()) {
                return all;
            }
        }
    }

    /// The events that have arrived and were not received yet.
    pub(super) fn so_far(&self) -> Vec<Event> {
        self.0.try_iter().map(|seen| seen.event).collect()
    }
}

type React = Box<dyn Fn(&Call<'_>) -> Answer + Send + Sync>;

/// The context of a handle.
pub(super) struct Recorder {
    events: mpsc::Sender<Seen>,
    react: React,
}

static ORDER: AtomicU64 = AtomicU64::new(0);

/// Contexts are kept until the end of the process, so that an event after the last one is seen and
/// does no harm.
static RECORDERS: Mutex<Vec<Arc<Recorder>>> = Mutex::new(Vec::new());

impl Recorder {
    /// A context, and the events that come with it.
    pub(super) fn create(
        react: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static,
    ) -> (*mut c_void, Events) {
        let (sender, events) = mpsc::channel();
        let recorder = Arc::new(Self { events: sender, react: Box::new(react) });
        let context = Arc::as_ptr(&recorder).cast_mut().cast();
        RECORDERS.lock().push(recorder);
        (context, Events(events))
    }

    pub(super) fn record(&self, handle: ffi::HQUIC, event: Event) -> Answer {
        let order = ORDER.fetch_add(1, Ordering::SeqCst);
        let seen = Seen { event: event.clone(), thread: thread::current().id(), order };
        let _ = self.events.send(seen); // the test may be over
        inside(|| (self.react)(&Call { handle: Handle(handle), event: &event }))
    }
}

thread_local! {
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `job` where calls that would wait run inline.
pub(super) fn inside<T>(job: impl FnOnce() -> T) -> T {
    let was_inside = IS_INSIDE.replace(true);
    let result = job();
    IS_INSIDE.set(was_inside);
    result
}

/// Whether this thread is inside a callback, or between two turns of the driver.
pub(super) fn is_inside() -> bool {
    IS_INSIDE.get()
}
