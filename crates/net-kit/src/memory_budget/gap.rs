//! `Gap`: data of a stream that waits for data before it.

use super::Share;
use super::pace::Progress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A gap in a stream, and what is behind it. It has to be filled in time, see [`Share::is_late`]. The
/// memory is charged separately.
#[derive(Debug)]
pub struct Gap {
    share: Arc<Share>,
    /// `Some` while there is a gap.
    number: Option<u64>,
}

impl Gap {
    /// Creates the state of a stream without a gap.
    pub fn new(share: &Arc<Share>) -> Self {
        Self { share: share.clone(), number: None }
    }

    /// Sets how many bytes are held behind the gap. Zero: the gap is filled.
    pub fn set(&mut self, held: usize) {
        let share = &*self.share;
        match (held, self.number) {
            (0, None) => {}
            (0, Some(number)) => {
                self.number = None;
                share.state.lock().gaps.0.remove(&number);
                share.budget.unfinished.fetch_sub(1, Ordering::SeqCst);
            }
            (_, None) => {
                let number = share.numbers.fetch_add(1, Ordering::Relaxed);
                share.state.lock().gaps.0.insert(number, Behind { held, since: Instant::now() });
                self.number = Some(number);
                share.budget.begin();
            }
            (_, Some(number)) => {
                if let Some(behind) = share.state.lock().gaps.0.get_mut(&number) {
                    behind.held = held;
                }
            }
        }
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The gaps in the streams of a connection, by age.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<u64, Behind>);

#[derive(Debug)]
struct Behind {
    held: usize,
    since: Instant,
}

impl Gaps {
    /// Returns whether a gap has existed for `timeout`, without the time in which the inbox was full.
    pub(super) fn is_late(&mut self, now: Instant, timeout: Duration, is_full: bool) -> bool {
        let mut gaps = self.0.values_mut();
        if is_full {
            gaps.for_each(|behind| behind.since = now);
            return false;
        }
        gaps.any(|behind| now.saturating_duration_since(behind.since) >= timeout)
    }

    /// Returns the gaps as messages that do not advance.
    pub(super) fn progress(&self, is_waiting: bool) -> impl Iterator<Item = Progress> {
        let progress = move |(number, behind): (&u64, &Behind)| Progress {
            number: *number,
            arrived: 0,
            held: behind.held,
            is_waiting,
        };
        self.0.iter().map(progress)
    }
}
