//! A libmsquic whose events a script chooses, for tests: the functions that this crate calls, and the callbacks.
//!
//! Handles are numbers. The functions record what is called. The script delivers events, of which those are refused
//! that libmsquic would not deliver then: each send completes once and in order, bytes that were not taken are offered
//! again after receiving was enabled, and the last event of a connection follows those of its streams.

mod table;

pub(super) use table::table;

use super::status::Status;
use msquic::ffi::{self, HQUIC, QUIC_BUFFER, QUIC_STATUS};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
static WORLD: Mutex<World> = Mutex::new(World::new());
/// Notified when a handle is closed.
static CLOSED: Condvar = Condvar::new();
/// Locked while a listener gets an event.
static LISTENING: Mutex<()> = Mutex::new(());

/// How long the threads of this crate may take to close what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pointer of this crate, which only its callbacks use.
#[derive(Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: C1: callbacks may come from any thread.
unsafe impl Send for Context {}

type StreamCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_STREAM_EVENT) -> QUIC_STATUS;
type ConnectionCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_CONNECTION_EVENT) -> QUIC_STATUS;

type ListenerCallback =
    unsafe extern "C" fn(HQUIC, *mut c_void, *mut ffi::QUIC_LISTENER_EVENT) -> QUIC_STATUS;

struct World {
    handles: usize,
    listeners: BTreeMap<usize, Listener>,
    /// How many listeners have had their last event.
    stops: usize,
    connections: BTreeMap<usize, Connection>,
    streams: BTreeMap<usize, Stream>,
    /// The next call that may fail does.
    fails: bool,
}

struct Listener {
    callback: Option<(ListenerCallback, Context)>,
    is_listening: bool,
    was_started: bool,
    is_closed: bool,
}

struct Connection {
    callback: Option<(ConnectionCallback, Context)>,
    is_started: bool,
    is_judged: bool,
    is_connected: bool,
    is_closing: bool,
    /// The close of the peer or of the transport was reported, which may overlap with a close by this side.
    is_initiated: bool,
    is_complete: bool,
    is_closed: bool,
    /// The sends that are not in their final state, and whether they were sent.
    datagrams: VecDeque<(Context, bool)>,
}

#[derive(PartialEq, Eq)]
enum Start {
    No,
    Requested,
    Done,
    Failed,
}

struct Stream {
    connection: usize,
    callback: Option<(StreamCallback, Context)>,
    start: Start,
    sends: VecDeque<Context>,
    sent: Vec<u8>,
    is_fin_sent: bool,
    is_fin_acknowledged: bool,
    is_send_aborted: bool,
    is_send_over: bool,
    arrived: u64,
    taken: u64,
    is_enabled: bool,
    is_receive_aborted: bool,
    is_receive_over: bool,
    is_immediate: bool,
    is_complete: bool,
    is_closed: bool,
}

/// An event of a connection.
#[derive(Debug, Clone)]
pub(crate) enum ConnectionStep {
    Certificate(Vec<u8>),
    Connected,
    StreamsAvailable(u16, u16),
    DatagramState(Option<u16>),
    Datagram(Vec<u8>),
    /// The send with this number among those that are not settled has this state.
    DatagramSent(usize, ffi::QUIC_DATAGRAM_SEND_STATE),
    PeerStream {
        unidirectional: bool,
    },
    PeerAddress,
    ShutdownByPeer(u64),
    ShutdownByTransport(Status),
    Complete,
}

/// An event of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamStep {
    Start(Status),
    SendComplete { canceled: bool },
    IdealSendBuffer(u64),
    Receive(u64),
    PeerSendShutdown,
    PeerSendAborted(u64),
    PeerReceiveAborted(u64),
    SendShutdownComplete,
    Complete,
}

/// What a stream of the script has received and sent.
pub(crate) struct Account {
    pub(crate) sent: Vec<u8>,
    /// Whether the sending direction was neither aborted nor stopped.
    pub(crate) is_sending: bool,
    pub(crate) taken: u64,
    /// What was offered and is not taken, although the stream is read.
    pub(crate) left: u64,
    pub(crate) is_fin_acknowledged: bool,
}

/// The byte at an offset of what the peer sends.
pub(crate) fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8)) as u8
}

/// From now on this process uses the script instead of libmsquic; before anything is opened.
pub(crate) fn install() {
    IS_INSTALLED.store(true, Ordering::SeqCst);
}

pub(crate) fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::SeqCst)
}

/// Whether the next call that may fail does.
pub(crate) fn fail_next(fails: bool) {
    WORLD.lock().fails = fails;
}

