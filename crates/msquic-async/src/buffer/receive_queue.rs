//! `ReceiveQueue`: bytes that arrived and were not read, within a budget.
//!
//! The stream offers bytes; the queue takes what fits. When it takes fewer than offered, the stream
//! is *paused* and keeps the rest itself, so that flow control reaches the sender. Reading half of
//! the budget free resumes it.

use bytes::{Bytes, BytesMut};

#[derive(Debug)]
pub(crate) struct ReceiveQueue {
    bytes: BytesMut,
    budget: usize,
    paused: bool,
}

impl ReceiveQueue {
    pub(crate) fn new(budget: usize) -> Self {
        Self { bytes: BytesMut::new(), budget: budget.max(1), paused: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what fits of `slices` and tells how much that was.
    pub(crate) fn push<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut taken = 0;
        for slice in slices {
            let room = self.budget.saturating_sub(self.bytes.len());
            let part = slice.len().min(room);
            self.bytes.extend_from_slice(&slice[..part]);
            taken += part;
            if part < slice.len() {
                self.paused = true;
                break;
            }
        }
        taken
    }

    /// The stream was told that fewer bytes were taken than it offered.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Moves bytes into `target` and tells how many.
    pub(crate) fn read(&mut self, target: &mut [u8]) -> usize {
        let chunk = self.chunk(target.len());
        target[..chunk.len()].copy_from_slice(&chunk);
        chunk.len()
    }

    /// Takes up to `max` bytes out without a copy.
    pub(crate) fn chunk(&mut self, max: usize) -> Bytes {
        let length = self.bytes.len().min(max);
        self.bytes.split_to(length).freeze()
    }

    /// Puts bytes that were taken out back in front.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let mut joined = BytesMut::from(bytes);
            joined.extend_from_slice(&self.bytes);
            self.bytes = joined;
        }
    }

    /// Whether the stream has to be resumed now; true once for each pause.
    #[must_use]
    pub(crate) fn resume(&mut self) -> bool {
        let resume = self.paused && self.bytes.len() <= self.budget / 2;
        self.paused &= !resume;
        resume
    }

    /// Forgets everything: nobody reads any more.
    pub(crate) fn clear(&mut self) {
        self.bytes = BytesMut::new();
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
        assert_eq!(queue.chunk(9), "2345");
    }

    #[test]
    fn several_slices_are_one_run_of_bytes() {
        let mut queue = ReceiveQueue::new(5);
        let slices: [&[u8]; 3] = [b"01", b"2345", b"6"];
        assert_eq!(queue.push(slices.into_iter()), 5);
        assert_eq!(queue.chunk(9), "01234");
    }
}
