//! `SendQueue`: the bytes that a stream has yet to send, and how they are divided into native
//! sends.
//!
//! Bytes given by the application are *pending*, then *in flight* in one of a few native sends, then
//! *completed*. Small pieces are copied into shared blocks, large ones are sent by reference. While many
//! sends are in flight, small pieces accumulate and are sent together; large amounts do not wait.
//!
//! The queue hands out one batch at a time, so that batches reach the stream in order, whichever thread
//! submits them: [`next_batch`](SendQueue::next_batch) gives nothing until the batch before was
//! [`submitted`](SendQueue::submitted).

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::AddAssign;

/// Pieces shorter than this are copied; a copy of a few KiB is cheaper than a gather entry.
const COPY_BELOW: usize = 4 * 1024;
/// The size of the blocks that small pieces share.
const BLOCK: usize = 16 * 1024;
/// The size of the first block after all was sent. A queue that is idle, or sends now and then, keeps
/// no more than this.
const FIRST_BLOCK: usize = 2 * 1024;
/// How many sends may be in flight before small pieces accumulate. Without msquic's own buffer a send is in
/// flight for a round trip, for which no writer should wait on a long path.
const SMALL_IN_FLIGHT: usize = 32;
/// How many pending bytes are sent at once, however many sends are in flight.
const SEND_AT_ONCE: usize = 64 * 1024;
/// The most that one native send carries.
const MAX_BATCH: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct SendQueue {
    /// Pieces with the writes that end in them.
    ready: VecDeque<(Bytes, Writes)>,
    block: BytesMut,
    /// The writes that end in `block`.
    in_block: Writes,
    /// The size that `block` was allocated with; 0 if there is none.
    block_size: usize,
    pending: usize,
    in_flight: VecDeque<(usize, Writes)>,
    in_flight_bytes: usize,
    submitting: bool,
    fin: Fin,
    is_cut: bool,
    queued: u64,
    completed: u64,
    /// The writes that are not completed.
    incomplete: Writes,
    limit: usize,
}

/// A number of writes and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Writes {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl AddAssign for Writes {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// Open ─finish─▶ Wanted ─in a batch─▶ Sent
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Open,
    Wanted,
    Sent,
}

/// The bytes of one native send, and whether the stream ends with them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) data: Vec<Bytes>,
    pub(crate) fin: bool,
}