pub(crate) fn connections() -> Vec<usize> {
    WORLD.lock().connections.iter().filter(|(_, it)| !it.is_complete).map(|(id, _)| *id).collect()
}

pub(crate) fn streams() -> Vec<usize> {
    WORLD.lock().streams.iter().filter(|(_, it)| !it.is_complete).map(|(id, _)| *id).collect()
}

pub(crate) fn account(stream: u64) -> Account {
    let world = WORLD.lock();
    let stream = &world.streams[&(stream as usize)];
    Account {
        sent: stream.sent.clone(),
        is_sending: !stream.is_send_aborted && !stream.is_send_over,
        taken: stream.taken,
        left: if stream.is_receive_over || stream.is_receive_aborted || stream.is_complete {
            0
        } else {
            stream.arrived - stream.taken
        },
        is_fin_acknowledged: stream.is_fin_acknowledged,
    }
}

/// Waits until all handles are closed, and forgets them.
///
/// # Panics
///
/// If some stay open.
pub(crate) fn reset() {
    let mut world = WORLD.lock();
    let is_open = |world: &mut World| {
        world.listeners.values().any(|it| !it.is_closed)
            || world.streams.values().any(|it| !it.is_closed)
            || world.connections.values().any(|it| !it.is_closed)
    };
    let result = CLOSED.wait_while_for(&mut world, is_open, CLOSE_TIMEOUT);
    assert!(!result.timed_out(), "a handle stays open");
    world.listeners.clear();
    world.stops = 0;
    world.streams.clear();
    world.connections.clear();
    world.fails = false;
}

/// Waits until a listener that is being stopped has had its last event. A thread of this crate stops it.
///
/// # Panics
///
/// If that does not happen.
pub(crate) fn wait_for_stop() {
    let mut world = WORLD.lock();
    let is_stopping = |world: &mut World| {
        // The start of a listener may have failed, which closes it without an event.
        let stopped = world.listeners.values().filter(|it| it.was_started).count();
        world.stops < stopped || world.listeners.values().any(|it| !it.is_closed)
    };
    let result = CLOSED.wait_while_for(&mut world, is_stopping, CLOSE_TIMEOUT);
    assert!(!result.timed_out(), "a listener is not stopped");
}

/// Offers a connection to the listener; false if none listens.
pub(crate) fn attempt() -> bool {
    let _one_at_a_time = LISTENING.lock();
    let (listener, (callback, context), id) = {
        let world = &mut *WORLD.lock();
        let mut listeners = world.listeners.iter().filter(|(_, it)| it.is_listening);
        let Some((listener, callback)) = listeners.next().map(|(id, it)| (*id, it.callback)) else {
            return false;
        };
        let Some(callback) = callback else { return false };
        (listener, callback, world.add_connection())
    };
    let address = super::address::to_native(([127, 0, 0, 1], 1).into());
    let alpn = b"events";
    // SAFETY: C6: zero is valid for each member.
    let (mut info, mut event): (ffi::QUIC_NEW_CONNECTION_INFO, ffi::QUIC_LISTENER_EVENT) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    info.LocalAddress = ptr::from_ref(&address).cast();
    info.RemoteAddress = ptr::from_ref(&address).cast();
    info.NegotiatedAlpn = alpn.as_ptr();
    info.NegotiatedAlpnLength = alpn.len() as u8;
    event.Type = ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_NEW_CONNECTION;
    event.__bindgen_anon_1.NEW_CONNECTION.Info = &raw const info;
    event.__bindgen_anon_1.NEW_CONNECTION.Connection = handle(id);
    // SAFETY: C6, C21: the event is valid during the call, and the last event has not come before.
    let status = Status::from_raw(unsafe { callback(handle(listener), context.0, &raw mut event) });
    if !status.is_ok() {
        WORLD.lock().connections.remove(&id); // C18: it is libmsquic's, which refuses it
    }
    true
}

/// Whether there is a connection, and all are established.
pub(crate) fn is_connected() -> bool {
    let world = WORLD.lock();
    let mut left = world.connections.values().filter(|it| !it.is_complete).peekable();
    left.peek().is_some() && left.all(|it| it.is_connected && !it.is_closing)
}

/// Starts the streams that were to start, completes their sends, and offers what has arrived. Returns whether there
/// was something to do.
pub(crate) fn settle() -> bool {
    let mut has_settled = false;
    for id in streams() {
        has_settled |= stream(id, StreamStep::Start(Status::SUCCESS));
        has_settled |= has_failed(id) && stream(id, StreamStep::Complete);
        has_settled |= stream(id, StreamStep::SendComplete { canceled: false });
        has_settled |= account(id as u64).left > 0 && stream(id, StreamStep::Receive(0));
    }
    has_settled
}

