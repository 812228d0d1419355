//! The functions of the script, in the place of those of libmsquic.

use super::faults::demand;
use super::{
    CLOSED, Connection, Context, LISTENING, Listener, Start, Stream, StreamStep, WORLD, handle,
};
use crate::ffi::scripted::{self, ConnectionCallback, StreamCallback};
use crate::ffi::status::Status;
use msquic::ffi::{self, HQUIC, QUIC_BUFFER, QUIC_STATUS};
use std::ffi::c_void;
use std::mem;
use std::sync::OnceLock;

/// The table of all functions that this crate calls.
pub(in crate::ffi) fn table() -> &'static ffi::QUIC_API_TABLE {
    static TABLE: OnceLock<ffi::QUIC_API_TABLE> = OnceLock::new();
    TABLE.get_or_init(|| {
        // SAFETY: C2: each member is an optional function.
        let mut table: ffi::QUIC_API_TABLE = unsafe { mem::zeroed() };
        table.ConfigurationClose = Some(close_nothing);
        table.ConfigurationLoadCredential = Some(load_credential);
        table.ConfigurationOpen = Some(configuration_open);
        table.ConnectionClose = Some(connection_close);
        table.ConnectionOpen = Some(connection_open);
        table.ConnectionSendResumptionTicket = Some(send_ticket);
        table.ConnectionSetConfiguration = Some(set_configuration);
        table.ConnectionShutdown = Some(connection_shutdown);
        table.ConnectionStart = Some(connection_start);
        table.DatagramSend = Some(datagram_send);
        table.ExecutionCreate = Some(execution_create);
        table.ExecutionPoll = Some(execution_poll);
        table.GetParam = Some(get_param);
        table.ListenerClose = Some(listener_close);
        table.ListenerOpen = Some(listener_open);
        table.ListenerStart = Some(listener_start);
        table.ListenerStop = Some(listener_stop);
        table.RegistrationClose = Some(close_nothing);
        table.RegistrationOpen = Some(registration_open);
        table.SetCallbackHandler = Some(set_callback_handler);
        table.SetParam = Some(set_param);
        table.StreamClose = Some(stream_close);
        table.StreamOpen = Some(stream_open);
        table.StreamReceiveComplete = Some(receive_complete);
        table.StreamReceiveSetEnabled = Some(receive_set_enabled);
        table.StreamSend = Some(stream_send);
        table.StreamShutdown = Some(stream_shutdown);
        table.StreamStart = Some(stream_start);
        table
    })
}

fn number(handle: HQUIC) -> usize {
    handle.addr()
}

const OK: QUIC_STATUS = ffi::QUIC_STATUS_SUCCESS;

unsafe extern "C" fn close_nothing(_: HQUIC) {}

unsafe extern "C" fn registration_open(
    _: *const ffi::QUIC_REGISTRATION_CONFIG,
    registration: *mut HQUIC,
) -> QUIC_STATUS {
    // SAFETY: C7: the caller's variable.
    unsafe { *registration = handle(WORLD.lock().add()) };
    OK
}

unsafe extern "C" fn configuration_open(
    _: HQUIC,
    _: *const QUIC_BUFFER,
    _: u32,
    settings: *const ffi::QUIC_SETTINGS,
    _: u32,
    _: *mut c_void,
    configuration: *mut HQUIC,
) -> QUIC_STATUS {
    let world = &mut *WORLD.lock();
    let id = world.add();
    // SAFETY: C10: the caller's settings and variable.
    unsafe {
        if (*settings).__bindgen_anon_2.__bindgen_anon_1.StreamMultiReceiveEnabled() != 0 {
            world.receive_several.insert(id);
        }
        *configuration = handle(id);
    }
    OK
}

unsafe extern "C" fn load_credential(
    _: HQUIC,
    _: *const ffi::QUIC_CREDENTIAL_CONFIG,
) -> QUIC_STATUS {
    OK
}

unsafe extern "C" fn connection_open(
    _: HQUIC,
    _: ffi::QUIC_CONNECTION_CALLBACK_HANDLER,
    _: *mut c_void,
    connection: *mut HQUIC,
) -> QUIC_STATUS {
    let world = &mut *WORLD.lock();
    let id = world.add_connection();
    // SAFETY: C13: the caller's variable.
    unsafe { *connection = handle(id) };
    OK
}

/// Whether this call fails, because the script wants the next one to.
fn takes_failure() -> bool {
    mem::take(&mut WORLD.lock().fails)
}

