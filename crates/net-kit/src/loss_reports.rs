//! `LossReports`: reports to each handle of a connection that messages were lost with a stopped
//! stream.
//!
//! If the peer stops a stream, messages are lost whose `send` has returned `Ok`, and it is not
//! known which tasks sent them. The next flush of each handle therefore reports the loss, once for
//! each handle, and so does each flush in progress. A task that has its own clone of the connection
//! is told of every loss.

use net_traits::SendError;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often streams of a connection were stopped.
///
/// ```
/// use net_kit::loss_reports::LossReports;
/// use net_traits::SendError;
///
/// let loss_reports = LossReports::default();
/// let (one, other) = (loss_reports.cursor(), loss_reports.cursor());
/// let before = one.position();
/// loss_reports.record(7);
/// let lost = Err(SendError::Stopped { code: 7 });
/// assert_eq!(loss_reports.check(&one, before), lost);
/// assert_eq!(loss_reports.check(&one, one.position()), Ok(()), "once");
/// assert_eq!(loss_reports.check(&other, other.position()), lost, "once for each handle");
/// assert_eq!(loss_reports.check(&loss_reports.cursor(), 1), Ok(()), "before the handle existed");
/// ```
#[derive(Debug, Default)]
pub struct LossReports(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    /// The code of the last stream.
    code: u64,
}

/// The position of a handle in the sequence of losses: those before it were reported. A clone of
/// the handle begins at the same position.
#[derive(Debug, Default)]
pub struct LossCursor(AtomicU64);

impl LossReports {
    /// Records that the peer stopped a stream with `code`. Call it before waking the tasks that
    /// flush.
    pub fn record(&self, code: u64) {
        let state = &mut *self.0.lock();
        *state = State { count: state.count + 1, code };
    }

    /// Returns the cursor of a new handle, to which earlier losses are not reported.
    pub fn cursor(&self) -> LossCursor {
        LossCursor(self.0.lock().count.into())
    }

    /// Reports the losses since `before` to a flush of the handle with `cursor`, and advances the
    /// cursor. `before` is its [position](LossCursor::position) when the flush began.
    ///
    /// # Errors
    ///
    /// [`SendError::Stopped`] with the code of the last loss.
    pub fn check(&self, cursor: &LossCursor, before: u64) -> Result<(), SendError> {
        let State { count, code } = *self.0.lock();
        cursor.0.fetch_max(count, Ordering::Relaxed);
        if count > before { Err(SendError::Stopped { code }) } else { Ok(()) }
    }
}

impl LossCursor {
    /// Returns how many losses there were when the handle was last told.
    pub fn position(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for LossCursor {
    fn clone(&self) -> Self {
        Self(self.position().into())
    }
}
