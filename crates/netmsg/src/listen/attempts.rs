//! `FailedAttempts`: how often failed connection attempts are printed.

use std::time::{Duration, Instant};

/// Every host can make attempts, so that at most one failure a second is printed.
#[derive(Debug, Default)]
pub(super) struct FailedAttempts {
    printed: Option<Instant>,
    hidden: u64,
}

impl FailedAttempts {
    /// Returns `None` if the failure is not to be printed. Otherwise, returns how many were not
    /// printed before.
    pub(super) fn on_failure(&mut self, now: Instant) -> Option<u64> {
        if self.printed.is_some_and(|printed| now.duration_since(printed) < INTERVAL) {
            self.hidden += 1;
            return None;
        }
        self.printed = Some(now);
        Some(std::mem::take(&mut self.hidden))
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_a_second_is_printed_and_the_others_are_counted() {
        let (mut attempts, start) = (FailedAttempts::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let expected = [(0, Some(0)), (1, None), (999, None), (1000, Some(2)), (2000, Some(0))];
        for (milliseconds, hidden) in expected {
            assert_eq!(attempts.on_failure(at(milliseconds)), hidden, "{milliseconds}");
        }
    }
}
