//! A libmsquic whose events a script chooses, for tests: the functions that this crate calls, and the callbacks.
//!
//! Handles are numbers. The functions record what is called. The script delivers events, of which those are refused
//! that libmsquic would not deliver then: each send completes once and in order, bytes that were not taken are offered
//! again after receiving was enabled, bytes that are held are returned once, and the last event of a connection follows
//! those of its streams.
//!
//! What this crate calls elsewhere than on the thread of the caller, except closes, is run by the script too.

mod faults;
mod memory;
mod table;
pub(crate) mod tickets;
mod world;

pub(crate) use faults::check_calls;
pub(super) use table::table;

use super::jobs::{Job, Jobs, Place};
use super::status::Status;
use crate::DatagramCounts;
use msquic::ffi::{self, HQUIC, QUIC_BUFFER};
use parking_lot::{Condvar, Mutex};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use world::{
    Connection, ConnectionCallback, Context, Listener, Start, Stream, StreamCallback, World,
};

static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
static WORLD: Mutex<World> = Mutex::new(World::new());
/// Notified when a handle is closed.
static CLOSED: Condvar = Condvar::new();
/// What waits for a thread that may block.
static CALLS: Mutex<Jobs> = Mutex::new(Jobs::new());
/// Locked while a listener gets an event.
static LISTENING: Mutex<()> = Mutex::new(());

/// How long the threads of this crate may take to close what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// The server's, for the next connection.
    Ticket(Vec<u8>),
    /// The state in a ticket of this side, and whether TLS uses the ticket if it is accepted.
    Resumed(Vec<u8>, bool),
    ShutdownByPeer(u64),
    ShutdownByTransport(Status),
    Complete,
}

/// An event of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamStep {
    Start(Status),
    SendComplete {
        canceled: bool,
    },
    IdealSendBuffer(u64),
    /// Further bytes, of which the last are the end.
    Receive {
        count: u64,
        is_last: bool,
    },
    /// What was not taken is offered once more, because the connection closes.
    Rest,
    PeerSendShutdown,
    PeerSendAborted(u64),
    PeerReceiveAborted(u64),
    SendShutdownComplete,
    Complete,
}

/// What a stream of the script has received and sent.
pub(crate) struct Account {
    pub(crate) sent: Vec<u8>,
    pub(crate) completed: u64,
    /// Whether the sending direction was neither aborted nor stopped.
    pub(crate) is_sending: bool,
    /// Whether the receiving direction was neither aborted nor ended.
    pub(crate) is_receiving: bool,
    /// How many bytes were offered, and taken or held.
    pub(crate) received: u64,
    /// How many bytes are held.
    pub(crate) held: u64,
    /// What was offered and is not taken, although the stream is read.
    pub(crate) left: u64,
    pub(crate) is_fin_sent: bool,
    pub(crate) is_fin_acknowledged: bool,
    pub(crate) is_complete: bool,
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
    let is_receiving = !stream.is_receive_over && !stream.is_receive_aborted && !stream.is_complete;
    Account {
        sent: stream.sent.clone(),
        completed: stream.completed,
        is_sending: !stream.is_send_aborted && !stream.is_send_over && !stream.is_complete,
        is_receiving,
        received: stream.memory.offered(),
        held: stream.memory.held(),
        left: if is_receiving { stream.memory.left() } else { 0 },
        is_fin_sent: stream.is_fin_sent,
        is_fin_acknowledged: stream.is_fin_acknowledged,
        is_complete: stream.is_complete,
    }
}

/// What has become of the datagrams of a connection.
pub(crate) fn datagrams(connection: usize) -> DatagramCounts {
    WORLD.lock().connections[&connection].counts
}

/// The streams of the peer that have ended, and whether they are closed.
pub(crate) fn ended_peer_streams(connection: usize) -> Vec<(usize, bool)> {
    let world = WORLD.lock();
    let is_ended = |it: &&Stream| it.connection == connection && it.is_of_peer && it.is_complete;
    let streams = world.streams.iter().filter(|(_, it)| is_ended(it));
    streams.map(|(id, it)| (*id, it.is_closed)).collect()
}

/// Adds a call to those that wait for a thread.
pub(super) fn add_call(call: Job) -> Place {
    CALLS.lock().push(call)
}

/// Removes a call, unless it has begun.
pub(super) fn cancel_call(place: Place) {
    let call = CALLS.lock().remove(place);
    drop(call);
}

/// Runs the next call that waits for a thread; false if none does.
pub(crate) fn run_call() -> bool {
    let call = CALLS.lock().pop();
    call.map(|call| call()).is_some()
}

