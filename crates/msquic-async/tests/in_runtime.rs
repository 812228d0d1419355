//! The suite with msquic inside a tokio runtime: the tests are tasks of the runtime that drives.
#![cfg(target_os = "linux")]

mod suite;

use executors::runtime;
use msquic_async::{ExecutionDriver, Status};

#[test]
fn a_driver_beside_the_runtime_is_refused() {
    let _ = runtime();
    assert_eq!(ExecutionDriver::install().err(), Some(Status::INVALID_STATE));
}

#[test]
fn the_stand_in_drives_while_the_runtime_is_blocked() {
    let _watchdog = suite::watchdog::Watchdog::new();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    // All threads of the runtime wait for what another executor does with msquic.
    let blocked = runtime().spawn(async move {
        let _ = is_done.recv();
    });
    futures::executor::block_on(suite::stream::echo());
    drop(done);
    runtime().block_on(blocked).unwrap();
}

#[test]
fn a_runtime_that_ends_leaves_msquic_to_a_thread() {
    const NAME: &str = "a_runtime_that_ends_leaves_msquic_to_a_thread";
    if std::env::var_os(NAME).is_none() {
        // In a process of its own: there is one driver in a process.
        let program = std::env::current_exe().unwrap();
        let child =
            std::process::Command::new(program).args([NAME, "--exact"]).env(NAME, "").status();
        assert!(child.unwrap().success());
        return;
    }
    let _watchdog = suite::watchdog::Watchdog::new();
    let driver = ExecutionDriver::install().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.spawn(driver.run());
    runtime.block_on(async { tokio::spawn(suite::stream::echo()).await.unwrap() });
    // A runtime of one thread does nothing outside of `block_on`.
    futures::executor::block_on(suite::stream::echo());
    drop(runtime);
    futures::executor::block_on(suite::stream::echo());
}

mod executors {
    use crate::suite::watchdog::Watchdog;
    use msquic_async::ExecutionDriver;
    use std::sync::LazyLock;
    use tokio::runtime::{Builder, Runtime};

    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(ExecutionDriver::install().unwrap().run());
        runtime
    });

    /// Returns the runtime that drives msquic, on one thread.
    pub(crate) fn runtime() -> &'static Runtime {
        &RUNTIME
    }

    pub(crate) fn run(test: impl AsyncFn()) {
        run_tokio(test);
    }

    pub(crate) fn run_tokio(test: impl AsyncFn()) {
        let _watchdog = Watchdog::new();
        runtime().block_on(test());
    }

    pub(crate) fn block_on<F: Future>(_: &Runtime, future: F) -> F::Output {
        runtime().block_on(future)
    }
}
