//! Clauses about the library as a whole and the end of the process, which children of the tests show.

use super::events::{Event, PATIENCE};
use super::handles::{Open, ignore};
use super::roots::Registration;
use super::{in_child, is_2_6, is_driven, prepare};
use crate::Settings;
use crate::ffi::raw::testing;
use crate::ffi::status::Status;
use msquic::ffi;
use std::process::exit;
use std::ptr;
use std::sync::mpsc;
use std::thread;

// Linked by the crate libmsquic-sys.
unsafe extern "C" {
    fn MsQuicOpenVersion(version: u32, api: *mut *const ffi::QUIC_API_TABLE) -> ffi::QUIC_STATUS;
    fn MsQuicClose(api: *const ffi::QUIC_API_TABLE);
}

/// A table of its own.
fn open_table() -> &'static ffi::QUIC_API_TABLE {
    let mut table = ptr::null();
    // SAFETY: C2: one pointer is written, to a table that stays valid until MsQuicClose.
    unsafe {
        Status::ok(MsQuicOpenVersion(2, &raw mut table)).unwrap();
        &*table
    }
}

#[test]
fn c2_a_table_is_valid_until_its_close() {
    let registration = Registration::new();
    let table = open_table();
    let mut version = [0_u32; 4];
    let mut length = size_of_val(&version) as u32;
    let param = ffi::QUIC_PARAM_GLOBAL_LIBRARY_VERSION;
    // SAFETY: C2, C5: the table is closed once, after its last use; the first table stays open.
    unsafe {
        let get_param = table.GetParam.unwrap();
        let status =
            get_param(ptr::null_mut(), param, &raw mut length, version.as_mut_ptr().cast());
        assert_eq!(Status::from_raw(status), Status::SUCCESS);
        MsQuicClose(table);
    }
    let linked = crate::library_version().unwrap();
    assert_eq!(version, [linked.major, linked.minor, linked.patch, linked.build]);
    // The library goes on, with the other table.
    let connection = registration.open_connection(ignore);
    connection.shutdown(0);
    connection.until(Event::is_last);
}

#[test]
fn c3_a_process_ends_in_order_with_connections_open() {
    if let Some(child) = in_child("process::c3_a_process_ends_in_order_with_connections_open") {
        assert!(child.is_success(), "{child}");
        return;
    }
    prepare();
    let settings = Settings::new().peer_bidi_streams(1);
    let pair = futures::executor::block_on(testing::pair(&settings));
    std::mem::forget(pair);
    exit(0); // the exit handler of `ffi::library` runs before that of the TLS library
}

#[test]
fn c34_msquic_close_waits_for_the_threads_of_the_library() {
    if is_driven() {
        return; // C29: a driven registration stays open, so the library does
    }
    if let Some(child) = in_child("process::c34_msquic_close_waits_for_the_threads_of_the_library")
    {
        assert!(child.is_success(), "{child}");
        return;
    }
    prepare();
    let table = open_table();
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = threads();
    let mut registration = ptr::null_mut();
    // SAFETY: C2, C7: the registration is closed before the table, and no configuration is the default.
    unsafe {
        let status = table.RegistrationOpen.unwrap()(ptr::null(), &raw mut registration);
        assert_eq!(Status::from_raw(status), Status::SUCCESS);
        assert!(threads() > before || before == 0);
        table.RegistrationClose.unwrap()(registration);
    }
    let (done, is_done) = mpsc::channel();
    let closing = thread::spawn(move || {
        // SAFETY: C2: no registration is open, and the table is not used any more.
        unsafe { MsQuicClose(table) };
        let _ = done.send(());
    });
    let is_closed = is_done.recv_timeout(PATIENCE / 4).is_ok();
    assert!(is_closed || is_2_6(), "MsQuicClose did not return");
    if is_closed {
        closing.join().unwrap();
        assert!(threads() <= before, "threads of the library are left");
    }
}
