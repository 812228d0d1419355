//! Clauses about threads: what returns at once, what waits, what runs inline; parameters and settings.

use super::events::{Answer, Event, MOMENT, TIMEOUT};
use super::handles::{Object, Open, ignore, is_connected};
use super::harness::{
    ABORT_NOW, ALPN, LOOPBACK, Occupied, Pair, Role, adopt_streams, plenty, react,
};
use super::is_driven;
use super::roots::Registration;
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use msquic::ffi;
use parking_lot::Mutex;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

const STREAMS: u32 = ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT;

#[test]
fn c1_asynchronous_calls_return_while_the_worker_is_busy() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let occupied = Occupied::new(&pair.client);
    let stream = pair.client.open_stream(false, ignore).unwrap();
    assert_eq!(stream.start_stream(0), Status::PENDING);
    assert!(stream.send(b"data", false).is_ok());
    assert_eq!(stream.enable_receive(), Status::PENDING);
    let send = ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_GRACEFUL;
    assert_eq!(stream.abort(send, 0), Status::PENDING);
    assert!(pair.client.send_datagram(b"datagram").is_ok());
    assert_eq!(stream.so_far(), [], "something ran beside the callback");
    drop(occupied);
    let peer_stream = streams.recv().unwrap();
    peer_stream.until(|event| *event == Event::PeerSendShutdown);

    let addr = pair.server.addr();
    let second = pair.registration.open_connection(ignore);
    let occupied = Occupied::new(&second);
    assert_eq!(second.connect(&pair.configuration, addr), Status::PENDING);
    second.shutdown(0);
    drop(occupied);
    second.until(Event::is_last);
    drop((stream, peer_stream, streams, second));
    pair.finish();
}

#[test]
fn c1_a_shutdown_overtakes_starts_and_sends() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let open = pair.client.open_stream(true, ignore).unwrap();
    assert!(open.start_stream(0).is_ok());
    open.until(|event| matches!(event, Event::Started { .. }));
    let occupied = Occupied::new(&pair.client);
    let sent = open.send(b"data", true).unwrap();
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert!(stream.start_stream(0).is_ok());
    pair.client.shutdown(0);
    drop(occupied);
    let failed = Event::Started { status: Status::INVALID_STATE, accepted: false };
    assert_eq!(stream.next().event, failed);
    let seen = open.until(|event| matches!(event, Event::Sent { .. })).event;
    assert_eq!(seen, Event::Sent { context: sent, canceled: true });
    pair.client.until(Event::is_last);
    pair.peer.until(Event::is_last);
    assert!(streams.try_recv().is_err(), "the peer received a stream");
}

