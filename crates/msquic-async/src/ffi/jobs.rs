//! `Jobs`: what waits for a thread, in order of arrival. A job that has not begun can be taken back.

use std::collections::BTreeMap;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The place of a job in its queue. No other job of the queue gets the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

pub(super) struct Jobs {
    waiting: BTreeMap<Place, Job>,
    places: u64,
}

impl Jobs {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), places: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, job: Job) -> Place {
        self.places += 1;
        self.waiting.insert(Place(self.places), job);
        Place(self.places)
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.waiting.pop_first().map(|(_, job)| job)
    }

    /// Takes a job back, unless it has begun. Drop it without a lock: it may own the last count of a handle, whose
    /// close is a job too.
    #[must_use]
    pub(super) fn remove(&mut self, place: Place) -> Option<Job> {
        self.waiting.remove(&place)
    }
}