fn with_connection<T>(handle: HQUIC, call: impl FnOnce(&mut Connection) -> T) -> T {
    let mut world = WORLD.lock();
    let connection = world.connections.get_mut(&number(handle)).expect("a connection");
    demand(!connection.is_closed, || "a connection is used after its close".to_owned());
    call(connection)
}

fn with_stream<T>(handle: HQUIC, call: impl FnOnce(&mut Stream) -> T) -> T {
    let mut world = WORLD.lock();
    let stream = world.streams.get_mut(&number(handle)).expect("a stream");
    demand(!stream.is_closed, || "a stream is used after its close".to_owned());
    call(stream)
}

unsafe extern "C" fn connection_close(connection: HQUIC) {
    with_connection(connection, |connection| {
        demand(connection.is_complete, || "a connection is closed before its end".to_owned());
        connection.is_closed = true;
    });
    CLOSED.notify_all();
}

unsafe extern "C" fn send_ticket(
    connection: HQUIC,
    flags: ffi::QUIC_SEND_RESUMPTION_FLAGS,
    length: u16,
    state: *const u8,
) -> QUIC_STATUS {
    let fails = takes_failure();
    // SAFETY: C31: the state is copied.
    let state = unsafe { crate::ffi::bytes(state, length.into()) }.to_vec();
    with_connection(connection, |connection| {
        let is_final = flags & ffi::QUIC_SEND_RESUMPTION_FLAGS_QUIC_SEND_RESUMPTION_FLAG_FINAL != 0;
        let may_issue = connection.tickets.is_server && connection.is_connected && is_final;
        demand(may_issue, || "a ticket is issued".to_owned());
        connection.tickets.issues += 1;
        if fails {
            return ffi::QUIC_STATUS_OUT_OF_MEMORY;
        }
        connection.tickets.issued = Some(state);
        OK
    })
}

unsafe extern "C" fn set_configuration(connection: HQUIC, configuration: HQUIC) -> QUIC_STATUS {
    start(connection, configuration);
    OK
}

fn start(connection: HQUIC, configuration: HQUIC) {
    let several = WORLD.lock().receive_several.contains(&number(configuration));
    with_connection(connection, |connection| {
        let may_start = !connection.tickets.has_failed;
        demand(may_start, || "a connection starts without its ticket".to_owned()); // C31
        connection.is_started = true;
        connection.receives_several = several;
    });
}

unsafe extern "C" fn connection_shutdown(
    connection: HQUIC,
    _: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS,
    _: ffi::QUIC_UINT62,
) {
    with_connection(connection, |connection| connection.is_closing = true);
}

unsafe extern "C" fn connection_start(
    connection: HQUIC,
    configuration: HQUIC,
    _: ffi::QUIC_ADDRESS_FAMILY,
    _: *const std::ffi::c_char,
    _: u16,
) -> QUIC_STATUS {
    if takes_failure() {
        return ffi::QUIC_STATUS_OUT_OF_MEMORY;
    }
    start(connection, configuration);
    OK
}

unsafe extern "C" fn datagram_send(
    connection: HQUIC,
    _: *const QUIC_BUFFER,
    _: u32,
    _: ffi::QUIC_SEND_FLAGS,
    context: *mut c_void,
) -> QUIC_STATUS {
    let fails = takes_failure();
    with_connection(connection, |connection| {
        let is_closing = connection.is_closing || !connection.is_connected;
        if fails || is_closing {
            connection.counts.canceled += 1;
            return match fails {
                true => ffi::QUIC_STATUS_OUT_OF_MEMORY,
                false => ffi::QUIC_STATUS_INVALID_STATE,
            };
        }
        connection.datagrams.push_back((Context(context), false));
        OK
    })
}

unsafe extern "C" fn execution_create(
    _: ffi::QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS,
    _: u32,
    _: u32,
    _: *mut ffi::QUIC_EXECUTION_CONFIG,
    _: *mut *mut ffi::QUIC_EXECUTION,
) -> QUIC_STATUS {
    ffi::QUIC_STATUS_NOT_SUPPORTED
}

unsafe extern "C" fn execution_poll(_: *mut ffi::QUIC_EXECUTION) -> u32 {
    0
}

unsafe extern "C" fn get_param(
    object: HQUIC,
    param: u32,
    length: *mut u32,
    value: *mut c_void,
) -> QUIC_STATUS {
    // SAFETY: C5: the caller's variables, of the lengths that these parameters have.
    unsafe {
        match param {
            ffi::QUIC_PARAM_GLOBAL_LIBRARY_VERSION => {
                value.cast::<[u32; 4]>().write([2, 5, 9, 0]);
                *length = 16;
            }
            ffi::QUIC_PARAM_STREAM_ID => {
                value.cast::<u64>().write(number(object) as u64);
                *length = 8;
            }
            _ => return ffi::QUIC_STATUS_NOT_SUPPORTED,
        }
    }
    OK
}