#[test]
fn c1_events_of_a_connection_and_its_streams_do_not_overlap() {
    /// Counts who is inside.
    fn alone(inside: &Arc<AtomicUsize>) -> impl Fn() + Send + Sync + 'static {
        let inside = inside.clone();
        move || {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two events at once");
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
    static DATA: [u8; 5000] = [1; 5000];
    let (client, peer) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (adopted, streams) = mpsc::channel();
    let on_stream = react({
        let alone = alone(&peer);
        move |call| {
            alone();
            ignore(call)
        }
    });
    let on_peer = react({
        let alone = alone(&peer);
        move |call| {
            alone();
            adopt_streams(call, &adopted, false, &on_stream)
        }
    });
    let on_client = react({
        let alone = alone(&client);
        move |call| {
            alone();
            ignore(call)
        }
    });
    let pair = Pair::with(&plenty(), on_client, on_peer);
    let mine: Vec<_> = (0..8)
        .map(|index| {
            let alone = alone(&client);
            let stream = pair.client.open_stream(index % 2 == 0, move |_| {
                alone();
                Answer::default()
            });
            let stream = stream.unwrap();
            assert!(stream.start_stream(0).is_ok());
            (0..10).for_each(|turn| assert!(stream.send(&DATA, turn == 9).is_ok()));
            pair.client.send_datagram(b"datagram").unwrap();
            stream
        })
        .collect();
    for stream in &mine {
        stream.until(|event| *event == Event::SendOver { graceful: true });
        streams.recv().unwrap().until(|event| *event == Event::PeerSendShutdown);
    }
    drop(mine);
    pair.finish();
}

#[test]
fn c5_get_param_tells_what_it_needs_and_what_it_wrote() {
    let pair = Pair::new();
    let (status, value, length) = pair.client.get_with_length::<u16>(STREAMS, 1);
    assert!(Status::ok(status.to_raw()).is_err());
    assert_eq!((value, length), (0, 2));
    let (status, value, length) = pair.client.get_with_length::<[u8; 16]>(STREAMS, 16);
    assert_eq!((status, length), (Status::SUCCESS, 2));
    assert!(value[..2] == 8_u16.to_ne_bytes() && value[2..].iter().all(|byte| *byte == 0));
    pair.finish();
}

#[test]
fn c5_global_and_listener_parameters_do_not_wait_for_workers() {
    let pair = Pair::new();
    let occupied = Occupied::new(&pair.client);
    let param = ffi::QUIC_PARAM_GLOBAL_RETRY_MEMORY_PERCENT;
    let (mut value, mut length) = (0_u16, 2_u32);
    // SAFETY: C5: global parameters are handled inline; two bytes are written and read.
    let (got, set) = unsafe {
        let buffer = (&raw mut value).cast();
        let got = call!(GetParam(ptr::null_mut(), param, &raw mut length, buffer));
        (got, call!(SetParam(ptr::null_mut(), param, length, buffer)))
    };
    assert_eq!((got, set, length), (0, 0, 2));
    // SAFETY: C5: parameters of listeners are read inline.
    let status = unsafe {
        let handle = pair.server.listener.handle().0;
        let param = ffi::QUIC_PARAM_LISTENER_LOCAL_ADDRESS;
        let mut addr = [0_u64; 8];
        let mut length = size_of_val(&addr) as u32;
        call!(GetParam(handle, param, &raw mut length, addr.as_mut_ptr().cast()))
    };
    assert_eq!(Status::from_raw(status), Status::SUCCESS);
    drop(occupied);
    pair.finish();
}

#[test]
fn c9_closes_and_parameters_wait_for_the_worker() {
    if is_driven() {
        return; // C29: they run inline
    }
    let pair = Pair::new();
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert!(stream.start_stream(0).is_ok());
    stream.until(|event| matches!(event, Event::Started { .. }));
    let waits = |job: Box<dyn FnOnce() + Send>| {
        let occupied = Occupied::new(&pair.client);
        let (done, is_done) = mpsc::channel();
        let waiter = thread::spawn(move || {
            job();
            let _ = done.send(());
        });
        assert_eq!(is_done.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        drop(occupied);
        is_done.recv_timeout(TIMEOUT).unwrap();
        waiter.join().unwrap();
    };
    let (client, handle) = (pair.client.borrow(), stream.borrow());
    waits(Box::new(move || assert_eq!(client.get::<u16>(STREAMS), Ok(8))));
    waits(Box::new(move || assert!(handle.get::<u64>(ffi::QUIC_PARAM_STREAM_ID).is_ok())));
    waits(Box::new(move || {
        assert_eq!(handle.set(ffi::QUIC_PARAM_STREAM_PRIORITY, 7_u16), Status::SUCCESS);
    }));
    waits(Box::new(move || stream.close()));
    let (sender, closing) = mpsc::channel::<Object>();
    let closing = Mutex::new(closing);
    let connection = pair.registration.open_connection(ignore);
    let stream = Occupied::new(&connection);
    sender.send(connection).unwrap();
    let (done, is_done) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let connection = closing.lock().recv().unwrap();
        connection.close();
        let _ = done.send(connection.so_far());
    });
    assert!(is_done.recv_timeout(MOMENT).is_err());
    drop(stream);
    let events = is_done.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(events, [Event::ConnectionOver { app_close: true }]);
    waiter.join().unwrap();
    pair.finish();
}

#[test]
fn c9_the_close_of_a_stream_after_its_last_event_does_not_wait() {
    if is_driven() {
        return; // C29: it runs inline
    }
    let pair = Pair::new();
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert!(stream.abort(ABORT_NOW, 0).is_ok());
    stream.until(Event::is_last);
    pair.client.get::<u16>(STREAMS).unwrap(); // the callback has returned
    let occupied = Occupied::new(&pair.client);
    stream.close();
    drop(occupied);
    pair.finish();
}

