//! The suite with msquic on the thread of the test itself: a call that waits for msquic hangs.
#![cfg(target_os = "linux")]

mod suite;

use executors::DRIVER;
use msquic_async::{ExecutionDriver, Status};
use smol::{Async, Timer};
use std::os::fd::AsFd;

#[test]
fn a_second_driver_is_refused() {
    let _first = DRIVER.lock();
    assert_eq!(ExecutionDriver::install().err(), Some(Status::INVALID_STATE));
}

#[test]
fn another_event_loop_may_take_the_turns() {
    let mut driver = DRIVER.lock();
    let _watchdog = suite::watchdog::Watchdog::new();
    let events = Async::new_nonblocking(driver.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let drive = async {
        loop {
            let time = driver.turn().map_or_else(Timer::never, Timer::after);
            smol::future::or(async { events.readable().await.unwrap() }, async {
                time.await;
            })
            .await;
        }
    };
    smol::block_on(smol::future::or(drive, suite::stream::echo()));
}

mod executors {
    use crate::suite::watchdog::Watchdog;
    use msquic_async::ExecutionDriver;
    use parking_lot::Mutex;
    use std::sync::LazyLock;
    use tokio::runtime::Runtime;

    pub(crate) static DRIVER: LazyLock<Mutex<ExecutionDriver>> =
        LazyLock::new(|| Mutex::new(ExecutionDriver::install().unwrap()));

    /// Runs `test` and msquic on this thread.
    pub(crate) fn run(test: impl AsyncFn()) {
        let mut driver = DRIVER.lock();
        let _watchdog = Watchdog::new();
        driver.block_on(test());
    }

    /// Does the same, with a tokio runtime for timers and tasks.
    pub(crate) fn run_tokio(test: impl AsyncFn()) {
        let _watchdog = Watchdog::new();
        block_on(&Runtime::new().unwrap(), test());
    }

    pub(crate) fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
        let _context = runtime.enter();
        DRIVER.lock().block_on(future)
    }
}