unsafe extern "C" fn set_param(
    object: HQUIC,
    param: u32,
    length: u32,
    value: *const c_void,
) -> QUIC_STATUS {
    if param != ffi::QUIC_PARAM_CONN_RESUMPTION_TICKET {
        return OK;
    }
    let fails = takes_failure();
    // SAFETY: C5: the value is copied.
    let ticket = unsafe { crate::ffi::bytes(value.cast(), length as usize) }.to_vec();
    with_connection(object, |connection| {
        let is_new = !connection.is_started && connection.tickets.ticket.is_none();
        demand(is_new, || "a ticket is set twice, or late".to_owned()); // C33
        connection.tickets.has_failed = fails;
        // The server accepts each second one.
        connection.tickets.is_resumed = ticket.iter().rev().nth(1).is_some_and(|it| it % 2 == 0);
        connection.tickets.ticket = Some(ticket);
        if fails { ffi::QUIC_STATUS_INVALID_STATE } else { OK }
    })
}

unsafe extern "C" fn listener_open(
    _: HQUIC,
    callback: ffi::QUIC_LISTENER_CALLBACK_HANDLER,
    context: *mut c_void,
    listener: *mut HQUIC,
) -> QUIC_STATUS {
    let world = &mut *WORLD.lock();
    let id = world.add();
    let callback = callback.map(|callback| (callback, Context(context)));
    world.listeners.insert(
        id,
        Listener { callback, is_listening: false, was_started: false, is_closed: false },
    );
    // SAFETY: C13: the caller's variable.
    unsafe { *listener = handle(id) };
    OK
}

fn with_listener<T>(handle: HQUIC, call: impl FnOnce(&mut Listener) -> T) -> T {
    call(WORLD.lock().listeners.get_mut(&number(handle)).expect("a listener"))
}

unsafe extern "C" fn listener_start(
    listener: HQUIC,
    _: *const QUIC_BUFFER,
    _: u32,
    _: *const ffi::QUIC_ADDR,
) -> QUIC_STATUS {
    if takes_failure() {
        return ffi::QUIC_STATUS_OUT_OF_MEMORY;
    }
    with_listener(listener, |listener| {
        listener.is_listening = true;
        listener.was_started = true;
    });
    OK
}

unsafe extern "C" fn listener_stop(listener: HQUIC) {
    let _no_attempt = LISTENING.lock(); // C8: it waits for those in progress
    let callback = with_listener(listener, |listener| {
        listener.is_listening = false;
        listener.callback
    });
    // SAFETY: C6: zero is valid for each member of the union.
    let mut event: ffi::QUIC_LISTENER_EVENT = unsafe { mem::zeroed() };
    event.Type = ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_STOP_COMPLETE;
    if let Some((callback, context)) = callback {
        // SAFETY: C21: the last event.
        unsafe { callback(listener, context.0, &raw mut event) };
    }
    WORLD.lock().stops += 1;
    CLOSED.notify_all();
}

unsafe extern "C" fn listener_close(listener: HQUIC) {
    with_listener(listener, |listener| {
        demand(!listener.is_closed, || "a listener is closed twice".to_owned());
        listener.is_closed = true;
    });
    CLOSED.notify_all();
}

unsafe extern "C" fn set_callback_handler(
    object: HQUIC,
    callback: *mut c_void,
    context: *mut c_void,
) {
    let world = &mut *WORLD.lock();
    // SAFETY: C13, C18: the caller sets a callback of the kind that the handle has.
    unsafe {
        if let Some(connection) = world.connections.get_mut(&number(object)) {
            let callback = mem::transmute::<*mut c_void, ConnectionCallback>(callback);
            connection.callback = Some((callback, Context(context)));
        } else if let Some(stream) = world.streams.get_mut(&number(object)) {
            let callback = mem::transmute::<*mut c_void, StreamCallback>(callback);
            stream.callback = Some((callback, Context(context)));
        }
    }
}