#[test]
fn c1_the_last_of_several_shutdowns_is_processed_first() {
    let pair = Pair::new();
    let occupied = Occupied::new(&pair.client);
    pair.client.shutdown(1);
    pair.client.shutdown(2);
    drop(occupied);
    let seen = pair.peer.until(|event| matches!(event, Event::ShutdownByPeer { .. })).event;
    assert_eq!(seen, Event::ShutdownByPeer { code: 2 });
    pair.client.until(Event::is_last);
    pair.peer.until(Event::is_last);
}

#[test]
fn c16_parameters_of_an_offered_connection_run_inline() {
    const SCHEME: u32 = ffi::QUIC_PARAM_CONN_STREAM_SCHEDULING_SCHEME;
    let registration = Registration::new();
    let configuration = registration.configure(Role::Server, &plenty());
    let (results, result) = mpsc::channel();
    let (results, handle) = (Mutex::new(results), configuration.handle);
    let listener = registration.open_listener(move |call| {
        if let Event::NewConnection { .. } = call.event {
            let connection = call.adopt(ignore);
            let set = connection.set(SCHEME, 1_u32);
            let scheme = connection.get::<u32>(SCHEME);
            connection.accept(handle);
            let _ = results.lock().send((set, scheme, connection));
        }
        Answer::default()
    });
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let client_configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    assert!(client.connect(&client_configuration, listener.local_addr()).is_ok());
    let (set, scheme, peer) = result.recv_timeout(TIMEOUT).unwrap();
    assert_eq!((set, scheme), (Status::SUCCESS, Ok(1)));
    client.until(is_connected);
    client.shutdown(0);
    client.until(Event::is_last);
    peer.until(Event::is_last);
}

#[test]
fn c16_inside_a_callback_parameters_and_closes_run_inline() {
    let (streams, stream) = mpsc::channel::<Object>();
    let (results, result) = mpsc::channel();
    let (streams_in, results) = (Mutex::new(stream), Mutex::new(results));
    let on_client = react(move |call| {
        if matches!(call.event, Event::Datagram(_)) {
            let stream = streams_in.lock().recv().unwrap();
            let count = call.get::<u16>(STREAMS);
            let scheme = call.set(ffi::QUIC_PARAM_CONN_STREAM_SCHEDULING_SCHEME, 1_u32);
            // The handle of another object of the same connection, on its worker.
            let priority = Inline(stream.handle()).set(ffi::QUIC_PARAM_STREAM_PRIORITY, 9_u16);
            let id = Inline(stream.handle()).get::<u16>(ffi::QUIC_PARAM_STREAM_PRIORITY);
            stream.close_in(call);
            let _ = results.lock().send((count, scheme, priority, id, stream.so_far()));
        }
        ignore(call)
    });
    let pair = Pair::with(&plenty(), on_client, react(ignore));
    streams.send(pair.client.open_stream(true, ignore).unwrap()).unwrap();
    pair.peer.send_datagram(b"now").unwrap();
    let (count, scheme, priority, id, events) = result.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(count, Ok(8));
    assert_eq!((scheme, priority, id), (Status::SUCCESS, Status::SUCCESS, Ok(9)));
    let over = Event::StreamOver { by_connection: false, app_close: true };
    assert_eq!(events, [Event::SendOver { graceful: false }, over]);
    pair.finish();
}

/// A handle used on the worker of its connection.
struct Inline(crate::ffi::Handle);

// SAFETY: C16: the test uses it inside a callback of the connection only, while the object is open.
unsafe impl Open for Inline {
    fn handle(&self) -> crate::ffi::Handle {
        self.0
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        job()
    }
}

