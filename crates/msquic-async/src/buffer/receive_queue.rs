//! `ReceiveQueue`: bytes that arrived and were not read.
//!
//! Bytes that are copied have a budget: the queue takes what fits. When it takes fewer than offered, the
//! stream is *paused* and msquic keeps the rest, so that flow control slows the sender down. The stream is
//! resumed when half of the budget is free. Bytes that are *held* in msquic's memory have no budget: the
//! sender gets no credit for them while they are in use, so the windows of the stream and of the connection
//! bound them. Adjacent runs are merged, so that many small arrivals are few runs. When the connection closes,
//! the queue takes all that msquic still holds, whatever the budget. The bytes that msquic no longer holds are
//! added to a counter of the connection.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that stay where they were received.
pub(crate) trait Run: Into<Bytes> {
    fn len(&self) -> usize;
    /// Appends `next`, if it follows this one in memory.
    fn append(&mut self, next: Self) -> Result<(), Self>;
    /// Splits off the first `count` bytes, if that is possible; `count` is less than the length.
    fn split_to(&mut self, count: usize) -> Option<Self>;
}

#[derive(Debug)]
pub(crate) struct ReceiveQueue<R> {
    /// Bytes that were put back; they are read first.
    unread: VecDeque<Bytes>,
    /// Bytes that are read next, held or copied.
    runs: VecDeque<R>,
    copied: BytesMut,
    budget: usize,
    paused: bool,
    /// Held bytes that are taken out from now on have to be copied when they are put back.
    copies_unread: bool,
    /// Held bytes that were read. Dropping them calls msquic, which is not allowed under the
    /// queue's lock.
    spent: Vec<Bytes>,
    /// The bytes that were put back or copied, in all queues of the connection.
    queued: Arc<AtomicUsize>,
    /// How many of them are in this queue.
    counted: usize,
}

impl<R: Run> ReceiveQueue<R> {
    /// Creates an empty queue, which counts what it stores in `queued`.
    pub(crate) fn new(budget: usize, queued: &Arc<AtomicUsize>) -> Self {
        Self {
            unread: VecDeque::new(),
            runs: VecDeque::new(),
            copied: BytesMut::new(),
            budget: budget.max(1),
            paused: false,
            copies_unread: false,
            spent: Vec::new(),
            queued: queued.clone(),
            counted: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.runs.is_empty() && self.copied.is_empty()
    }

    /// Copies what fits of `slices` and returns how many bytes that were; all of them if they are the last of
    /// the connection (`is_rest`), which the window of the stream bounds.
    pub(crate) fn push<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        is_rest: bool,
    ) -> usize {
        let mut taken = 0;
        let put_back = self.put_back();
        let budget = if is_rest { usize::MAX } else { self.budget };
        for slice in slices {
            let room = budget.saturating_sub(put_back + self.copied.len());
            let part = slice.len().min(room);
            self.copied.extend_from_slice(&slice[..part]);
            taken += part;
            if part < slice.len() {
                self.paused = true;
                break;
            }
        }
        self.count();
        taken
    }

    /// Queues bytes that stay in msquic's memory.
    pub(crate) fn hold(&mut self, run: R) {
        let run = match self.runs.back_mut() {
            Some(last) => last.append(run).err(),
            None => Some(run),
        };
        self.runs.extend(run);
    }

    /// Records that the stream is paused, because fewer bytes were taken than it offered.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Moves bytes into `target` and returns how many.
    pub(crate) fn read(&mut self, target: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < target.len() && !self.is_empty() {
            let chunk = self.chunk(target.len() - filled);
            target[filled..filled + chunk.len()].copy_from_slice(&chunk);
            filled += chunk.len();
            self.spent.push(chunk);
        }
        filled
    }

    /// Takes out up to `max` bytes without a copy.
    pub(crate) fn chunk(&mut self, max: usize) -> Bytes {
        self.copies_unread = false;
        if self.unread.is_empty()
            && let Some(mut run) = self.runs.pop_front()
        {
            match (run.len() > max).then(|| run.split_to(max)).flatten() {
                Some(front) => {
                    self.runs.push_front(run);
                    return front.into();
                }
                None => self.unread.push_back(run.into()),
            }
        }
        let chunk = match self.unread.front_mut() {
            Some(front) if front.len() > max => front.split_to(max),
            Some(_) => self.unread.pop_front().unwrap_or_default(),
            None => self.copied.split_to(self.copied.len().min(max)).freeze(),
        };
        self.count();
        chunk
    }