unsafe extern "C" fn stream_open(
    connection: HQUIC,
    flags: ffi::QUIC_STREAM_OPEN_FLAGS,
    callback: ffi::QUIC_STREAM_CALLBACK_HANDLER,
    context: *mut c_void,
    stream: *mut HQUIC,
) -> QUIC_STATUS {
    let world = &mut *WORLD.lock();
    if mem::take(&mut world.fails) {
        return ffi::QUIC_STATUS_OUT_OF_MEMORY;
    }
    let callback = callback.map(|callback| (callback, Context(context)));
    let id = world.add_stream(number(connection), callback, Start::No);
    let unidirectional =
        flags & ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL != 0;
    // A unidirectional one has no receiving direction.
    world.streams.get_mut(&id).expect("it was added").is_receive_over = unidirectional;
    // SAFETY: C13: the caller's variable.
    unsafe { *stream = handle(id) };
    OK
}

unsafe extern "C" fn stream_start(stream: HQUIC, _: ffi::QUIC_STREAM_START_FLAGS) -> QUIC_STATUS {
    let fails = takes_failure();
    with_stream(stream, |stream| {
        if fails {
            return ffi::QUIC_STATUS_OUT_OF_MEMORY;
        }
        stream.start = Start::Requested;
        OK
    })
}

unsafe extern "C" fn stream_close(stream: HQUIC) {
    let id = number(stream);
    // C13: a stream that has not ended gets its last event now.
    let is_complete = with_stream(stream, |stream| {
        stream.is_immediate = true;
        stream.is_complete
    });
    if !is_complete {
        scripted::stream(id, StreamStep::Start(Status::ABORTED));
        let has_ended = scripted::stream(id, StreamStep::Complete);
        demand(has_ended, || "a stream with sends is closed".to_owned());
    }
    with_stream(stream, |stream| {
        stream.is_closed = true;
        stream.memory.free();
    });
    CLOSED.notify_all();
}

unsafe extern "C" fn receive_complete(stream: HQUIC, count: u64) {
    with_stream(stream, |stream| {
        // C32
        demand(!stream.is_reset, || "bytes are returned after the reset".to_owned());
        stream.memory.complete(count, stream.receives_several);
    });
}

unsafe extern "C" fn receive_set_enabled(stream: HQUIC, _: ffi::BOOLEAN) -> QUIC_STATUS {
    with_stream(stream, |stream| stream.is_enabled = true);
    OK
}

unsafe extern "C" fn stream_send(
    stream: HQUIC,
    buffers: *const QUIC_BUFFER,
    count: u32,
    flags: ffi::QUIC_SEND_FLAGS,
    context: *mut c_void,
) -> QUIC_STATUS {
    let world = &mut *WORLD.lock();
    let stream = world.streams.get_mut(&number(stream)).expect("a stream");
    let may_send = !stream.is_closed && !stream.is_fin_sent;
    demand(may_send, || "a stream sends after the end".to_owned());
    let is_closing = world.connections[&stream.connection].is_closing;
    if stream.is_send_aborted || is_closing && mem::take(&mut world.fails) {
        return ffi::QUIC_STATUS_ABORTED;
    }
    let before = stream.sent.len();
    for index in 0..count as usize {
        // SAFETY: C23: an array of that many, whose bytes are valid until the completion.
        let bytes = unsafe {
            let buffer = &*buffers.add(index);
            crate::ffi::bytes(buffer.Buffer, buffer.Length as usize)
        };
        stream.sent.extend_from_slice(bytes);
    }
    stream.is_fin_sent = flags & ffi::QUIC_SEND_FLAGS_QUIC_SEND_FLAG_FIN != 0;
    stream.sends.push_back((Context(context), stream.sent.len() - before));
    OK
}

unsafe extern "C" fn stream_shutdown(
    stream: HQUIC,
    flags: ffi::QUIC_STREAM_SHUTDOWN_FLAGS,
    _: ffi::QUIC_UINT62,
) -> QUIC_STATUS {
    let has = |flag: ffi::QUIC_STREAM_SHUTDOWN_FLAGS| flags & flag != 0;
    with_stream(stream, |stream| {
        stream.is_send_aborted |=
            has(ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_SEND);
        stream.is_receive_aborted |=
            has(ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_RECEIVE);
        stream.is_immediate |=
            has(ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_IMMEDIATE);
    });
    OK
}

/// The symbols of a library that is not linked.
#[cfg(not(any(feature = "vendored", feature = "system")))]
mod unlinked {
    use msquic::ffi;

    // SAFETY: no library that has this function is linked.
    #[unsafe(no_mangle)]
    extern "C" fn MsQuicOpenVersion(
        _: u32,
        _: *mut *const ffi::QUIC_API_TABLE,
    ) -> ffi::QUIC_STATUS {
        ffi::QUIC_STATUS_NOT_SUPPORTED
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    extern "C" fn MsQuicClose(_: *const ffi::QUIC_API_TABLE) {}
}
