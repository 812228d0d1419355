//! Tests that wakers, which are foreign code, are cloned without a lock.

use crate::waiters::Waiters;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// A task whose waker counts the clones that were made while `waiters` was locked.
struct Task {
    waiters: Arc<Waiters>,
    locked: Arc<AtomicUsize>,
}

impl Task {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(
        Self::clone,
        // SAFETY: as below; waking takes the count of the waker.
        |data| drop(unsafe { Arc::from_raw(data.cast::<Self>()) }),
        |_| (),
        // SAFETY: as below; the drop takes the count of the waker.
        |data| drop(unsafe { Arc::from_raw(data.cast::<Self>()) }),
    );

    fn waker(self) -> Waker {
        let data = Arc::into_raw(Arc::new(self)).cast();
        // SAFETY: `data` is a count of the task, which each function of the table treats as its own.
        unsafe { Waker::from_raw(RawWaker::new(data, &Self::VTABLE)) }
    }

    unsafe fn clone(data: *const ()) -> RawWaker {
        let task = data.cast::<Self>();
        // SAFETY: the waker that is cloned has a count of the task.
        unsafe {
            (*task).locked.fetch_add((*task).waiters.is_locked().into(), Ordering::SeqCst);
            Arc::increment_strong_count(task);
        }
        RawWaker::new(data, &Self::VTABLE)
    }
}

#[test]
fn wakers_are_cloned_without_a_lock() {
    let (waiters, locked) = (Arc::new(Waiters::default()), Arc::default());
    for _ in 0..1000 {
        let task = Task { waiters: waiters.clone(), locked: Arc::clone(&locked) };
        let polled = waiters.poll_registered(&Context::from_waker(&task.waker()), || None::<()>);
        assert!(polled.is_pending());
    }
    waiters.wake_all();
    assert_eq!(locked.load(Ordering::SeqCst), 0, "clones under the lock");
}
