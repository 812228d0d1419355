//! The suite with msquic on threads of its own, under four executors.

mod suite;

mod executors {
    use crate::suite::watchdog::Watchdog;
    use tokio::runtime::Runtime;

    /// Runs `test` under four executors, one after the other.
    pub(crate) fn run(test: impl AsyncFn()) {
        run_tokio(&test);
        let _watchdog = Watchdog::new();
        let mut current_thread = tokio::runtime::Builder::new_current_thread();
        current_thread.enable_all().build().unwrap().block_on(test());
        futures::executor::block_on(test());
        smol::block_on(test());
    }

    /// Runs `test`, which needs tokio's timers or tasks, under its multi-threaded executor.
    pub(crate) fn run_tokio(test: impl AsyncFn()) {
        let _watchdog = Watchdog::new();
        block_on(&Runtime::new().unwrap(), test());
    }

    pub(crate) fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
        runtime.block_on(future)
    }
}