#[test]
fn c9_a_connection_may_be_closed_inside_its_callbacks() {
    for is_last in [false, true] {
        let (connections, connection) = mpsc::channel::<Object>();
        let (done, is_done) = mpsc::channel();
        let (connection, done) = (Mutex::new(connection), Mutex::new(done));
        let on_client = react(move |call| {
            let is_asked = matches!(call.event, Event::Datagram(_));
            let is_now = if is_last { call.event.is_last() } else { is_asked };
            if is_now && let Ok(connection) = connection.lock().recv() {
                connection.close_in(call);
                let _ = done.lock().send(connection.so_far());
            }
            ignore(call)
        });
        let registration = Registration::new();
        let server = super::harness::Server::new(&registration, &plenty(), &react(ignore));
        let configuration = registration.configure(Role::Client, &plenty());
        let client = registration.open_connection(move |call| on_client(call));
        assert!(client.connect(&configuration, server.addr()).is_ok());
        let peer = server.next();
        peer.until(is_connected);
        client.until(is_connected);
        connections.send(client).unwrap();
        drop(connections);
        if is_last {
            peer.shutdown(0)
        } else {
            peer.send_datagram(b"now").map(|_| ()).unwrap()
        };
        let events = is_done.recv_timeout(TIMEOUT).unwrap();
        let over = Event::ConnectionOver { app_close: !is_last };
        assert_eq!(events.iter().filter(|event| event.is_last()).collect::<Vec<_>>(), [&over]);
    }
}

#[test]
fn c45_the_settings_in_effect_can_be_read() {
    let registration = Registration::new();
    let connection = registration.open_connection(ignore);
    let in_effect = || {
        let mut settings = *crate::Settings::new().to_native().get();
        let mut length = size_of_val(&settings) as u32;
        // SAFETY: C5, C9: the handle is open; at most `length` bytes are written.
        let status = unsafe {
            let buffer = (&raw mut settings).cast();
            let param = ffi::QUIC_PARAM_CONN_SETTINGS;
            call!(GetParam(connection.handle().0, param, &raw mut length, buffer))
        };
        assert_eq!(Status::from_raw(status), Status::SUCCESS);
        settings
    };
    // SAFETY: plain integers.
    let is_given = |settings: ffi::QUIC_SETTINGS| unsafe {
        settings.__bindgen_anon_1.IsSet.DisconnectTimeoutMs() != 0
    };
    let default = in_effect();
    assert_eq!((default.DisconnectTimeoutMs, is_given(default)), (16_000, false));
    let native = *crate::Settings::new()
        .disconnect_timeout(std::time::Duration::from_secs(5))
        .to_native()
        .get();
    // SAFETY: C5: the value is copied.
    let status = unsafe {
        let (length, param) = (size_of_val(&native) as u32, ffi::QUIC_PARAM_CONN_SETTINGS);
        call!(SetParam(connection.handle().0, param, length, (&raw const native).cast()))
    };
    assert_eq!(Status::from_raw(status), Status::SUCCESS);
    let changed = in_effect();
    assert_eq!((changed.DisconnectTimeoutMs, is_given(changed)), (5_000, true));
    assert_eq!(changed.IdleTimeoutMs, default.IdleTimeoutMs);
}

#[test]
fn c10_zero_is_not_set_and_stream_windows_are_powers_of_two() {
    let registration = Registration::new();
    let get = |configuration: &super::roots::Configuration| {
        let mut settings = *crate::Settings::new().to_native().get();
        let mut length = size_of_val(&settings) as u32;
        // SAFETY: C5: parameters of configurations are read inline, at most `length` bytes of them.
        let status = unsafe {
            let param = ffi::QUIC_PARAM_CONFIGURATION_SETTINGS;
            let buffer = (&raw mut settings).cast();
            call!(GetParam(configuration.handle.0, param, &raw mut length, buffer))
        };
        assert_eq!(Status::from_raw(status), Status::SUCCESS);
        settings
    };
    let empty = *crate::Settings::new().to_native().get();
    let default = get(&registration.configure_native(Role::Client, empty).unwrap());
    assert_ne!((default.IdleTimeoutMs, default.StreamRecvWindowDefault), (0, 0));
    assert!(default.StreamRecvWindowDefault.is_power_of_two());
    let native = *crate::Settings::new().stream_receive_window(1 << 17).to_native().get();
    let changed = get(&registration.configure_native(Role::Client, native).unwrap());
    assert_eq!(changed.StreamRecvWindowDefault, 1 << 17);
    assert_eq!(changed.IdleTimeoutMs, default.IdleTimeoutMs);
    let odd = ffi::QUIC_SETTINGS { StreamRecvWindowDefault: 100_000, ..native };
    let refused = registration.configure_native(Role::Client, odd);
    assert_eq!(refused.err(), Some(Status::INVALID_PARAMETER));
}