/// The connections that were started, with their tickets.
pub(crate) fn started() -> Vec<(usize, Option<Vec<u8>>)> {
    let world = WORLD.lock();
    let started = world.connections.iter().filter(|(_, it)| it.is_started);
    started.map(|(id, it)| (*id, it.tickets.ticket.clone())).collect()
}

/// The states in the tickets that were issued, with the connections.
pub(crate) fn issued() -> Vec<(usize, Vec<u8>)> {
    let world = WORLD.lock();
    let issued =
        world.connections.iter().filter_map(|(id, it)| Some((*id, it.tickets.issued.clone()?)));
    issued.collect()
}

/// Whether a handshake that was completed has resumed a session; `None` if there is none.
pub(crate) fn is_resumed(connection: usize) -> Option<bool> {
    let world = WORLD.lock();
    let connection = world.connections.get(&connection).filter(|it| it.is_connected)?;
    Some(connection.tickets.is_resumed)
}

/// Forgets all handles, which are closed.
pub(crate) fn reset() {
    wait_until_closed();
    check_calls();
    let mut world = WORLD.lock();
    world.listeners.clear();
    world.stops = 0;
    world.streams.clear();
    world.connections.clear();
    world.fails = false;
}

/// Waits until all handles are closed.
///
/// # Panics
///
/// If some stay open.
pub(crate) fn wait_until_closed() {
    wait_for("a handle stays open", |world| {
        world.listeners.values().any(|it| !it.is_closed)
            || world.streams.values().any(|it| !it.is_closed)
            || world.connections.values().any(|it| !it.is_closed)
    });
}

/// Waits until a stream is closed.
///
/// # Panics
///
/// If it stays open.
pub(crate) fn wait_until_stream_closed(stream: u64) {
    let id = stream as usize;
    wait_for("a stream stays open", |world| world.streams.get(&id).is_some_and(|it| !it.is_closed));
}

/// Waits while the threads of this crate close handles.
fn wait_for(failure: &str, mut is_open: impl FnMut(&mut World) -> bool) {
    let mut world = WORLD.lock();
    let result = CLOSED.wait_while_for(&mut world, &mut is_open, CLOSE_TIMEOUT);
    assert!(!result.timed_out(), "{failure}");
}

