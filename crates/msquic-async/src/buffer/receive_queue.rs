//! `ReceiveQueue`: bytes that arrived and were not read.
//!
//! What is copied has a budget: the queue takes what fits. When it takes fewer than offered, the stream
//! is *paused* and keeps the rest itself, so that flow control reaches the sender. Reading half of the
//! budget free resumes it. What is held where it is has no budget, because the sender gets no credit for
//! it before it is read.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct ReceiveQueue {
    /// What comes first: held bytes, or copied ones that were put back.
    held: VecDeque<Bytes>,
    copied: BytesMut,
    budget: usize,
    paused: bool,
    /// Held bytes that were read. Dropping them calls msquic, which the lock around the queue forbids.
    spent: Vec<Bytes>,
}

impl ReceiveQueue {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            held: VecDeque::new(),
            copied: BytesMut::new(),
            budget: budget.max(1),
            paused: false,
            spent: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.copied.is_empty()
    }

    /// Takes what fits of `slices` and tells how much that was.
    pub(crate) fn push<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut taken = 0;
        let put_back: usize = self.held.iter().map(Bytes::len).sum();
        for slice in slices {
            let room = self.budget.saturating_sub(put_back + self.copied.len());
            let part = slice.len().min(room);
            self.copied.extend_from_slice(&slice[..part]);
            taken += part;
            if part < slice.len() {
                self.paused = true;
                break;
            }
        }
        taken
    }

    /// Takes bytes that stay where they are.
    pub(crate) fn hold(&mut self, bytes: Vec<Bytes>) {
        self.held.extend(bytes);
    }

    /// The stream was told that fewer bytes were taken than it offered.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Moves bytes into `target` and tells how many.
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

    /// Takes up to `max` bytes out without a copy.
    pub(crate) fn chunk(&mut self, max: usize) -> Bytes {
        match self.held.front_mut() {
            Some(front) if front.len() > max => front.split_to(max),
            Some(_) => self.held.pop_front().unwrap_or_default(),
            None => self.copied.split_to(self.copied.len().min(max)).freeze(),
        }
    }

    /// Puts bytes that were taken out back in front.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.held.push_front(bytes);
        }
    }

    /// Bytes that were taken out are not wanted any more.
    pub(crate) fn discard(&mut self, bytes: Bytes) {
        self.spent.push(bytes);
    }

    /// Whether the stream has to be resumed now; true once for each pause.
    #[must_use]
    pub(crate) fn resume(&mut self) -> bool {
        let length = self.copied.len() + self.held.iter().map(Bytes::len).sum::<usize>();
        let resume = self.paused && length <= self.budget / 2;
        self.paused &= !resume;
        resume
    }

    /// Forgets everything: nobody reads any more.
    pub(crate) fn clear(&mut self) {
        self.copied = BytesMut::new();
        self.spent.extend(self.held.drain(..));
    }

    /// What was read and has to be dropped without a lock.
    #[must_use]
    pub(crate) fn take_spent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut ReceiveQueue, bytes: &[u8]) -> usize {
        queue.push([bytes].into_iter())
    }

    #[test]
    fn takes_what_fits_and_resumes_when_half_is_read() {
        let mut queue = ReceiveQueue::new(8);
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
        let mut queue = ReceiveQueue::new(4);
        assert_eq!(push(&mut queue, b"0123"), 4);
        assert_eq!(push(&mut queue, b"4"), 0);
        assert_eq!(queue.chunk(4), "0123");
        assert!(queue.resume() && queue.is_empty());
    }

    #[test]
    fn unread_bytes_come_first_again() {
        let mut queue = ReceiveQueue::new(8);
        push(&mut queue, b"0123");
        let chunk = queue.chunk(4);
        push(&mut queue, b"45");
        queue.unread(chunk.slice(2..));
        assert_eq!((queue.chunk(9), queue.chunk(9)), ("23".into(), "45".into()));
    }

    #[test]
    fn held_bytes_come_in_order_and_have_no_budget() {
        let mut queue = ReceiveQueue::new(2);
        queue.hold(vec![Bytes::from("012"), Bytes::from("3"), Bytes::from("45")]);
        assert_eq!(queue.chunk(2), "01");
        let mut target = [0; 3];
        assert_eq!(queue.read(&mut target), 3);
        assert_eq!(&target, b"234");
        assert_eq!(queue.take_spent().concat(), b"234");
        queue.clear();
        assert!(queue.is_empty() && queue.take_spent() == ["5"]);
    }

    #[test]
    fn several_slices_are_one_run_of_bytes() {
        let mut queue = ReceiveQueue::new(5);
        let slices: [&[u8]; 3] = [b"01", b"2345", b"6"];
        assert_eq!(queue.push(slices.into_iter()), 5);
        assert_eq!(queue.chunk(9), "01234");
    }
}
