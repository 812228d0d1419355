//! `Gap`: data of a stream that waits for data before it.

use super::Share;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
                share.state.lock().gaps.remove(number);
                share.budget.unfinished.fetch_sub(1, Ordering::SeqCst);
            }
            (_, None) => {
                let number = share.numbers.fetch_add(1, Ordering::Relaxed);
                share.state.lock().gaps.set(number, held);
                self.number = Some(number);
                share.budget.begin();
            }
            (_, Some(number)) => share.state.lock().gaps.set(number, held),
        }
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        self.set(0);
    }
}