/// Waits until a listener that is being stopped has had its last event. A thread of this crate stops it.
///
/// # Panics
///
/// If that does not happen.
pub(crate) fn wait_for_stop() {
    wait_for("a listener is not stopped", |world| {
        // The start of a listener may have failed, which closes it without an event.
        let stopped = world.listeners.values().filter(|it| it.was_started).count();
        world.stops < stopped || world.listeners.values().any(|it| !it.is_closed)
    });
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
        let id = world.add_connection();
        world.connections.get_mut(&id).expect("it was added").tickets.is_server = true;
        (listener, callback, id)
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

/// Completes the handshakes in progress, and ends the connections that are closing. Those that are left are established,
/// or were not started.
pub(crate) fn finish(certificate: &[u8]) {
    for id in connections() {
        connection(id, ConnectionStep::Certificate(certificate.to_vec()));
        connection(id, ConnectionStep::Connected);
        if is_closing(id) {
            end_connection(id);
        }
    }
}

fn is_closing(connection: usize) -> bool {
    WORLD.lock().connections.get(&connection).is_some_and(|it| it.is_closing)
}

/// Starts the streams that were to start, completes their sends and the datagrams, and offers what has arrived. Returns
/// whether there was something to do.
pub(crate) fn settle() -> bool {
    let mut has_settled = run_call();
    for id in connections() {
        has_settled |= connection(id, ConnectionStep::DatagramSent(0, SENT))
            || connection(id, ConnectionStep::DatagramSent(0, FINAL[1]));
    }
    for id in streams() {
        has_settled |= stream(id, StreamStep::Start(Status::SUCCESS));
        has_settled |= has_failed(id) && stream(id, StreamStep::Complete);
        // Cancelled where that is possible.
        has_settled |= stream(id, StreamStep::SendComplete { canceled: true })
            || stream(id, StreamStep::SendComplete { canceled: false });
        let Account { left, .. } = account(id as u64);
        has_settled |= left > 0 && stream(id, StreamStep::Receive { count: 0, is_last: false });
        has_settled |= has_fin(id) && stream(id, StreamStep::PeerSendShutdown);
    }
    has_settled
}

/// Whether the end has arrived, which is reported once all bytes are taken.
fn has_fin(stream: usize) -> bool {
    WORLD.lock().streams.get(&stream).is_some_and(|it| it.is_fin_arrived)
}

/// Whether the stream was not started. Then its last event follows.
fn has_failed(stream: usize) -> bool {
    WORLD.lock().streams.get(&stream).is_some_and(|it| it.start == Start::Failed)
}

/// Ends everything, as when a peer closes: sends are cancelled, streams get their last event, and then connections.
/// Returns whether there was something to end.
pub(crate) fn end() -> bool {
    let mut has_ended = run_call();
    for id in connections() {
        connection(id, ConnectionStep::ShutdownByPeer(7));
    }
    for id in connections() {
        has_ended |= end_connection(id);
    }
    has_ended
}

fn end_connection(id: usize) -> bool {
    let is_its = |stream: &usize| WORLD.lock().streams[stream].connection == id;
    let mut has_ended = false;
    for id in streams().into_iter().filter(is_its) {
        has_ended |= stream(id, StreamStep::Start(Status::ABORTED));
        while stream(id, StreamStep::SendComplete { canceled: true }) {}
        stream(id, StreamStep::SendShutdownComplete);
        has_ended |= stream(id, StreamStep::Complete);
    }
    while connection(id, ConnectionStep::DatagramSent(0, CANCELED)) {}
    has_ended | connection(id, ConnectionStep::Complete)
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
    let is_used = matches!(step, Step::Resumed(_, true));
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
                fields.CONNECTED.SessionResumed = connection.tickets.is_resumed.into();
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
                connection.counts.received += 1;
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
                let counts = &mut connection.counts;
                // SAFETY: C6: it was just written.
                *match unsafe { fields.DATAGRAM_SEND_STATE_CHANGED.State } {
                    SENT => &mut counts.sent,
                    CANCELED => &mut counts.canceled,
                    state if state == FINAL[0] => &mut counts.lost,
                    _ => &mut counts.acknowledged,
                } += 1;
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
            Step::Ticket(ticket) if is_up && !connection.tickets.is_server => {
                data = ticket;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMPTION_TICKET_RECEIVED
            }
            Step::Resumed(state, _)
                if connection.is_started
                    && connection.tickets.is_server
                    && !connection.is_judged
                    && !connection.is_closing =>
            {
                data = state;
                ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMED
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
            let added = world.streams.get_mut(&stream).expect("it was added");
            added.is_of_peer = true;
            // A unidirectional one has no sending direction.
            added.is_send_over = unidirectional;
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
    if event.Type
        == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMPTION_TICKET_RECEIVED
    {
        fields.RESUMPTION_TICKET_RECEIVED.ResumptionTicket = data.as_ptr();
        fields.RESUMPTION_TICKET_RECEIVED.ResumptionTicketLength = data.len() as u32;
    } else if event.Type == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMED {
        fields.RESUMED.ResumptionState = data.as_ptr();
        fields.RESUMED.ResumptionStateLength = data.len() as u16;
    } else if is_certificate {
        fields.PEER_CERTIFICATE_RECEIVED.Certificate = (&raw mut buffer).cast();
    } else if event.Type == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED
    {
        fields.DATAGRAM_RECEIVED.Buffer = &raw const buffer;
    }
    // SAFETY: C6, C13: the event is valid during the call, and the last event has not come before.
    let status = Status::from_raw(unsafe { callback(handle(id), context.0, &raw mut event) });
    if peer_stream.is_some() && !status.is_ok() {
        // C18: it is libmsquic's, which closes it.
        let stream = usize::from_ne_bytes(data[..].try_into().expect("the number of the stream"));
        WORLD.lock().streams.remove(&stream);
    }
    if let Some(connection) = WORLD.lock().connections.get_mut(&id) {
        match event.Type {
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_CONNECTED => {
                connection.tickets.check();
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMED => {
                connection.tickets.is_resumed = status.is_ok() && is_used;
                connection.tickets.accepted = status.is_ok().then_some(data);
            }
            _ => {}
        }
    }
    if is_certificate && !status.is_ok() {
        connection(id, ConnectionStep::ShutdownByTransport(status));
    }
    true
}

/// Offers the state in a ticket to a server's connection. Returns whether it was accepted; `None` if libmsquic would
/// not offer it.
pub(crate) fn resume(id: usize, state: &[u8], is_used: bool) -> Option<bool> {
    let is_offered = connection(id, ConnectionStep::Resumed(state.to_vec(), is_used));
    is_offered.then(|| WORLD.lock().connections[&id].tickets.accepted.is_some())
}

/// Delivers an event to a stream; false if libmsquic would not.
pub(crate) fn stream(id: usize, step: StreamStep) -> bool {
    use StreamStep as Step;
    // SAFETY: C6: zero is valid for each member of the union.
    let mut event: ffi::QUIC_STREAM_EVENT = unsafe { mem::zeroed() };
    let fields = &mut event.__bindgen_anon_1;
    let (mut buffers, mut offset) = (Vec::new(), 0);
    let is_rest = matches!(step, Step::Rest);
    if matches!(step, Step::Complete) {
        stream(id, Step::Rest);
    }
    let (callback, context) = {
        let world = &mut *WORLD.lock();
        let Some(stream) = world.streams.get_mut(&id) else { return false };
        let Some(callback) = stream.callback else { return false };
        let connection = &world.connections[&stream.connection];
        let (is_closing, was_connected) = (connection.is_closing, connection.is_connected);
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
                let (context, length) = stream.sends.pop_front().expect("it is not empty");
                stream.completed += if canceled { 0 } else { length as u64 };
                fields.SEND_COMPLETE.ClientContext = context.0;
                fields.SEND_COMPLETE.Canceled = canceled.into();
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_COMPLETE
            }
            Step::IdealSendBuffer(count) if may_send => {
                fields.IDEAL_SEND_BUFFER_SIZE.ByteCount = count;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_IDEAL_SEND_BUFFER_SIZE
            }
            Step::Receive { count, is_last } if may_receive && stream.is_enabled => {
                let memory = &mut stream.memory;
                let left = if stream.is_fin_arrived { 0 } else { MAX_OFFERED - memory.left() };
                let count = count.min(left);
                let has_new = stream.receives_several && count + memory.left() > 0;
                if memory.held() > 0 && !has_new {
                    return false; // C32
                }
                memory.arrive(count, byte);
                stream.is_fin_arrived |= is_last;
                stream.is_enabled = false;
                (offset, buffers) = offer(stream, &mut event);
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE
            }
            // C44: behind bytes that are held only where several receives are possible.
            Step::Rest
                if may_receive
                    && is_closing
                    && was_connected
                    && stream.memory.left() > 0
                    && (stream.receives_several || stream.memory.held() == 0) =>
            {
                (offset, buffers) = offer(stream, &mut event);
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE
            }
            Step::PeerSendShutdown
                if may_receive && stream.memory.left() + stream.memory.held() == 0 =>
            {
                stream.is_fin_arrived = true;
                stream.is_receive_over = true;
                ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_SHUTDOWN
            }
            Step::PeerSendAborted(code) if may_receive => {
                stream.is_receive_over = true;
                stream.is_reset = true;
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
    let is_receive = event.Type == ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE;
    if is_receive {
        event.__bindgen_anon_1.RECEIVE.Buffers = buffers.as_ptr();
        event.__bindgen_anon_1.RECEIVE.BufferCount = buffers.len() as u32;
    }
    // SAFETY: C6, C13: the event is valid during the call, and the last event has not come before.
    let status = unsafe { callback(handle(id), context.0, &raw mut event) };
    if is_receive {
        // SAFETY: C6: RECEIVE is the member of the union.
        let taken = unsafe { event.__bindgen_anon_1.RECEIVE.TotalBufferLength };
        answer(id, Status::from_raw(status), offset, taken, !buffers.is_empty());
    }
    if is_rest {
        let Account { left, .. } = account(id as u64);
        assert_eq!(left, 0, "what is not taken now is lost");
    }
    true
}

/// Offers what is left. Returns its offset.
fn offer(stream: &mut Stream, event: &mut ffi::QUIC_STREAM_EVENT) -> (u64, Vec<QUIC_BUFFER>) {
    let offset = stream.memory.offered();
    let buffers = stream.memory.offer();
    let receive = ffi::QUIC_STREAM_EVENT__bindgen_ty_1__bindgen_ty_2 {
        AbsoluteOffset: offset,
        TotalBufferLength: stream.memory.offered() - offset,
        Buffers: ptr::null(),
        BufferCount: 0,
        Flags: if stream.is_fin_arrived {
            ffi::QUIC_RECEIVE_FLAGS_QUIC_RECEIVE_FLAG_FIN
        } else {
            ffi::QUIC_RECEIVE_FLAGS_QUIC_RECEIVE_FLAG_NONE
        },
    };
    event.__bindgen_anon_1.RECEIVE = receive;
    (offset, buffers)
}

/// The answer to a RECEIVE with what was left from `offset` on.
fn answer(id: usize, status: Status, offset: u64, taken: u64, has_bytes: bool) {
    let world = &mut *WORLD.lock();
    let Some(stream) = world.streams.get_mut(&id) else { return };
    if status == Status::PENDING {
        assert!(has_bytes, "a receive without bytes is held"); // C32
        stream.is_enabled = true;
        return;
    }
    assert_eq!(status, Status::SUCCESS);
    stream.memory.take(offset, taken);
    // Or it was enabled meanwhile.
    stream.is_enabled |= stream.memory.left() == 0;
}

/// The most that a stream offers at once.
const MAX_OFFERED: u64 = 1 << 16;

fn handle(id: usize) -> HQUIC {
    ptr::without_provenance_mut(id)
}