/// Whether the stream was not started. Then its last event follows.
fn has_failed(stream: usize) -> bool {
    WORLD.lock().streams.get(&stream).is_some_and(|it| it.start == Start::Failed)
}

/// Ends everything, as when a peer closes: sends are cancelled, streams get their last event, and then connections.
/// Returns whether there was something to end.
pub(crate) fn end() -> bool {
    let mut has_ended = false;
    for id in connections() {
        connection(id, ConnectionStep::ShutdownByPeer(7));
    }
    for id in streams() {
        has_ended |= stream(id, StreamStep::Start(Status::ABORTED));
        while stream(id, StreamStep::SendComplete { canceled: true }) {}
        stream(id, StreamStep::SendShutdownComplete);
        has_ended |= stream(id, StreamStep::Complete);
    }
    for id in connections() {
        while connection(id, ConnectionStep::DatagramSent(0, CANCELED)) {}
        has_ended |= connection(id, ConnectionStep::Complete);
    }
    has_ended
}

pub(crate) const SENT: ffi::QUIC_DATAGRAM_SEND_STATE =
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_SENT;
pub(crate) const CANCELED: ffi::QUIC_DATAGRAM_SEND_STATE =
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_CANCELED;
/// States after `SENT` that are final.
pub(crate) const FINAL: [ffi::QUIC_DATAGRAM_SEND_STATE; 3] = [
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_LOST_DISCARDED,
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_ACKNOWLEDGED,
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_ACKNOWLEDGED_SPURIOUS,
];

/// Delivers an event to a connection; false if libmsquic would not.
pub(crate) fn connection(id: usize, step: ConnectionStep) -> bool {
    use ConnectionStep as Step;
    let mut data = Vec::new();
    let mut peer_stream = None;
    let alpn = b"events";
    let address = super::address::to_native(([127, 0, 0, 1], 1).into());
    // SAFETY: C6: zero is valid for each member of the union.
    let mut event: ffi::QUIC_CONNECTION_EVENT = unsafe { mem::zeroed() };
    let fields = &mut event.__bindgen_anon_1;
    let (callback, context) = {
        let world = &mut *WORLD.lock();
        let has_streams = world.streams.values().any(|it| it.connection == id && !it.is_complete);
        let Some(connection) = world.connections.get_mut(&id) else { return false };
        let Some(callback) = connection.callback else { return false };
        if connection.is_complete {
            return false;
        }
        let is_up = connection.is_connected && !connection.is_closing;
        event.Type = match step {
            Step::Certificate(der)
                if connection.is_started && !connection.is_judged && !connection.is_closing =>
            {
                connection.is_judged = true;
                data = der;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED
            }
            Step::Connected
                if connection.is_judged && !connection.is_connected && !connection.is_closing =>
            {
                connection.is_connected = true;
                fields.CONNECTED.NegotiatedAlpnLength = alpn.len() as u8;
                fields.CONNECTED.NegotiatedAlpn = alpn.as_ptr();
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_CONNECTED
            }
            Step::StreamsAvailable(bidirectional, unidirectional) if is_up => {
                fields.STREAMS_AVAILABLE.BidirectionalCount = bidirectional;
                fields.STREAMS_AVAILABLE.UnidirectionalCount = unidirectional;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_STREAMS_AVAILABLE
            }
            Step::DatagramState(size) if is_up => {
                fields.DATAGRAM_STATE_CHANGED.SendEnabled = size.is_some().into();
                fields.DATAGRAM_STATE_CHANGED.MaxSendLength = size.unwrap_or(0);
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED
            }
            Step::Datagram(bytes) if is_up => {
                data = bytes;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED
            }
            Step::DatagramSent(index, state) => {
                let Some((context, was_sent)) = connection.datagrams.get_mut(index) else {
                    return false;
                };
                // Each is sent before it is acknowledged or lost, and is cancelled only before.
                if *was_sent && state == SENT || !*was_sent && FINAL.contains(&state) {
                    return false;
                }
                fields.DATAGRAM_SEND_STATE_CHANGED.ClientContext = context.0;
                fields.DATAGRAM_SEND_STATE_CHANGED.State = match state {
                    CANCELED if *was_sent => FINAL[0],
                    state => state,
                };
                *was_sent = true;
                if state != SENT {
                    connection.datagrams.remove(index);
                }
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_SEND_STATE_CHANGED
            }
            Step::PeerStream { unidirectional } if is_up => {
                peer_stream = Some(unidirectional);
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED
            }
            Step::PeerAddress if is_up => {
                fields.PEER_ADDRESS_CHANGED.Address = ptr::from_ref(&address).cast();
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_ADDRESS_CHANGED
            }
            Step::ShutdownByPeer(code) if connection.is_started && !connection.is_initiated => {
                connection.is_closing = true;
                connection.is_initiated = true;
                fields.SHUTDOWN_INITIATED_BY_PEER.ErrorCode = code;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER
            }
            Step::ShutdownByTransport(status)
                if connection.is_started && !connection.is_initiated =>
            {
                connection.is_closing = true;
                connection.is_initiated = true;
                fields.SHUTDOWN_INITIATED_BY_TRANSPORT.Status = status.to_raw();
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT
            }
            Step::Complete
                if connection.is_closing && !has_streams && connection.datagrams.is_empty() =>
            {
                connection.is_complete = true;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE
            }
            _ => return false,
        };
        if let Some(unidirectional) = peer_stream {
            let stream = world.add_stream(id, None, Start::Done);
            // A unidirectional one has no sending direction.
            world.streams.get_mut(&stream).expect("it was added").is_send_over = unidirectional;
            fields.PEER_STREAM_STARTED.Stream = handle(stream);
            fields.PEER_STREAM_STARTED.Flags = u32::from(unidirectional) as _;
            data = stream.to_ne_bytes().to_vec();
        }
        callback
    };
    let mut buffer = QUIC_BUFFER { Length: data.len() as u32, Buffer: data.as_mut_ptr() };
    let is_certificate = event.Type
        == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED;
    let fields = &mut event.__bindgen_anon_1;
    if is_certificate {
        fields.PEER_CERTIFICATE_RECEIVED.Certificate = (&raw mut buffer).cast();
    } else if event.Type == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED
    {
        fields.DATAGRAM_RECEIVED.Buffer = &raw const buffer;
    }
    // SAFETY: C6, C13: the event is valid during the call, and the last event has not come before.
    let status = Status::from_raw(unsafe { callback(handle(id), context.0, &raw mut event) });
    if peer_stream.is_some() && !status.is_ok() {
        // C18: it is libmsquic's, which closes it.
        let stream = usize::from_ne_bytes(data.try_into().expect("the number of the stream"));
        WORLD.lock().streams.remove(&stream);
    }
    if is_certificate && !status.is_ok() {
        connection(id, ConnectionStep::ShutdownByTransport(status));
    }
    true
}

