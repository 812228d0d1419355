//! The tests of `docs/msquic-contract.md`: at least one for each testable clause, with the linked
//! libmsquic.
//!
//! The tests call the raw table as `ffi` does, on the workers of msquic and, in a child process, driven by the
//! application. A test is named after its clause; the contract names the tests of each clause.

mod callbacks;
mod connections;
mod datagrams;
mod events;
mod executions;
mod handles;
mod harness;
mod listeners;
mod process;
mod receiving;
mod registrations;
mod resumption;
mod roots;
mod secrets;
mod streams;
mod threads;

use super::execution;
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, abort};
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

/// The variable that marks a child process that drives libmsquic itself.
const DRIVEN: &str = "MSQUIC_ASYNC_CONTRACT_DRIVEN";

/// The variable that marks a child process in which a single test runs.
const CHILD: &str = "MSQUIC_ASYNC_CONTRACT_CHILD";

/// The timeout of a child process. The tests take seconds.
const HANG: Duration = Duration::from_secs(120);

/// Whether the application drives libmsquic in this process.
fn is_driven() -> bool {
    prepare();
    execution::is_driven()
}

/// Whether the linked library has the patch.
fn is_patched(fault: &str) -> bool {
    libmsquic_sys::PATCHES.iter().any(|patch| patch.fault == fault)
}

/// Whether the test has to be skipped because the linked library lacks the patch; says so.
fn lacks_patch(fault: &str) -> bool {
    is_skipped(is_patched(fault), format_args!("the library lacks the patch {fault}"))
}

/// Whether the test has to be skipped because registrations stay open (C29); says so.
fn keeps_registrations() -> bool {
    prepare();
    is_skipped(execution::closes_registrations(), "a driven registration stays open")
}

/// Prints why the calling test is skipped unless it `can_run`. The output of a test that passes is captured, this is
/// not.
fn is_skipped(can_run: bool, reason: impl fmt::Display) -> bool {
    if !can_run {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(io::stderr(), "{name} skipped: {reason}");
    }
    !can_run
}

/// Whether the linked library is at least 2.6.
fn is_2_6() -> bool {
    let version = crate::library_version().unwrap();
    (version.major, version.minor) >= (2, 6)
}

/// Installs the driver in a driven child, before its first registration.
fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        if env::var_os(DRIVEN).is_none() && env::var_os(CHILD).is_none() {
            return;
        }
        #[cfg(all(feature = "driver", target_os = "linux"))]
        if env::var_os(DRIVEN).is_some() {
            drop(crate::ExecutionDriver::install().unwrap()); // a separate thread drives from now on
        }
        thread::spawn(|| {
            thread::sleep(HANG);
            abort();
        });
    });
}

/// Runs `job` outside of callbacks, where calls that wait may be made: not at the same time as a turn of the driver.
fn outside<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    if events::is_inside() {
        return job(); // closes a handle that the test did not close
    }
    let (done, result) = mpsc::channel();
    let job = move || {
        let _ = done.send(events::inside(job));
    };
    if let Err(job) = execution::run_on_driver(job) {
        job();
    }
    result.recv().unwrap()
}

/// How a child process ended.
struct Child(Output);

impl Child {
    fn is_success(&self) -> bool {
        self.0.status.success()
    }

    /// Whether an assertion of libmsquic failed.
    fn is_aborted(&self) -> bool {
        self.0.status.signal() == Some(libc::SIGABRT)
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, err) = (&self.0.stdout, &self.0.stderr);
        writeln!(f, "{}", self.0.status)?;
        write!(f, "{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    }
}

/// Runs the calling test again in a child process, and returns its result; `None` in the child.
fn in_child(test: &str) -> Option<Child> {
    if env::var_os(CHILD).is_some() {
        return None;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.env(CHILD, "1").args(["--exact", "--nocapture"]).arg(format!("ffi::contract::{test}"));
    let output = child.output().unwrap();
    let has_run = String::from_utf8_lossy(&output.stdout).contains("running 1 test");
    assert!(has_run, "there is no test {test}");
    Some(Child(output))
}

#[test]
#[cfg(all(feature = "driver", target_os = "linux"))]
fn the_clauses_hold_when_the_application_drives() {
    if env::var_os(DRIVEN).is_some() {
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    let child = child.arg("ffi::contract::").env(DRIVEN, "1").output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}\n{text}", child.status);
}
