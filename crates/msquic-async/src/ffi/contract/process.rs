//! Clauses about the library as a whole and the end of the process, tested in child processes.

use super::events::{Event, TIMEOUT};
use super::handles::{Open, ignore};
use super::roots::Registration;
use super::{in_child, is_2_6, is_driven, prepare};
use crate::ffi::library;
use crate::ffi::processors::{set_busy_polling, set_processors};
use crate::ffi::slot::Slotted;
use crate::ffi::status::Status;
use crate::ffi::testing;
use crate::{Connection, Settings, Stream, StreamType};
use msquic::ffi;
use parking_lot::Mutex;
use std::process::{self, exit};
use std::ptr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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

/// The handles that a process still has when its library is closed.
static LEFT: Mutex<Option<(testing::Pair, Stream)>> = Mutex::new(None);

/// Runs after the exit handler of `ffi::library`.
extern "C" fn late() {
    // On a separate thread, since this one has no thread-local values any more.
    let used = thread::spawn(|| {
        assert!(library::is_closed(), "the library is open");
        let Some((pair, stream)) = LEFT.lock().take() else { panic!("nothing is left") };
        assert!(crate::api_table().is_err(), "a table that is freed");
        assert!(crate::Registration::new("late").is_err());
        assert!(crate::require_address_validation(false).is_err());
        #[cfg(all(feature = "driver", target_os = "linux"))]
        assert!(crate::ExecutionDriver::install().is_err());
        let connection = pair.client.clone();
        assert!(connection.send_datagram(&"late".into()).is_err());
        assert!(connection.with_raw(|_| ()).is_none());
        connection.shutdown(1, "late");
        assert!(futures::executor::block_on(connection.statistics()).is_err());
        assert!(Connection::new(&pair.registration, testing::credential()).is_err());
        let again = connection.open_outbound_stream(StreamType::Unidirectional, false);
        assert!(futures::executor::block_on(again).is_err());
        drop((connection, stream, pair));
    });
    if used.join().is_err() {
        // SAFETY: ends the process, whose other exit handlers have nothing to do.
        unsafe { libc::_exit(1) };
    }
}

#[test]
fn c2_nothing_is_called_after_the_close() {
    if is_driven() {
        return; // the end of a process does not close the library that it drives
    }
    if let Some(child) = in_child("process::c2_nothing_is_called_after_the_close") {
        assert!(child.is_success(), "{child}");
        return;
    }
    // SAFETY: the function does not unwind. Registered before the library is loaded, it runs later than the handler
    // of `ffi::library`.
    unsafe { libc::atexit(late) };
    prepare();
    let settings = Settings::new().peer_bidi_streams(1).datagrams(true);
    let left = futures::executor::block_on(async {
        let pair = testing::pair(&settings).await;
        let stream = pair.client.open_outbound_stream(StreamType::Bidirectional, false).await;
        (pair, stream.unwrap())
    });
    *LEFT.lock() = Some(left);
    exit(0);
}

#[test]
#[cfg(target_os = "linux")]
fn c46_processors_are_set_before_the_first_registration() {
    const NAME: &str = "process::c46_processors_are_set_before_the_first_registration";
    if let Some(child) = in_child(NAME) {
        assert!(child.is_success(), "{child}");
        return;
    }
    let allowed = |thread: &str| {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    };
    let all = allowed(&process::id().to_string());
    let last_cpu: u16 = all.rsplit([',', '-']).next().unwrap().parse().unwrap();
    // An index into the processors of this process, with the patch.
    let has_patch = library::has_patch("N18");
    let last = if has_patch { usable(&all) - 1 } else { last_cpu };
    if is_driven() {
        prepare();
        assert_eq!(set_processors(&[last]), Err(Status::INVALID_STATE));
        exit(0);
    }
    for refused in [&[][..], &[last, last], &[u16::MAX]] {
        assert_eq!(set_processors(refused), Err(Status::INVALID_PARAMETER), "{refused:?}");
    }
    set_processors(&[last]).unwrap();
    let _registration = crate::Registration::new("test").unwrap();
    set_processors(&[last]).unwrap();
    if last > 0 {
        assert_eq!(set_processors(&[last, 0]), Err(Status::INVALID_STATE));
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let on = threads.map(|entry| allowed(&entry.unwrap().file_name().into_string().unwrap()));
    let bound = on.filter(|on| *on == last_cpu.to_string()).count();
    assert!(bound == 1 || all == last_cpu.to_string(), "{bound} threads are bound to {last_cpu}");
    exit(0);
}

/// Counts the processors of a list like `0,4-7`.
#[cfg(target_os = "linux")]
fn usable(list: &str) -> u16 {
    let bounds = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (first.parse::<u16>().unwrap(), last.parse::<u16>().unwrap())
    };
    list.split(',').map(bounds).map(|(first, last)| last - first + 1).sum()
}

