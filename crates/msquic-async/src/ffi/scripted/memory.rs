//! What a stream of the script has received: memory that an application reads until it returns it (C25, C32, C36).

use super::faults::demand;
use msquic::ffi::QUIC_BUFFER;
use std::sync::atomic::{AtomicU8, Ordering};

/// The bytes of a stream in blocks, of which several receives share one.
#[derive(Default)]
pub(super) struct Memory {
    /// Kept until the end, so that returned bytes can be overwritten.
    blocks: Vec<Box<[AtomicU8]>>,
    arrived: u64,
    /// Bytes before this offset were offered, and taken or held.
    offered: u64,
    /// Bytes before this offset were taken or returned.
    taken: u64,
}

const BLOCK: usize = 256;

impl Memory {
    pub(super) fn offered(&self) -> u64 {
        self.offered
    }

    /// How many bytes the application holds.
    pub(super) fn held(&self) -> u64 {
        self.offered - self.taken
    }

    /// How many bytes were not offered, or not taken.
    pub(super) fn left(&self) -> u64 {
        self.arrived - self.offered
    }

    pub(super) fn arrive(&mut self, count: u64, byte: fn(u64) -> u8) {
        for offset in self.arrived..self.arrived + count {
            let index = offset as usize;
            if index / BLOCK == self.blocks.len() {
                self.blocks.push((0..BLOCK).map(|_| AtomicU8::new(0)).collect());
            }
            self.blocks[index / BLOCK][index % BLOCK].store(byte(offset), Ordering::Relaxed);
        }
        self.arrived += count;
    }

    /// Offers what is left, in two pieces or more.
    pub(super) fn offer(&mut self) -> Vec<QUIC_BUFFER> {
        let (mut start, end) = (self.offered as usize, self.arrived as usize);
        self.offered = self.arrived;
        let middle = start.midpoint(end);
        let mut buffers = Vec::new();
        while start < end {
            let next = if start < middle { middle } else { end }.min((start / BLOCK + 1) * BLOCK);
            let block = self.blocks[start / BLOCK].as_ptr().cast::<u8>().cast_mut();
            let first = block.wrapping_add(start % BLOCK);
            buffers.push(QUIC_BUFFER { Length: (next - start) as u32, Buffer: first });
            start = next;
        }
        buffers
    }

    /// The application has taken `count` of the bytes that were offered from `start` on.
    pub(super) fn take(&mut self, start: u64, count: u64) {
        assert!(count <= self.arrived - start, "more is taken than was offered");
        if self.arrived > start {
            // C36: it would take the bytes that are held.
            assert_eq!(self.taken, start, "an answer with success while bytes are held");
        }
        self.offered = start;
        if count > 0 {
            self.offered += count;
            self.give_back(count);
        }
    }

    /// The application returns the oldest bytes that it holds; all of them, unless parts are allowed.
    pub(super) fn complete(&mut self, count: u64, allows_parts: bool) {
        let held = self.held();
        let is_allowed = if allows_parts { (1..=held).contains(&count) } else { count == held };
        demand(is_allowed, || format!("{count} bytes are returned of {held}"));
        self.give_back(count.min(held));
    }

    /// The stream is closed, and what it holds is freed.
    pub(super) fn free(&mut self) {
        let count = self.held();
        self.give_back(count);
    }

    /// Other bytes are written over those that are not in use any more.
    fn give_back(&mut self, count: u64) {
        for offset in self.taken as usize..(self.taken + count) as usize {
            self.blocks[offset / BLOCK][offset % BLOCK].fetch_xor(u8::MAX, Ordering::Relaxed);
        }
        self.taken += count;
    }
}