    /// Puts back the bytes that were taken out last, in front.
    pub(crate) fn unread(&mut self, mut bytes: Bytes) {
        if self.copies_unread {
            let copy = Bytes::copy_from_slice(&bytes);
            self.spent.push(std::mem::replace(&mut bytes, copy));
        }
        if !bytes.is_empty() {
            self.unread.push_front(bytes);
        }
        self.count();
    }

    /// Discards bytes that were taken out.
    pub(crate) fn discard(&mut self, bytes: Bytes) {
        self.spent.push(bytes);
    }

    /// Returns whether the stream has to be resumed now; true once for each pause.
    #[must_use]
    pub(crate) fn resume(&mut self) -> bool {
        let held = self.unread.iter().map(Bytes::len).chain(self.runs.iter().map(Run::len));
        let length = self.copied.len() + held.sum::<usize>();
        let resume = self.paused && length <= self.budget / 2;
        self.paused &= !resume;
        resume
    }

    /// Copies held bytes for a later reader, so that msquic can free the memory of a stream that has ended. Bytes
    /// that a sink has taken out now are copied when it puts them back.
    pub(crate) fn copy_held(&mut self) {
        self.copies_unread = true;
        let held: Vec<Bytes> =
            self.unread.drain(..).chain(self.runs.drain(..).map(R::into)).collect();
        if !held.is_empty() {
            self.unread.push_back(held.concat().into());
            self.spent.extend(held);
        }
        self.count();
    }

    /// Discards everything, since the stream is no longer read.
    pub(crate) fn clear(&mut self) {
        self.copied = BytesMut::new();
        self.spent.extend(self.unread.drain(..));
        self.spent.extend(self.runs.drain(..).map(R::into));
        self.count();
    }

