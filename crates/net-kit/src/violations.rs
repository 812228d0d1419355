//! `Violations`: counts messages of a peer that exceed the limit, and says when it is closed.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How many recent violations end a connection.
pub(crate) const MAX_VIOLATIONS: u32 = 16;

/// The interval in which one violation expires.
const EXPIRY: Duration = Duration::from_secs(1);

/// The recent violations of one peer.
#[derive(Debug)]
pub(crate) struct Violations(Mutex<(u32, Instant)>);

impl Violations {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    /// Counts a violation, and returns whether the connection has to end.
    pub(crate) fn add(&self) -> bool {
        let (count, since) = &mut *self.0.lock();
        let seconds = u32::try_from(since.elapsed().as_secs()).unwrap_or(u32::MAX);
        let expired = (*count).min(seconds);
        *since += EXPIRY * seconds;
        *count += 1;
        *count -= expired;
        *count >= MAX_VIOLATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_burst_ends_the_connection_and_rare_violations_do_not() {
        let violations = Violations::new();
        for _ in 0..100 {
            assert!(!violations.add());
            advance(EXPIRY).await;
        }
        let burst = (1..).find(|_| violations.add()).unwrap();
        assert!((MAX_VIOLATIONS - 1..=MAX_VIOLATIONS).contains(&burst), "{burst}");
        advance(EXPIRY * u32::MAX).await;
        assert!(!violations.add());
    }
}
