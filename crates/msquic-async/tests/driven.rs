//! The suite with msquic on the thread of the test itself: a call that waits for msquic hangs.
#![cfg(target_os = "linux")]

mod suite;

mod executors {
    use crate::suite::watchdog::Watchdog;
    use msquic_async::ExecutionDriver;
    use parking_lot::Mutex;
    use std::sync::LazyLock;
    use tokio::runtime::Runtime;

    static DRIVER: LazyLock<Mutex<ExecutionDriver>> =
        LazyLock::new(|| Mutex::new(ExecutionDriver::install().unwrap()));

    /// Runs `test` and msquic on this thread.
    pub(crate) fn run(test: impl AsyncFn()) {
        let mut driver = DRIVER.lock();
        let _watchdog = Watchdog::new();
        driver.block_on(test());
    }

    /// The same, with a runtime of tokio beside it for timers and tasks.
    pub(crate) fn run_tokio(test: impl AsyncFn()) {
        let _watchdog = Watchdog::new();
        block_on(&Runtime::new().unwrap(), test());
    }

    pub(crate) fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
        let _context = runtime.enter();
        DRIVER.lock().block_on(future)
    }
}
