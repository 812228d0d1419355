//! `Quota`: how many lines of a kind the log gets, whatever peers do.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Lines of one kind in one period.
pub(crate) const LINES: u32 = 20;

const PERIOD: Duration = Duration::from_secs(1);

/// Lines of one kind.
#[derive(Debug)]
pub(crate) struct Quota(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), lines: 0, suppressed: 0 }))
    }
}

impl Quota {
    /// Returns how many lines were suppressed since the last one, `None` if this one is suppressed too.
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
    async fn lines_beyond_the_quota_are_counted_and_told_later() {
        let quota = Quota::default();
        let taken = (0..1000).filter(|_| quota.take() == Some(0)).count();
        assert_eq!(taken, LINES as usize);
        tokio::time::advance(PERIOD).await;
        assert_eq!(quota.take(), Some(1000 - u64::from(LINES)));
        assert_eq!(quota.take(), Some(0));
    }
}
