//! `MayBlock`: proof that a call that waits for libmsquic's workers may be made here (C9).
//!
//! Functions that block take it as an argument. It exists in two places only: on threads that have
//! nothing else to do, and inside callbacks, where the calls for the same connection run inline. So
//! the compiler keeps them out of async functions and destructors.

use super::execution;

pub(crate) struct MayBlock(());

impl MayBlock {
    /// For callbacks, and for the end of the process.
    pub(super) const HERE: &'static Self = &Self(());

    /// For handles that are not open.
    #[cfg(test)]
    pub(crate) const NOTHING: &'static Self = &Self(());
}

/// Runs `job` where it may block, and waits for its result without blocking.
///
/// The job is run even if the future is dropped.
pub(crate) async fn unblock<T: Send + 'static>(
    job: impl FnOnce(&MayBlock) -> T + Send + 'static,
) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    detach(move |may_block| {
        let _ = done.send(job(may_block)); // nobody may be waiting any more
    });
    match result.await {
        Ok(result) => result,
        Err(_) => unreachable!("a job was thrown away"),
    }
}

/// Runs `job` where it may block, some time.
pub(crate) fn detach(job: impl FnOnce(&MayBlock) + Send + 'static) {
    let job = move || job(&MayBlock(()));
    // Whoever drives libmsquic itself has no workers to wait for: the calls that would wait for them
    // run inline there, and must not overlap with the driver's (C29).
    if let Err(job) = execution::run_on_driver(job) {
        blocking::unblock(job).detach();
    }
}