/// Delivers an event to a stream; false if libmsquic would not.
pub(crate) fn stream(id: usize, step: StreamStep) -> bool {
    use StreamStep as Step;
    // SAFETY: C6: zero is valid for each member of the union.
    let mut event: ffi::QUIC_STREAM_EVENT = unsafe { mem::zeroed() };
    let fields = &mut event.__bindgen_anon_1;
    let mut bytes = Vec::new();
    let (callback, context) = {
        let world = &mut *WORLD.lock();
        let Some(stream) = world.streams.get_mut(&id) else { return false };
        let Some(callback) = stream.callback else { return false };
        let is_closing = world.connections[&stream.connection].is_closing;
        if stream.is_complete {
            return false;
        }
        let is_up = stream.start == Start::Done;
        let may_send = is_up && !stream.is_send_over;
        let may_receive = is_up && !stream.is_receive_over && !stream.is_receive_aborted;
        event.Type = match step {
            Step::Start(status) if stream.start == Start::Requested => {
                stream.start = if status.is_ok() { Start::Done } else { Start::Failed };
                fields.START_COMPLETE.Status = status.to_raw();
                fields.START_COMPLETE.ID = id as u64;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_START_COMPLETE
            }
            Step::SendComplete { canceled } if !stream.sends.is_empty() => {
                if canceled && !(stream.is_send_aborted || is_closing) {
                    return false;
                }
                let context = stream.sends.pop_front().expect("it is not empty");
                fields.SEND_COMPLETE.ClientContext = context.0;
                fields.SEND_COMPLETE.Canceled = canceled.into();
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_COMPLETE
            }
            Step::IdealSendBuffer(count) if may_send => {
                fields.IDEAL_SEND_BUFFER_SIZE.ByteCount = count;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_IDEAL_SEND_BUFFER_SIZE
            }
            Step::Receive(count) if may_receive && stream.is_enabled => {
                stream.arrived = (stream.arrived + count).min(stream.taken + MAX_OFFERED);
                stream.is_enabled = false;
                bytes = (stream.taken..stream.arrived).map(byte).collect();
                fields.RECEIVE.AbsoluteOffset = stream.taken;
                fields.RECEIVE.TotalBufferLength = bytes.len() as u64;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE
            }
            Step::PeerSendShutdown if may_receive && stream.taken == stream.arrived => {
                stream.is_receive_over = true;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_SHUTDOWN
            }
            Step::PeerSendAborted(code) if may_receive => {
                stream.is_receive_over = true;
                fields.PEER_SEND_ABORTED.ErrorCode = code;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_ABORTED
            }
            Step::PeerReceiveAborted(code) if may_send && !stream.is_send_aborted => {
                stream.is_send_aborted = true;
                fields.PEER_RECEIVE_ABORTED.ErrorCode = code;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_RECEIVE_ABORTED
            }
            Step::SendShutdownComplete if may_send && stream.sends.is_empty() => {
                let graceful = stream.is_fin_sent && !stream.is_send_aborted && !is_closing;
                if !graceful && !stream.is_send_aborted && !is_closing {
                    return false;
                }
                stream.is_send_over = true;
                stream.is_fin_acknowledged = graceful;
                fields.SEND_SHUTDOWN_COMPLETE.Graceful = graceful.into();
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_SHUTDOWN_COMPLETE
            }
            Step::Complete if stream.sends.is_empty() && stream.start != Start::Requested => {
                let has_ended =
                    stream.is_send_over && (stream.is_receive_over || stream.is_receive_aborted);
                if !has_ended
                    && !stream.is_immediate
                    && !is_closing
                    && stream.start != Start::Failed
                {
                    return false;
                }
                stream.is_complete = true;
                fields.SHUTDOWN_COMPLETE.ConnectionShutdown = is_closing.into();
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE
            }
            _ => return false,
        };
        callback
    };
    // The bytes lie in two pieces.
    let middle = bytes.len() / 2;
    let (first, second) = bytes.split_at_mut(middle);
    let buffers = [first, second]
        .map(|piece| QUIC_BUFFER { Length: piece.len() as u32, Buffer: piece.as_mut_ptr() });
    let is_receive = event.Type == ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE;
    if is_receive {
        event.__bindgen_anon_1.RECEIVE.Buffers = buffers.as_ptr();
        event.__bindgen_anon_1.RECEIVE.BufferCount = buffers.len() as u32;
    }
    // SAFETY: C6, C13: the event is valid during the call, and the last event has not come before.
    let status = unsafe { callback(handle(id), context.0, &raw mut event) };
    if is_receive {
        assert_eq!(Status::from_raw(status), Status::SUCCESS, "bytes that are copied are not held");
        // SAFETY: C6: RECEIVE is the member of the union.
        let taken = unsafe { event.__bindgen_anon_1.RECEIVE.TotalBufferLength };
        assert!(taken <= bytes.len() as u64, "more is taken than was offered");
        if let Some(stream) = WORLD.lock().streams.get_mut(&id) {
            stream.taken += taken;
            // Or it was enabled meanwhile.
            stream.is_enabled |= taken == bytes.len() as u64;
        }
    }
    true
}

