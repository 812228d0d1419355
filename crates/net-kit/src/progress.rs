//! `unless_stuck`: waits for an operation as long as the peer takes data, within a total time.
//!
//! The first limit applies to the time *without progress*, since a large message on a slow path may
//! take long. The second limits the whole operation, because a peer can take a single byte now and
//! then. The watch runs inside the waiting future and needs tokio's timer. Dropping the future
//! drops the operation.

use net_traits::{RequestError, SendError};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much longer an operation may take while the peer takes other data.
const SLOW: u32 = 10;

/// How often progress is checked within the time limit.
const CHECKS: u32 = 4;

/// Longer than any limit that can be configured.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The progress of an operation at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// How much of what the operation waits for is done: a count in any unit that never decreases.
    pub done: u64,
    /// Whether the peer took other data since the last snapshot, or may be taking data that cannot
    /// be counted.
    pub is_moving: bool,
}

/// Measures the progress of an operation.
pub trait Progress: Send {
    /// Takes a snapshot.
    fn snapshot(&mut self) -> impl Future<Output = Snapshot> + Send;
}

/// A function that measures the progress without waiting.
impl<F: FnMut() -> Snapshot + Send> Progress for F {
    fn snapshot(&mut self) -> impl Future<Output = Snapshot> + Send {
        std::future::ready(self())
    }
}

/// How long one operation may take.
///
/// ```
/// use net_kit::progress::{Timeouts, Stuck};
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # runtime.block_on(async {
/// let short = Duration::from_millis(20);
/// let timeouts = Timeouts::begin(Duration::from_secs(12), short);
/// assert_eq!(timeouts.wait(std::future::pending::<()>()).await, Err(Stuck(short)));
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    no_progress: Duration,
    total: Duration,
    /// When the total time has passed.
    until: Instant,
}

impl Timeouts {
    /// Begins an operation that may make no progress for `no_progress`, and take `total`.
    pub fn begin(no_progress: Duration, total: Duration) -> Self {
        let now = Instant::now();
        let until = now.checked_add(total).unwrap_or(now + FOREVER);
        Self { no_progress, total, until }
    }

    /// Waits for a step of the operation whose progress is not visible.
    ///
    /// # Errors
    ///
    /// [`Stuck`]; `step` is dropped.
    ///
    /// # Cancel safety
    ///
    /// That of `step`.
    pub async fn wait<T>(self, step: impl Future<Output = T>) -> Result<T, Stuck> {
        let stuck = Instant::now() + self.no_progress;
        match timeout_at(stuck.min(self.until), step).await {
            Ok(output) => Ok(output),
            Err(_) if stuck < self.until => Err(Stuck(self.no_progress)),
            Err(_) => Err(Stuck(self.total)),
        }
    }
}

/// The operation made no progress for this duration, or has taken it in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck(pub Duration);

impl From<Stuck> for SendError {
    fn from(Stuck(after): Stuck) -> Self {
        Self::TimedOut { after }
    }
}

impl From<Stuck> for RequestError {
    fn from(Stuck(after): Stuck) -> Self {
        Self::TimedOut { after }
    }
}

/// Waits for `operation` as long as it makes progress, within the total time of `timeouts`.
///
/// The operation has to make progress within the first limit of `timeouts`. While the peer takes
/// other data, it may take ten times as long, so that a peer cannot delay it forever by taking
/// other data. The lack of progress is noticed up to a quarter of the limit later.
///
/// ```
/// use net_kit::progress::{Snapshot, Timeouts, Stuck, unless_stuck};
/// use std::future::pending;
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # runtime.block_on(async {
/// let limit = Duration::from_millis(20);
/// let timeouts = Timeouts::begin(limit, Duration::from_secs(60));
/// let nothing = || Snapshot { done: 0, is_moving: false };
/// assert_eq!(unless_stuck(timeouts, nothing, async { 7 }).await, Ok(7));
/// assert_eq!(unless_stuck(timeouts, nothing, pending::<()>()).await, Err(Stuck(limit)));
/// # });
/// ```
///
/// # Errors
///
/// [`Stuck`], with the time that passed without progress, or the total time; `operation` is
/// dropped.
///
/// # Cancel safety
///
/// That of `operation`.
pub async fn unless_stuck<T>(
    timeouts: Timeouts,
    mut progress: impl Progress,
    operation: impl Future<Output = T>,
) -> Result<T, Stuck> {
    let Timeouts { no_progress: limit, total, until } = timeouts;
    let mut operation = pin!(operation);
    let mut watch = Watch::default();
    loop {
        let next = Instant::now() + limit / CHECKS;
        if let Ok(output) = timeout_at(next.min(until), &mut operation).await {
            return Ok(output);
        }
        let snapshot = timeout_at(until, progress.snapshot()).await;
        let now = Instant::now();
        match snapshot {
            Ok(snapshot) if now < until => watch.saw(now, snapshot, limit)?,
            _ => return Err(Stuck(total)),
        }
    }
}

