//! `Progress`: tasks that wait until the bytes of a stream are completed up to an offset of their own.
//!
//! A completion wakes the futures whose bytes it completed, and no others. `poll_*` functions cannot know when
//! their caller stops waiting, so they are woken by each completion.

// The mutex of `parking_lot`, or of a model checker: `tests/models` includes this file too.
use crate::lock::Mutex;
use crate::waiters::Waiters;
use crate::waker_check::registered;
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Progress {
    line: Mutex<Line>,
    pub(super) pollers: Waiters,
}

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Key, Waker>,
    places: u64,
}

/// The offset, and a number that distinguishes the futures that wait for it.
type Key = (u64, u64);

impl Progress {
    /// Wakes the futures that wait for bytes up to `offset`, which are completed.
    pub(super) fn wake_up_to(&self, offset: u64) {
        let mut due = Vec::new();
        {
            let mut line = self.line.lock();
            while let Some(first) = line.waiting.first_entry()
                && first.key().0 <= offset
            {
                due.push(first.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
        self.pollers.wake_all();
    }

    /// Wakes all futures, since nothing is sent any more.
    pub(super) fn wake_all(&self) {
        self.wake_up_to(u64::MAX);
    }

    fn leave(&self, key: Key) {
        let waker = self.line.lock().waiting.remove(&key);
        drop(waker); // foreign code, after unlocking
    }
}

/// The place of a future, which it leaves when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place<'a>(Option<(&'a Progress, Key)>);

impl<'a> Place<'a> {
    /// Ready once `check` returns a value; until then, waits for the bytes up to `offset`.
    pub(crate) fn poll_until<T>(
        &mut self,
        progress: &'a Progress,
        offset: u64,
        cx: &Context<'_>,
        mut check: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if let Some(value) = check() {
            return Poll::Ready(value);
        }
        let waker = cx.waker().clone();
        let before = {
            let line = &mut *progress.line.lock();
            let (_, key) = self.0.get_or_insert_with(|| {
                line.places += 1;
                (progress, (offset, line.places))
            });
            line.waiting.insert(*key, waker)
        };
        drop(before); // foreign code, after unlocking
        registered();
        // A completion in between found no waker.
        check().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some((progress, key)) = self.0 {
            progress.leave(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    #[test]
    fn futures_that_are_dropped_leave_nothing() {
        let progress = Progress::default();
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let mut places: Vec<_> = (0..100).map(|_| Place::default()).collect();
        for _ in 0..3 {
            for (offset, place) in places.iter_mut().enumerate() {
                let wait = place.poll_until(&progress, offset as u64, &cx, || None::<()>);
                assert!(wait.is_pending());
            }
            assert_eq!(progress.line.lock().waiting.len(), 100);
        }
        progress.wake_up_to(49);
        assert_eq!(progress.line.lock().waiting.len(), 50);
        places.truncate(70);
        assert_eq!(progress.line.lock().waiting.len(), 20);
        drop(places);
        assert!(progress.line.lock().waiting.is_empty());
    }
}
