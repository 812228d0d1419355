//! `MayBlock`: proof that a call that waits for libmsquic's workers may be made here (C9).
//!
//! It exists on threads only that have nothing else to do, and stays there. Functions that block take it as
//! an argument, so the compiler keeps them out of async functions, destructors and callbacks. Inside the
//! callbacks of a connection the calls for that connection do not wait; see [`Calls`](super::calls::Calls).

use super::execution;
use super::threads::{self, Kind};
use std::marker::PhantomData;

/// Not `Send`, and neither is a reference to it.
pub(crate) struct MayBlock(PhantomData<*const ()>);

/// Runs `job` where it may block, and waits for its result without blocking.
///
/// The job is run even if the future is dropped.
pub(crate) async fn unblock<T: Send + 'static>(
    job: impl FnOnce(&MayBlock) -> T + Send + 'static,
) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    detach(move |may_block| {
        let _ = done.send(job(may_block)); // the waiting future may be dropped
    });
    match result.await {
        Ok(result) => result,
        Err(_) => unreachable!("a job was thrown away"),
    }
}

/// Runs `job` where it may block, some time.
pub(crate) fn detach(job: impl FnOnce(&MayBlock) + Send + 'static) {
    run(Kind::Call, job);
}

/// Runs `job`, which closes or stops a handle, where it may block, some time: calls that are stuck do not delay
/// it.
pub(super) fn detach_close(job: impl FnOnce(&MayBlock) + Send + 'static) {
    run(Kind::Close, job);
}

fn run(kind: Kind, job: impl FnOnce(&MayBlock) + Send + 'static) {
    let job = move || job(&MayBlock(PhantomData));
    // An application that drives libmsquic has no workers to wait for: the calls that would wait for them
    // run inline there, and must not overlap with the driver's (C29).
    if let Err(job) = execution::run_on_driver(job) {
        threads::run(kind, job);
    }
}