impl SendQueue {
    /// A queue that takes bytes while fewer than `limit` are pending or in flight.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            block: BytesMut::new(),
            in_block: Writes::default(),
            block_size: 0,
            pending: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            submitting: false,
            fin: Fin::Open,
            is_cut: false,
            queued: 0,
            completed: 0,
            incomplete: Writes::default(),
            limit: limit.max(1),
        }
    }

    /// How many bytes may be pushed now. A caller with one larger piece may push it if this is not
    /// zero: the limit is then exceeded by at most that piece.
    pub(crate) fn room(&self) -> usize {
        if self.is_cut {
            return 0;
        }
        self.limit.saturating_sub(self.pending + self.in_flight_bytes)
    }

    /// Raises the limit to `ideal`, the bytes that the path can have in flight, but not above
    /// `most`.
    pub(crate) fn grow(&mut self, ideal: usize, most: usize) {
        self.limit = self.limit.max(ideal.min(most));
    }

    /// The offset behind the last byte that was pushed.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// The offset behind the last byte whose native send completed.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    /// The writes that are not completed, each with all of its bytes.
    pub(crate) fn incomplete(&self) -> Writes {
        self.incomplete
    }

    /// Counts a write: the last `bytes` that were pushed.
    pub(crate) fn end_write(&mut self, bytes: usize) {
        let end = match self.ready.back_mut() {
            _ if !self.block.is_empty() => &mut self.in_block,
            Some((_, end)) => end,
            None => return, // it is empty
        };
        let write = Writes { count: 1, bytes: bytes as u64 };
        *end += write;
        self.incomplete += write;
    }

    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        if bytes.len() >= COPY_BELOW {
            self.seal();
            self.ready.push_back((Bytes::copy_from_slice(bytes), Writes::default()));
            return;
        }
        if self.block.capacity() - self.block.len() < bytes.len() {
            self.seal();
            let is_first = self.pending == bytes.len() && self.in_flight.is_empty();
            self.block_size = if is_first { FIRST_BLOCK.max(bytes.len()) } else { BLOCK };
            self.block = BytesMut::with_capacity(self.block_size);
        }
        self.block.extend_from_slice(bytes);
    }

    pub(crate) fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < COPY_BELOW {
            return self.push_copy(bytes);
        }
        self.count(bytes.len());
        self.seal();
        self.ready.push_back((bytes.clone(), Writes::default()));
    }

    /// Marks the end of the stream after what was pushed. Nothing may be pushed afterwards.
    pub(crate) fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    /// Returns the next batch to submit, if one is due.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        let wants_fin = self.fin == Fin::Wanted;
        if self.submitting || (self.pending == 0 && !wants_fin) {
            return None;
        }
        let may_wait = self.pending < SEND_AT_ONCE && !wants_fin;
        let waits = may_wait && self.in_flight.len() >= SMALL_IN_FLIGHT;
        if waits || (!self.in_flight.is_empty() && self.in_flight_bytes >= self.limit) {
            return None;
        }
        self.seal();
        let mut data = Vec::with_capacity(self.ready.len());
        let mut size = 0;
        let mut writes = Writes::default();
        while let Some((mut piece, in_piece)) = self.ready.pop_front() {
            let rest = MAX_BATCH - size;
            if piece.len() > rest {
                self.ready.push_front((piece.split_off(rest), in_piece));
            } else {
                writes += in_piece;
            }
            size += piece.len();
            data.push(piece);
            if size == MAX_BATCH {
                break;
            }
        }
        let fin = wants_fin && self.ready.is_empty();
        if fin {
            self.fin = Fin::Sent;
        }
        self.pending -= size;
        self.in_flight_bytes += size;
        self.in_flight.push_back((size, writes));
        self.submitting = true;
        Some(Batch { data, fin })
    }

    /// Records that the last batch was submitted and may be completed already, or that msquic
    /// refused it.
    pub(crate) fn submitted(&mut self, accepted: bool) {
        self.submitting = false;
        if !accepted && let Some((size, _)) = self.in_flight.pop_back() {
            self.in_flight_bytes -= size;
        }
    }

    /// Records that the oldest native send completed.
    pub(crate) fn complete(&mut self) {
        if let Some((size, writes)) = self.in_flight.pop_front() {
            self.in_flight_bytes -= size;
            self.completed += size as u64;
            self.incomplete.count -= writes.count;
            self.incomplete.bytes -= writes.bytes;
        }
        self.release();
    }

    /// Records that the oldest native send was cancelled: its bytes may not have reached the peer.
    pub(crate) fn cancel(&mut self) {
        if let Some((size, _)) = self.in_flight.pop_front() {
            self.in_flight_bytes -= size;
        }
        self.release();
    }

    /// Stops sending: there is no room from now on. Returns what was pending, to be dropped without
    /// a lock.
    #[must_use]
    pub(crate) fn cut(&mut self) -> VecDeque<(Bytes, Writes)> {
        self.is_cut = true;
        self.block = BytesMut::new();
        self.pending = 0;
        self.fin = Fin::Sent;
        std::mem::take(&mut self.ready)
    }

    fn count(&mut self, bytes: usize) {
        debug_assert_eq!(self.fin, Fin::Open, "bytes were pushed after the end of the stream");
        self.pending += bytes;
        self.queued += bytes as u64;
    }

    /// Frees a large block after all was sent.
    fn release(&mut self) {
        let is_idle = self.pending == 0 && self.in_flight.is_empty();
        if is_idle && self.block_size > FIRST_BLOCK {
            self.block = BytesMut::new();
            self.block_size = 0;
        }
    }

    fn seal(&mut self) {
        if !self.block.is_empty() {
            let writes = std::mem::take(&mut self.in_block);
            self.ready.push_back((self.block.split().freeze(), writes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(batch: &Batch) -> usize {
        batch.data.iter().map(Bytes::len).sum()
    }

    #[test]
    fn the_first_leave_at_once_and_small_ones_gather_behind_them() {
        let mut queue = SendQueue::new(1 << 20);
        for _ in 0..SMALL_IN_FLIGHT {
            queue.push_copy(b"first");
            let batch = queue.next_batch().unwrap();
            assert_eq!(batch.data, [Bytes::from("first")]);
            queue.submitted(true);
        }

        for _ in 0..100 {
            queue.push_copy(b"small");
            assert_eq!(queue.next_batch(), None);
        }
        queue.complete();
        let batch = queue.next_batch().unwrap();
        assert_eq!((batch.data.len(), size(&batch)), (1, 500));
    }

    #[test]
    fn large_amounts_do_not_wait_until_the_limit() {
        let mut queue = SendQueue::new(100_000);
        let large = Bytes::from(vec![1; 80_000]);
        for expected in [true, true, false] {
            queue.push(&large);
            assert_eq!(queue.next_batch().is_some(), expected);
            queue.submitted(true);
        }
        assert_eq!(queue.room(), 0);
        queue.complete();
        assert_eq!(queue.next_batch().map(|batch| size(&batch)), Some(80_000));
    }

    #[test]
    fn batches_are_cut_and_keep_the_order() {
        let mut queue = SendQueue::new(1);
        let bytes = (0..MAX_BATCH + 5000).map(|index| index as u8).collect::<Bytes>();
        queue.push_copy(&bytes[..10]);
        queue.push(&bytes.slice(10..));
        queue.finish();
        let mut sent = Vec::new();
        let mut fins = Vec::new();
        while let Some(batch) = queue.next_batch() {
            assert!(size(&batch) <= MAX_BATCH);
            batch.data.iter().for_each(|piece| sent.extend_from_slice(piece));
            fins.push(batch.fin);
            queue.submitted(true);
            queue.complete();
        }
        assert_eq!(sent, bytes);
        assert_eq!(fins, [false, true]);
        assert_eq!(queue.completed(), queue.queued());
    }

    #[test]
    fn one_batch_is_submitted_at_a_time() {
        let mut queue = SendQueue::new(1 << 20);
        queue.push(&Bytes::from(vec![0; 100_000]));
        assert!(queue.next_batch().is_some());
        queue.push(&Bytes::from(vec![0; 100_000]));
        assert_eq!(queue.next_batch(), None);
        queue.complete(); // may come before the call that submitted it returns
        assert_eq!(queue.next_batch(), None);
        queue.submitted(true);
        assert!(queue.next_batch().is_some());
    }

    #[test]
    fn an_end_alone_is_a_batch_and_comes_once() {
        let mut queue = SendQueue::new(10);
        queue.finish();
        assert_eq!(queue.next_batch(), Some(Batch { data: vec![], fin: true }));
        queue.submitted(true);
        queue.finish();
        assert_eq!(queue.next_batch(), None);
    }

    #[test]
    fn the_limit_grows_with_the_path_and_never_shrinks() {
        let mut queue = SendQueue::new(10);
        queue.grow(5, 100);
        assert_eq!(queue.room(), 10);
        queue.grow(50, 100);
        assert_eq!(queue.room(), 50);
        queue.grow(500, 100);
        assert_eq!(queue.room(), 100);
    }

    #[test]
    fn a_refused_batch_is_not_in_flight() {
        let mut queue = SendQueue::new(10);
        queue.push_copy(b"0123456789");
        assert_eq!(queue.room(), 0);
        assert!(queue.next_batch().is_some());
        queue.submitted(false);
        assert_eq!((queue.room(), queue.completed()), (10, 0));
        queue.push_copy(b"more");
        assert_eq!(queue.cut().len(), 0);
        assert_eq!((queue.room(), queue.next_batch()), (0, None));
    }

    #[test]
    fn a_queue_keeps_no_large_block_after_all_was_sent() {
        let mut queue = SendQueue::new(1 << 20);
        for messages in [1, 1000, 3] {
            for _ in 0..messages {
                queue.push_copy(&[7; 100]);
                queue.next_batch().is_some().then(|| queue.submitted(true));
            }
            while queue.completed() < queue.queued() {
                queue.complete();
                queue.next_batch().is_some().then(|| queue.submitted(true));
            }
            let kept = queue.block.capacity();
            assert!(kept <= FIRST_BLOCK, "{kept} bytes after {messages} messages");
        }
    }

    #[test]
    fn a_write_is_incomplete_until_its_last_byte_is_completed() {
        let mut queue = SendQueue::new(usize::MAX);
        let mut expected = Writes::default();
        for length in [3, 5000, 3, MAX_BATCH + 1, 10] {
            queue.push_copy(b"head");
            queue.push(&Bytes::from(vec![1; length]));
            queue.end_write(4 + length);
            expected += Writes { count: 1, bytes: 4 + length as u64 };
        }
        assert_eq!(queue.incomplete(), expected);
        let mut rest = vec![];
        while queue.next_batch().is_some() {
            queue.submitted(true);
            queue.complete();
            rest.push(queue.incomplete());
        }
        let large = MAX_BATCH as u64 + 5;
        let last = [Writes { count: 2, bytes: large + 14 }, Writes::default()];
        assert_eq!(rest, last, "the first batch ends within the large write");
    }

    #[test]
    fn a_write_that_is_cancelled_refused_or_cut_stays_incomplete() {
        let mut queue = SendQueue::new(usize::MAX);
        let write = |queue: &mut SendQueue| {
            queue.push_copy(b"write");
            queue.end_write(5);
        };
        for accepted in [false, true] {
            write(&mut queue);
            assert!(queue.next_batch().is_some());
            queue.submitted(accepted);
        }
        queue.cancel();
        write(&mut queue);
        assert_eq!(queue.cut().len(), 0);
        assert_eq!(queue.incomplete(), Writes { count: 3, bytes: 15 });
    }

    #[test]
    fn single_messages_share_a_block() {
        let mut queue = SendQueue::new(1 << 20);
        let mut send = || {
            queue.push_copy(&[7; 100]);
            let batch = queue.next_batch().unwrap();
            queue.submitted(true);
            queue.complete();
            batch.data[0].as_ptr()
        };
        assert_eq!(send().wrapping_add(100), send());
    }
}