    /// Takes the bytes that were read and have to be dropped without a lock.
    #[must_use]
    pub(crate) fn take_spent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.spent)
    }

    fn put_back(&self) -> usize {
        self.unread.iter().map(Bytes::len).sum()
    }

    /// Adds what has changed to the counter of the connection.
    fn count(&mut self) {
        let now = self.put_back() + self.copied.len();
        let before = std::mem::replace(&mut self.counted, now);
        if now > before {
            self.queued.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.queued.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

impl<R> Drop for ReceiveQueue<R> {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a stream, and the number of their block; runs of one block are adjacent in memory.
    #[derive(Debug, PartialEq)]
    struct TestRun(Vec<u8>, u8);

    impl Run for TestRun {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn append(&mut self, next: Self) -> Result<(), Self> {
            if next.1 != self.1 {
                return Err(next);
            }
            self.0.extend(next.0);
            Ok(())
        }

        fn split_to(&mut self, count: usize) -> Option<Self> {
            // The third block cannot be split.
            (self.1 != 3).then(|| Self(self.0.drain(..count).collect(), self.1))
        }
    }

    impl From<TestRun> for Bytes {
        fn from(run: TestRun) -> Self {
            run.0.into()
        }
    }

    fn queue(budget: usize) -> ReceiveQueue<TestRun> {
        ReceiveQueue::new(budget, &Arc::default())
    }

    fn push(queue: &mut ReceiveQueue<TestRun>, bytes: &[u8]) -> usize {
        queue.push([bytes].into_iter(), false)
    }

    #[test]
    fn takes_what_fits_and_resumes_when_half_is_read() {
        let mut queue = queue(8);
        assert_eq!(push(&mut queue, b"012345"), 6);
        assert!(!queue.resume());
        assert_eq!(push(&mut queue, b"6789"), 2);
        assert!(!queue.resume());
        let mut target = [0; 3];
        assert_eq!(queue.read(&mut target), 3);
        assert!(!queue.resume());
        assert_eq!(queue.chunk(100), "34567");
        assert!(queue.resume() && !queue.resume());
    }

    #[test]
    fn a_full_queue_takes_nothing_and_is_paused() {
        let mut queue = queue(4);
        assert_eq!(push(&mut queue, b"0123"), 4);
        assert_eq!(push(&mut queue, b"4"), 0);
        assert_eq!(queue.chunk(4), "0123");
        assert!(queue.resume() && queue.is_empty());
    }

    #[test]
    fn a_full_queue_takes_the_last_bytes_of_a_connection() {
        let mut queue = queue(4);
        assert_eq!(push(&mut queue, b"01234"), 4);
        assert_eq!(queue.push([&b"45"[..], b"6"].into_iter(), true), 3);
        assert_eq!(queue.chunk(9), "0123456");
    }

    #[test]
    fn unread_bytes_come_first_again() {
        let mut queue = queue(8);
        push(&mut queue, b"0123");
        let chunk = queue.chunk(4);
        push(&mut queue, b"45");
        queue.unread(chunk.slice(2..));
        assert_eq!((queue.chunk(9), queue.chunk(9)), ("23".into(), "45".into()));
    }

    #[test]
    fn held_bytes_come_in_order_and_have_no_budget() {
        let mut queue = queue(2);
        for (bytes, block) in [("01", 1), ("2", 1), ("3", 2), ("45", 3)] {
            queue.hold(TestRun(bytes.into(), block));
        }
        assert_eq!(queue.runs.len(), 3);
        assert_eq!(queue.chunk(2), "01");
        let mut target = [0; 3];
        assert_eq!(queue.read(&mut target), 3);
        assert_eq!(&target, b"234");
        assert_eq!(queue.take_spent().concat(), b"234");
        queue.clear();
        assert!(queue.is_empty() && queue.take_spent() == ["5"]);
    }

    #[test]
    fn held_bytes_that_are_copied_stay_in_order() {
        let mut queue = queue(8);
        queue.hold(TestRun(b"01".into(), 1));
        let first = queue.chunk(1);
        queue.unread(first);
        queue.hold(TestRun(b"2".into(), 2));
        queue.copy_held();
        assert_eq!(queue.take_spent().concat(), b"012");
        assert_eq!(queue.chunk(100), "012");
        queue.copy_held();
        assert!(queue.is_empty() && queue.take_spent().is_empty());
    }

    #[test]
    fn held_bytes_that_are_put_back_after_the_end_are_copied_once() {
        let mut queue = queue(8);
        queue.hold(TestRun(b"012".into(), 1));
        let taken = queue.chunk(3);
        queue.copy_held();
        queue.unread(taken.slice(1..));
        assert_eq!(queue.take_spent(), ["12"]);
        let copied = queue.chunk(3);
        assert_eq!(copied, "12");
        queue.unread(copied.slice(1..));
        assert!(queue.take_spent().is_empty(), "it was a copy");
        assert_eq!(queue.chunk(3).as_ptr(), copied[1..].as_ptr());
    }

    #[test]
    fn several_slices_are_one_run_of_bytes() {
        let mut queue = queue(5);
        let slices: [&[u8]; 3] = [b"01", b"2345", b"6"];
        assert_eq!(queue.push(slices.into_iter(), false), 5);
        assert_eq!(queue.chunk(9), "01234");
    }

    #[test]
    fn the_queues_of_a_connection_count_what_they_store() {
        let queued = Arc::default();
        let mut queues = [(); 2].map(|()| ReceiveQueue::<TestRun>::new(8, &queued));
        let count = || queued.load(Ordering::Relaxed);
        for queue in &mut queues {
            assert_eq!(push(queue, b"0123456789"), 8);
        }
        assert_eq!(count(), 16);
        let [first, second] = &mut queues;
        let chunk = first.chunk(5);
        assert_eq!(count(), 11);
        first.unread(chunk);
        assert_eq!(count(), 16);
        second.clear();
        assert_eq!(count(), 8);
        second.hold(TestRun(vec![7; 4], 0));
        assert_eq!(count(), 8, "msquic counts what it holds");
        second.copy_held();
        assert_eq!(count(), 12);
        drop(queues);
        assert_eq!(count(), 0);
    }
}