/// The most that a stream offers at once.
const MAX_OFFERED: u64 = 1 << 16;

impl World {
    const fn new() -> Self {
        Self {
            handles: 0,
            listeners: BTreeMap::new(),
            stops: 0,
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            fails: false,
        }
    }

    fn add(&mut self) -> usize {
        self.handles += 1;
        self.handles
    }

    /// Adds a connection without a callback, until it is adopted.
    fn add_connection(&mut self) -> usize {
        let id = self.add();
        let connection = Connection {
            callback: None,
            is_started: false,
            is_judged: false,
            is_connected: false,
            is_closing: false,
            is_initiated: false,
            is_complete: false,
            is_closed: false,
            datagrams: VecDeque::new(),
        };
        self.connections.insert(id, connection);
        id
    }

    fn add_stream(
        &mut self,
        connection: usize,
        callback: Option<(StreamCallback, Context)>,
        start: Start,
    ) -> usize {
        let id = self.add();
        let stream = Stream {
            connection,
            callback,
            start,
            sends: VecDeque::new(),
            sent: Vec::new(),
            is_fin_sent: false,
            is_fin_acknowledged: false,
            is_send_aborted: false,
            is_send_over: false,
            arrived: 0,
            taken: 0,
            is_enabled: true,
            is_receive_aborted: false,
            is_receive_over: false,
            is_immediate: false,
            is_complete: false,
            is_closed: false,
        };
        self.streams.insert(id, stream);
        id
    }
}

fn handle(id: usize) -> HQUIC {
    ptr::without_provenance_mut(id)
}
