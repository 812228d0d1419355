//! What the handles of a broken connection share: its queue and its end.

use super::{Fault, Shared};
use bytes::Bytes;
use net_traits::{NetConnection, SendError};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep;

impl Shared {
    /// Returns whether the peer may make no progress for long.
    pub(super) fn is_patient(&self) -> bool {
        self.limits.no_progress_timeout > Duration::from_secs(60)
    }

    /// Returns whether a connection lingers after its last handle. Faults of queues need it.
    pub(super) fn lingers(&self) -> bool {
        self.limits.linger > Duration::from_secs(1)
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
