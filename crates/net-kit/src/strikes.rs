//! `Strikes`: how many violations of the protocol a peer may commit.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How many violations end a connection.
pub(crate) const STRIKES: u32 = 16;

/// After how long a violation is forgiven.
const FORGIVEN: Duration = Duration::from_secs(1);

/// The violations of one peer that are not forgiven yet.
#[derive(Debug)]
pub(crate) struct Strikes(Mutex<(u32, Instant)>);

impl Strikes {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    /// Counts a violation, and returns whether the connection has to end.
    pub(crate) fn strike(&self) -> bool {
        let (count, since) = &mut *self.0.lock();
        let seconds = u32::try_from(since.elapsed().as_secs()).unwrap_or(u32::MAX);
        let forgiven = (*count).min(seconds);
        *since += FORGIVEN * seconds;
        *count += 1;
        *count -= forgiven;
        *count >= STRIKES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_burst_ends_the_connection_and_rare_violations_do_not() {
        let strikes = Strikes::new();
        for _ in 0..100 {
            assert!(!strikes.strike());
            advance(FORGIVEN).await;
        }
        let burst = (1..).find(|_| strikes.strike()).unwrap();
        assert!((STRIKES - 1..=STRIKES).contains(&burst), "{burst}");
        advance(FORGIVEN * u32::MAX).await;
        assert!(!strikes.strike());
    }
}
