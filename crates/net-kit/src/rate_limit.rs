//! `RateLimit`: limits the log lines of one kind that peers can cause.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How many lines of one kind are logged in one period.
pub(crate) const LINES: u32 = 20;

const PERIOD: Duration = Duration::from_secs(1);

/// The rate limit of the log lines of one kind.
#[derive(Debug)]
pub(crate) struct RateLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), lines: 0, suppressed: 0 }))
    }
}

impl RateLimit {
    /// Returns how many lines were suppressed since the last one, `None` if this one is suppressed
    /// too.
    pub(crate) fn take(&self) -> Option<u64> {
        let state = &mut *self.0.lock();
        if state.since.elapsed() >= PERIOD {
            (state.since, state.lines) = (Instant::now(), 0);
        }
        if state.lines == LINES {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_limit_are_counted_and_the_next_line_gets_the_count() {
        let limit = RateLimit::default();
        let taken = (0..1000).filter(|_| limit.take() == Some(0)).count();
        assert_eq!(taken, LINES as usize);
        tokio::time::advance(PERIOD).await;
        assert_eq!(limit.take(), Some(1000 - u64::from(LINES)));
        assert_eq!(limit.take(), Some(0));
    }
}
