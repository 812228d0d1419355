//! `unless_stuck`: waits for an operation as long as the peer takes data.
//!
//! Limits measure the *lack of progress*, not the duration: a large message on a slow path may take
//! long. The watch runs inside the waiting future, needs tokio's timer, and owns nothing else;
//! dropping the future drops the operation.

use net_traits::{RequestError, SendError};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How much longer an operation may take while the peer takes other data.
const SLOW: u32 = 10;

/// How often progress is looked for within the time limit.
const LOOKS: u32 = 4;

/// What is seen of an operation at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// How much of what the operation waits for is done, in any unit that only grows.
    pub done: u64,
    /// Whether the peer took other data since the last look, or takes data that cannot be counted.
    pub is_moving: bool,
}

/// Sees how far an operation is.
pub trait Progress: Send {
    /// Looks again.
    fn look(&mut self) -> impl Future<Output = Look> + Send;
}

/// A [`Progress`] that is read without waiting.
impl<F: FnMut() -> Look + Send> Progress for F {
    fn look(&mut self) -> impl Future<Output = Look> + Send {
        std::future::ready(self())
    }
}

/// The peer took no data for this duration.
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

/// Waits for `operation` as long as it makes progress.
///
/// It has to be seen to progress within `limit`. While the peer takes other data it may take ten
/// times as long, no longer: a peer must not delay an operation for ever by taking other data. Up to
/// a quarter of `limit` passes until the lack of progress is noticed.
///
/// ```
/// use net_kit::progress::{Look, Stuck, unless_stuck};
/// use std::time::Duration;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # runtime.block_on(async {
/// let limit = Duration::from_millis(20);
/// let nothing = || Look { done: 0, is_moving: false };
/// assert_eq!(unless_stuck(limit, nothing, async { 7 }).await, Ok(7));
/// assert_eq!(unless_stuck(limit, nothing, std::future::pending::<()>()).await, Err(Stuck(limit)));
/// # });
/// ```
///
/// # Errors
///
/// [`Stuck`], with the time that passed without progress; `operation` is dropped.
///
/// # Cancel safety
///
/// That of `operation`.
pub async fn unless_stuck<T>(
    limit: Duration,
    mut progress: impl Progress,
    operation: impl Future<Output = T>,
) -> Result<T, Stuck> {
    let mut operation = pin!(operation);
    let mut watch = Watch::default();
    loop {
        if let Ok(output) = timeout(limit / LOOKS, &mut operation).await {
            return Ok(output);
        }
        let look = progress.look().await;
        watch.saw(Instant::now(), look, limit)?;
    }
}

/// When progress was last seen.
#[derive(Default)]
struct Watch {
    done: Option<(u64, Instant)>,
    moved: Option<Instant>,
}

impl Watch {
    fn saw(&mut self, now: Instant, look: Look, limit: Duration) -> Result<(), Stuck> {
        let done = match self.done {
            Some((before, since)) if before == look.done => since,
            _ => now,
        };
        self.done = Some((look.done, done));
        if look.is_moving {
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

    /// The second at which it is stuck, with a look every second, and the duration it names.
    fn stuck(
        done: impl Fn(u64) -> u64,
        is_moving: impl Fn(u64) -> bool,
    ) -> Option<(u64, Duration)> {
        let (start, mut watch) = (Instant::now(), Watch::default());
        (1..100).find_map(|second| {
            let now = start + Duration::from_secs(second);
            let look = Look { done: done(second), is_moving: is_moving(second) };
            watch.saw(now, look, LIMIT).err().map(|Stuck(after)| (second, after))
        })
    }

    #[test]
    fn only_the_whole_time_without_progress_is_too_long() {
        assert_eq!(stuck(|_| 0, |_| false), Some((5, LIMIT)));
        // A pause that is almost too long, again and again, and one that is too long.
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
        let nothing = || Look::default();
        let late = tokio::time::sleep(LIMIT - Duration::from_millis(1));
        assert_eq!(unless_stuck(LIMIT, nothing, late).await, Ok(()));
        let never = std::future::pending::<()>();
        assert_eq!(unless_stuck(LIMIT, nothing, never).await, Err(Stuck(LIMIT)));
    }
}
