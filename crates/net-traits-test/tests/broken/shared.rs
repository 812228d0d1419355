//! What the handles of a broken connection share: its queue and its end.

use super::{Fault, QUEUE, Shared, polled};
use bytes::Bytes;
use net_traits::{NetConnection, SendError};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::sleep;

impl Shared {
    /// Returns whether the peer may make no progress for long.
    pub(super) fn is_patient(&self) -> bool {
        self.limits.no_progress_timeout > Duration::from_secs(60)
    }

    /// Returns whether an operation may take less than a second in total.
    pub(super) fn has_short_operations(&self) -> bool {
        self.limits.operation_timeout < Duration::from_secs(1)
    }

    /// Returns whether a connection lingers after its last handle. Faults of queues need it.
    pub(super) fn lingers(&self) -> bool {
        self.limits.linger > Duration::from_secs(1)
    }

    /// Flushes, with the faults of flushes.
    pub(super) async fn flush(&self) -> Result<(), SendError> {
        if self.fault == Fault::LossesOfEndsAreNotCounted && self.late.load(Ordering::SeqCst) > 0 {
            return Err(SendError::Closed(self.inner.watch_close().await)); // as if they were lost with it
        }
        if self.fault == Fault::QueueCountsMessages && !self.is_patient() {
            let all = u32::try_from(QUEUE).expect("it is small");
            drop(self.room.acquire_many(all).await); // the messages before are sent
        }
        if self.fault == Fault::FlushIsLocal {
            return Ok(()); // as if what was written were delivered
        }
        if self.fault == Fault::FlushHangs && !self.is_patient() {
            std::future::pending::<()>().await;
        }
        if self.fault == Fault::DroppedFlushesEndLaterOnes {
            let flush = async {
                yield_now().await;
                self.inner.flush().await
            };
            return polled::one_at_a_time(&self.dropped_flushes, flush).await;
        }
        if self.fault == Fault::FlushNeverPauses {
            return unconstrained(self.inner.flush()).await;
        }
        match self.inner.flush().await {
            Err(SendError::Closed(_)) if self.fault == Fault::FlushForgetsTheEnd => Ok(()),
            flushed => flushed,
        }
    }

    /// Puts a message into the queue that counts messages.
    pub(super) async fn queue(&self, message: Bytes) -> Result<(), SendError> {
        let after = self.limits.no_progress_timeout.min(self.limits.operation_timeout);
        let place = tokio::select! {
            biased;
            reason = self.inner.watch_close() => return Err(SendError::Closed(reason)),
            place = self.room.clone().acquire_owned() => place.expect("it is never closed"),
            () = sleep(after) => return Err(SendError::TimedOut { after }),
        };
        match self.queue.send((message, place)) {
            Ok(()) => Ok(()),
            // The runtime of the task has ended.
            Err(mpsc::error::SendError((message, _))) => self.inner.send_bytes(message).await,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let leaks = match self.fault {
            Fault::ClonesLeak => self.is_cloned.load(Ordering::SeqCst),
            Fault::OrphansLeak => self.context.strong_count() == 0,
            Fault::DropsLingerForever => self.is_patient(),
            Fault::LingeringConnectionsEscape => self.limits.linger > Duration::from_secs(60),
            Fault::DropsNeedARuntime if self.lingers() => {
                drop(Handle::current());
                false
            }
            _ => false,
        };
        if leaks {
            std::mem::forget(self.inner.clone());
        }
    }
}