#[test]
#[cfg(target_os = "linux")]
fn c51_threads_poll_after_their_last_work() {
    if let Some(child) = in_child("process::c51_threads_poll_after_their_last_work") {
        assert!(child.is_success(), "{child}");
        return;
    }
    let second = Duration::from_secs(1);
    if is_driven() {
        assert_eq!(set_busy_polling(second), Err(Status::INVALID_STATE));
        exit(0);
    }
    let refused = [second + Duration::from_micros(1), Duration::MAX, Duration::from_nanos(1500)];
    for time in refused {
        assert_eq!(set_busy_polling(time), Err(Status::INVALID_PARAMETER), "{time:?}");
    }
    set_busy_polling(second).unwrap();
    set_processors(&[0]).unwrap();
    let pair = futures::executor::block_on(testing::pair(&Settings::new()));
    assert_eq!(set_busy_polling(second / 2), Err(Status::INVALID_STATE));
    set_busy_polling(second).unwrap(); // the processors have not changed it
    // Without polling, the calls take a tenth of this processor time.
    let before = ticks();
    for _ in 0..100 {
        futures::executor::block_on(pair.client.statistics()).unwrap();
        thread::sleep(second / 5);
        if ticks() >= before + 20 {
            exit(0);
        }
    }
    panic!("no thread has polled");
}

/// Returns the processor time of the process, in hundredths of a second.
#[cfg(target_os = "linux")]
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// A configuration of a process that ends.
static CONFIGURATION: Mutex<Option<crate::Configuration>> = Mutex::new(None);

/// Runs after the exit handler of `ffi::library`, before that of the TLS library.
extern "C" fn no_configuration_is_open() {
    let used = thread::spawn(|| {
        let Some(configuration) = CONFIGURATION.lock().take() else { panic!("none is left") };
        let used = configuration.native().with(|_| Ok(()));
        assert_eq!(used, Err(Status::INVALID_STATE), "the configuration is open");
    });
    if used.join().is_err() {
        // SAFETY: ends the process, whose other exit handlers have nothing to do.
        unsafe { libc::_exit(1) };
    }
}

#[test]
fn c3_a_process_that_ends_closes_its_configurations() {
    if let Some(child) = in_child("process::c3_a_process_that_ends_closes_its_configurations") {
        assert!(child.is_success(), "{child}");
        return;
    }
    // SAFETY: the function does not unwind. Registered before the library is loaded, it runs later than the handler
    // of `ffi::library`.
    unsafe { libc::atexit(no_configuration_is_open) };
    prepare();
    let registration = crate::Registration::new("test").unwrap();
    let settings = Settings::new();
    let alpn = [testing::ALPN];
    let configuration =
        crate::Configuration::server(&registration, &alpn, &settings, &testing::credential());
    *CONFIGURATION.lock() = Some(configuration.unwrap());
    exit(0);
}

#[test]
#[cfg(all(feature = "driver", target_os = "linux"))]
fn a_process_that_ends_inside_a_turn_waits_for_no_turn() {
    use super::HANG;
    use crate::ffi::execution;
    use std::time::Instant;
    if !is_driven() {
        return;
    }
    if let Some(child) = in_child("process::a_process_that_ends_inside_a_turn_waits_for_no_turn") {
        assert!(child.is_success(), "{child}");
        return;
    }
    let end = || {
        execution::drive_at_exit(Instant::now() + 2 * HANG, Box::new(|| false));
        exit(0);
    };
    assert!(execution::run_on_driver(end).is_ok());
    loop {
        thread::park();
    }
}

#[test]
fn c34_msquic_close_waits_for_the_threads_of_the_library() {
    if is_driven() {
        return; // the end of a process does not close the library that it drives
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
    let is_closed = is_done.recv_timeout(TIMEOUT / 4).is_ok();
    assert!(is_closed || is_2_6(), "MsQuicClose did not return");
    if is_closed {
        closing.join().unwrap();
        assert!(threads() <= before, "threads of the library are left");
    }
}
