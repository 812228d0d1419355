//! The state of a peer per packet number space.

use crate::frame::Ack;
use rustls::quic::Keys;
use std::collections::{BTreeMap, BTreeSet};

/// Keys, packet numbers and the CRYPTO stream of one packet number space.
#[derive(Default)]
pub(super) struct SpaceState {
    pub(super) keys: Option<Keys>,
    pub(super) next_number: u64,
    /// Received packet numbers.
    pub(super) received: BTreeSet<u64>,
    /// Whether an acknowledgement is pending.
    pub(super) owes_ack: bool,
    /// The largest packet number that the other side acknowledged.
    pub(super) acknowledged: Option<u64>,
    pub(super) crypto: Assembler,
    /// The number of CRYPTO bytes sent.
    pub(super) crypto_sent: u64,
}

impl SpaceState {
    pub(super) fn ack(&self) -> Option<Ack> {
        let newest: Vec<_> = self.received.iter().rev().take(ACKED).rev().copied().collect();
        Ack::of(&newest)
    }

    pub(super) fn largest(&self) -> Option<u64> {
        self.received.last().copied()
    }
}

/// Reassembles the bytes of a stream.
#[derive(Default)]
pub(super) struct Assembler {
    next: u64,
    parts: BTreeMap<u64, Vec<u8>>,
}

impl Assembler {
    pub(super) fn insert(&mut self, offset: u64, data: &[u8]) {
        let part = self.parts.entry(offset).or_default();
        if part.len() < data.len() {
            *part = data.to_vec();
        }
    }

    /// Removes and returns the next bytes in order.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut taken = Vec::new();
        while let Some(entry) = self.parts.first_entry() {
            let Some(known) = self.next.checked_sub(*entry.key()) else { break };
            let part = entry.remove();
            let new = part.get(known as usize..).unwrap_or_default();
            taken.extend_from_slice(new);
            self.next += new.len() as u64;
        }
        taken
    }
}

/// How many packets an acknowledgement covers; older ones were acknowledged before.
const ACKED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_parts_are_put_in_order() {
        let mut assembler = Assembler::default();
        assembler.insert(3, b"defg");
        assert!(assembler.take().is_empty());
        assembler.insert(0, b"ab");
        assembler.insert(1, b"bcd");
        assert_eq!(assembler.take(), b"abcdefg");
        assembler.insert(0, b"abc");
        assembler.insert(5, b"fgh");
        assert_eq!(assembler.take(), b"h");
    }
}
