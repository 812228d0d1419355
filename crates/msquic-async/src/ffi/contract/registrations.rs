//! Clauses about registrations, configurations and credentials.

use super::events::{Event, MOMENT, TIMEOUT};
use super::handles::{Open, ignore};
use super::harness::{ALPN, LOOPBACK, Pair, Role, plenty};
use super::keeps_registrations;
use super::roots::Registration;
use crate::ffi::status::Status;
use msquic::ffi;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

/// Closes the registration on another thread, and checks that the close waits.
pub(super) fn close_and_see_it_wait(registration: Registration) -> (JoinHandle<()>, Receiver<()>) {
    let (done, is_done) = mpsc::channel();
    let closing = thread::spawn(move || {
        registration.close();
        let _ = done.send(());
    });
    assert!(is_done.recv_timeout(MOMENT * 4).is_err(), "the close did not wait");
    (closing, is_done)
}

pub(super) fn finish((closing, is_done): (JoinHandle<()>, Receiver<()>)) {
    is_done.recv_timeout(TIMEOUT).expect("the close waits although nothing is left");
    closing.join().unwrap();
}

#[test]
fn c8_registration_close_waits_for_connections_listeners_and_configurations() {
    if keeps_registrations() {
        return;
    }
    let registration = Registration::new();
    let connection = registration.open_connection(ignore);
    let closing = close_and_see_it_wait(registration);
    connection.close();
    finish(closing);

    let registration = Registration::new();
    let listener = registration.open_listener(ignore);
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let closing = close_and_see_it_wait(registration);
    listener.close();
    finish(closing);

    let registration = Registration::new();
    let configuration = registration.configure(Role::Client, &plenty());
    let closing = close_and_see_it_wait(registration);
    drop(configuration);
    finish(closing);
}

#[test]
fn c8_registration_close_waits_for_running_connections() {
    if keeps_registrations() {
        return;
    }
    let Pair { client, peer, server, configuration, registration } = Pair::new();
    server.listener.close();
    drop((server, configuration));
    let closing = close_and_see_it_wait(registration);
    client.shutdown(0);
    client.until(Event::is_last);
    peer.until(Event::is_last);
    client.close();
    peer.close();
    finish(closing);
}

#[test]
fn c11_a_configuration_is_closed_at_once_and_stays_for_its_connections() {
    let Pair { registration, server, configuration, client, peer } = Pair::new();
    let unused = registration.configure(Role::Client, &plenty());
    drop((unused, configuration, server)); // also the listener
    client.send_datagram(b"still there").unwrap();
    peer.until(|event| matches!(event, Event::Datagram(_)));
    client.shutdown(0);
    client.until(Event::is_last);
    peer.until(Event::is_last);
}

#[test]
fn c7_what_is_given_to_the_open_functions_is_copied() {
    // The harness overwrites names, settings and addresses when the calls have returned.
    let pair = Pair::new();
    let stream_limit = pair.client.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT);
    assert_eq!(stream_limit, Ok(8));
    pair.finish();
}

#[test]
fn c12_a_credential_is_read_before_the_call_returns() {
    // The harness overwrites the bundle when the call has returned.
    let pair = Pair::new();
    let seen = pair.registration.configure(Role::Client, &plenty());
    drop(seen);
    pair.finish();
}
