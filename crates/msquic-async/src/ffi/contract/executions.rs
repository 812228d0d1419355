//! Clauses about executions: the application drives libmsquic.

use super::events::{self, Event, MOMENT, TIMEOUT};
use super::handles::{Object, Open, ignore};
use super::harness::{ALPN, LOOPBACK, Pair};
use super::registrations::{close_and_see_it_wait, finish};
use super::roots::Registration;
use super::{in_child, is_2_6, is_driven, keeps_registrations, outside};
use crate::ffi::Handle;
use crate::ffi::execution;
use crate::ffi::functions::call;
use crate::ffi::library;
use crate::ffi::status::Status;
use msquic::ffi;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// A handle used on the thread that polls, between two turns.
struct OnDriver(Handle);

// SAFETY: C29: the tests use it inside `outside` only, while the object is open.
unsafe impl Open for OnDriver {
    fn handle(&self) -> Handle {
        self.0
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        job()
    }
}

#[test]
#[cfg(all(feature = "driver", target_os = "linux"))]
fn c29_an_execution_is_created_before_the_first_registration_only() {
    let _registration = Registration::new();
    assert_eq!(crate::ExecutionDriver::install().err(), Some(Status::INVALID_STATE));
    if is_driven() {
        return;
    }
    let mut execution = std::ptr::null_mut();
    let mut queue: ffi::QUIC_EVENTQ = -1;
    let mut config = ffi::QUIC_EXECUTION_CONFIG { IdealProcessor: 0, EventQ: &raw mut queue };
    // SAFETY: C29: after the first registration the call fails and touches nothing.
    let status = unsafe { call!(ExecutionCreate(0, 0, 1, &raw mut config, &raw mut execution)) };
    assert_eq!(Status::from_raw(status), Status::INVALID_STATE);
}

#[test]
fn c29_the_thread_that_polls_does_the_work() {
    if !is_driven() {
        return;
    }
    let driver = outside(|| thread::current().id());
    let pair = Pair::new();
    pair.client.shutdown(0);
    for seen in pair.client.all().iter().chain(&pair.peer.all()) {
        assert_eq!(seen.thread, driver, "{seen:?}");
    }
}

#[test]
fn c29_parameters_and_the_close_of_a_stream_run_inline() {
    if !is_driven() {
        return;
    }
    let pair = Pair::new();
    let stream = pair.client.open_stream(true, ignore).unwrap();
    let (client, handle) = (OnDriver(pair.client.handle()), OnDriver(stream.handle()));
    let (count, priority) = outside(move || {
        let count = client.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT);
        (count, handle.set(ffi::QUIC_PARAM_STREAM_PRIORITY, 3_u16))
    });
    assert_eq!((count, priority), (Ok(8), Status::SUCCESS));
    let events = outside(move || {
        stream.close();
        stream.so_far()
    });
    let over = Event::StreamOver { by_connection: false, app_close: true };
    assert_eq!(events, [Event::SendOver { graceful: false }, over]);
    pair.finish();
}

/// Closes the connection as it is, and returns the events that came until the call returned.
fn close(connection: Object) -> (Object, Vec<Event>) {
    let handle = connection.forget();
    // SAFETY: C4, C29: the object does not close the handle any more. The callers choose a valid
    // thread.
    unsafe { call!(ConnectionClose(handle.0)) };
    let events = connection.so_far();
    (connection, events)
}

#[test]
fn c29_a_connection_is_closed_inline_or_from_2_6_on_asynchronously() {
    if !is_driven() {
        return;
    }
    let registration = Registration::new();
    let over = Event::ConnectionOver { app_close: true };
    let connection = registration.open_connection(ignore);
    let handle = OnDriver(connection.handle());
    let (is_known, (connection, events)) = outside(move || {
        let is_known = handle.set(super::handles::CLOSE_ASYNC, 1_u8).is_ok();
        (is_known, close(connection))
    });
    assert_eq!(is_known, is_2_6());
    if is_2_6() {
        assert_eq!(events, []);
        assert_eq!(connection.next().event, over);
    } else {
        assert_eq!(events, [over]);
    }
}

#[test]
fn c29_from_2_6_on_a_synchronous_close_waits_for_the_thread_that_polls() {
    if !is_driven() || !is_2_6() {
        return;
    }
    let registration = Registration::new();
    let connection = registration.open_connection(ignore);
    let (entered, is_inside) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let busy = thread::spawn(move || {
        outside(move || {
            let _ = entered.send(());
            let _ = released.recv_timeout(TIMEOUT);
        });
    });
    is_inside.recv().unwrap();
    let closing = thread::spawn(move || {
        let _ = done.send(close(connection).1);
    });
    assert!(is_done.recv_timeout(MOMENT).is_err());
    drop(release);
    let events = is_done.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(events, [Event::ConnectionOver { app_close: true }]);
    closing.join().unwrap();
    busy.join().unwrap();
}

#[test]
fn c29_registrations_are_closed_beside_the_thread_that_polls() {
    if !is_driven() || keeps_registrations() {
        return;
    }
    let test = "executions::c29_registrations_are_closed_beside_the_thread_that_polls";
    if let Some(child) = in_child(test) {
        assert!(child.is_success(), "{child}");
        return;
    }
    for _ in 0..20 {
        let pair = Pair::new();
        pair.client.shutdown(0);
        pair.client.until(Event::is_last);
        pair.peer.until(Event::is_last);
        // The last field is the registration, whose close waits for all others.
        drop(pair);
    }
    // The registrations of this crate are closed too.
    let registrations: Vec<_> =
        (0..20).map(|_| crate::Registration::new("driven").unwrap()).collect();
    assert_eq!(library::open_registrations(), registrations.len());
    drop(registrations);
    let deadline = Instant::now() + TIMEOUT;
    while library::open_registrations() > 0 {
        assert!(Instant::now() < deadline, "registrations stay open");
        thread::yield_now();
    }
}

#[test]
fn c29_registrations_open_on_the_thread_that_polls_while_others_close() {
    if !is_driven() || keeps_registrations() {
        return;
    }
    let test = "executions::c29_registrations_open_on_the_thread_that_polls_while_others_close";
    if let Some(child) = in_child(test) {
        assert!(child.is_success(), "{child}");
        return;
    }
    let registration = Registration::new();
    // From its first listener on the library has a registration of its own, which is closed with the last one.
    let listener = registration.open_listener(ignore);
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    listener.close();
    let (entered, is_inside) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let busy = move || {
        let _ = entered.send(());
        let _ = released.recv();
    };
    assert!(execution::run_on_driver(busy).is_ok());
    is_inside.recv().unwrap();
    let closing = close_and_see_it_wait(registration);
    let (opened, is_opened) = mpsc::channel();
    let open = move || {
        thread::sleep(MOMENT); // the close continues meanwhile, until it needs the next poll
        let _ = opened.send(Registration::new());
    };
    assert!(execution::run_on_driver(|| events::inside(open)).is_ok());
    drop(release);
    let other = is_opened.recv_timeout(TIMEOUT).expect("the thread that polls is blocked");
    finish(closing);
    other.close();
}