/// When progress was last seen.
#[derive(Default)]
struct Watch {
    done: Option<(u64, Instant)>,
    moved: Option<Instant>,
}

impl Watch {
    fn saw(&mut self, now: Instant, snapshot: Snapshot, limit: Duration) -> Result<(), Stuck> {
        let done = match self.done {
            Some((before, since)) if before == snapshot.done => since,
            _ => now,
        };
        self.done = Some((snapshot.done, done));
        if snapshot.is_moving {
            self.moved = Some(now);
        }
        let any = self.moved.map_or(done, |moved| moved.max(done));
        for (since, limit) in [(any, limit), (done, limit.saturating_mul(SLOW))] {
            if now - since >= limit {
                return Err(Stuck(limit));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    /// Returns the second at which the operation is stuck, with a snapshot every second, and the
    /// duration in the error.
    fn stuck(
        done: impl Fn(u64) -> u64,
        is_moving: impl Fn(u64) -> bool,
    ) -> Option<(u64, Duration)> {
        let (start, mut watch) = (Instant::now(), Watch::default());
        (1..100).find_map(|second| {
            let now = start + Duration::from_secs(second);
            let snapshot = Snapshot { done: done(second), is_moving: is_moving(second) };
            watch.saw(now, snapshot, LIMIT).err().map(|Stuck(after)| (second, after))
        })
    }

    #[test]
    fn only_the_whole_time_without_progress_is_too_long() {
        assert_eq!(stuck(|_| 0, |_| false), Some((5, LIMIT)));
        // Repeated pauses that are almost too long, and one that is too long.
        assert_eq!(stuck(|second| second / 4, |_| false), None);
        assert_eq!(stuck(|second| second.min(12) / 4, |_| false), Some((16, LIMIT)));
        assert_eq!(stuck(|second| second / 5, |_| false), Some((9, LIMIT)));
    }

    #[test]
    fn an_operation_has_longer_while_other_data_moves() {
        assert_eq!(stuck(|_| 0, |_| true), Some((41, 10 * LIMIT)));
        assert_eq!(stuck(|second| second / 39, |_| true), None);
        assert_eq!(stuck(|_| 0, |second| second <= 20), Some((24, LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_operation_is_polled_until_it_is_stuck() {
        let timeouts = || Timeouts::begin(LIMIT, 100 * LIMIT);
        let nothing = || Snapshot::default();
        let late = tokio::time::sleep(LIMIT - Duration::from_millis(1));
        assert_eq!(unless_stuck(timeouts(), nothing, late).await, Ok(()));
        let never = std::future::pending::<()>();
        assert_eq!(unless_stuck(timeouts(), nothing, never).await, Err(Stuck(LIMIT)));
        let never = std::future::pending::<()>();
        assert_eq!(timeouts().wait(never).await, Err(Stuck(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_cannot_exceed_the_total_time() {
        let (total, start, mut done) = (5 * LIMIT, Instant::now(), 0);
        let timeouts = Timeouts::begin(LIMIT, total);
        let byte_by_byte = move || {
            done += 1;
            Snapshot { done, is_moving: true }
        };
        let never = std::future::pending::<()>();
        assert_eq!(unless_stuck(timeouts, byte_by_byte, never).await, Err(Stuck(total)));
        assert_eq!(start.elapsed(), total);
        let never = std::future::pending::<()>();
        assert_eq!(timeouts.wait(never).await, Err(Stuck(total)), "the total time has passed");
        struct Busy;
        impl Progress for Busy {
            async fn snapshot(&mut self) -> Snapshot {
                std::future::pending().await
            }
        }
        let timeouts = Timeouts::begin(LIMIT, total);
        let never = std::future::pending::<()>();
        assert_eq!(unless_stuck(timeouts, Busy, never).await, Err(Stuck(total)));
    }
}
