//! `MayBlock`: proof that a call that waits for libmsquic's workers may be made here (C9).
//!
//! It exists only on threads that may block, and cannot be moved to others. Functions that block
//! take it as an argument, so the compiler keeps them out of async functions, destructors and
//! callbacks. Inside the callbacks of a connection the calls for that connection do not wait; see
//! [`Calls`](super::calls::Calls).

use super::execution;
use super::jobs::Place;
#[cfg(feature = "testing")]
use super::scripted;
use super::threads::{self, Kind};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Not `Send`, and neither is a reference to it.
pub(crate) struct MayBlock(PhantomData<*const ()>);

/// Runs `job` where it may block, and waits for its result without blocking.
///
/// If the future is dropped before the job has begun, the job is not run: however busy the workers
/// are, no more jobs wait than there are futures. A panic of the job is resumed in the future.
pub(crate) async fn unblock<T: Send + 'static>(
    job: impl FnOnce(&MayBlock) -> T + Send + 'static,
) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    let _queued = run(Kind::Call, move |may_block| {
        let result = catch_unwind(AssertUnwindSafe(|| job(may_block)));
        let _ = done.send(result); // the waiting future may be dropped
    });
    match result.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => unreachable!("a job was dropped before it ran"),
    }
}

/// Runs `job` where it may block, without waiting for it.
pub(crate) fn detach(job: impl FnOnce(&MayBlock) + Send + 'static) {
    run(Kind::Call, job).detach();
}

/// Runs `job`, which closes or stops a handle, where it may block, without waiting for it. Calls
/// that are stuck do not delay it.
pub(super) fn detach_close(job: impl FnOnce(&MayBlock) + Send + 'static) {
    run(Kind::Close, job).detach();
}

fn run(kind: Kind, job: impl FnOnce(&MayBlock) + Send + 'static) -> Queued {
    let job = move || job(&MayBlock(PhantomData));
    #[cfg(feature = "testing")]
    if kind == Kind::Call && scripted::is_installed() {
        let place = scripted::add_call(Box::new(job));
        return Queued { place, cancel: scripted::cancel_call };
    }
    // An application that drives libmsquic has no workers to wait for: the calls that would wait for them
    // run inline there, and must not overlap with the driver's (C29).
    match execution::run_on_driver(job) {
        Ok(place) => Queued { place, cancel: execution::cancel_on_driver },
        Err(job) => Queued { place: threads::run(kind, job), cancel: threads::cancel_call },
    }
}

/// Takes a job back when it is dropped, unless the job has begun.
#[must_use]
pub(crate) struct Queued {
    place: Place,
    cancel: fn(Place),
}

impl Queued {
    /// The job is run in any case.
    pub(crate) fn detach(self) {
        std::mem::forget(self);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        (self.cancel)(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::ffi::testing::pair;
    use futures_util::FutureExt;
    use parking_lot::Mutex;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    #[test]
    fn a_panic_of_a_job_is_resumed_where_its_result_is_awaited() {
        let call = AssertUnwindSafe(unblock(|_| panic!("on purpose"))).catch_unwind();
        let Err(panic) = futures::executor::block_on(call);
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }

    /// Occupies all threads until the sender is dropped.
    fn occupy() -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        // More calls than there are threads for, so that further ones wait.
        for _ in 0..100 {
            let released = released.clone();
            detach(move |_| {
                let _ = released.lock().recv();
            });
        }
        release
    }

    #[test]
    fn a_connection_that_needs_no_parameters_starts_without_a_thread() {
        let release = occupy();
        let (connected, is_connected) = mpsc::channel();
        let connect = std::thread::spawn(move || {
            let pair = futures::executor::block_on(pair(&Settings::default()));
            let _ = connected.send(());
            pair
        });
        let result = is_connected.recv_timeout(Duration::from_secs(30));
        drop(release);
        drop(connect.join());
        result.expect("connected while no thread was free");
    }

    #[test]
    fn futures_that_are_dropped_leave_no_jobs_behind() {
        let (release, memory) = (occupy(), Arc::new(()));
        for _ in 0..1000 {
            let memory = memory.clone();
            assert_eq!(unblock(move |_| drop(memory)).now_or_never(), None);
        }
        assert_eq!(Arc::strong_count(&memory), 1, "jobs without a future");
        drop(release);
        futures::executor::block_on(unblock(|_| ()));
    }
}
