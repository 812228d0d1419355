//! Ends the process when a test hangs.
#![allow(clippy::print_stderr, reason = "the watchdog has no caller")]

use std::sync::mpsc;
use std::time::Duration;

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

/// Ends the process unless it is dropped in time.
pub(crate) struct Watchdog(Option<mpsc::Sender<()>>);

impl Watchdog {
    pub(crate) fn new() -> Self {
        let (alive, gone) = mpsc::channel();
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            if gone.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs");
                std::process::abort();
            }
        });
        Self(Some(alive))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.take();
    }
}
