//! `Reassembly`: the data of a stream in order, from pieces that arrive in any order.

use crate::memory_budget::{Charge, Gap, Share};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is charged for each run of data in addition to the data, in bytes.
const RUN: usize = 128;

/// Keeps the pieces of a stream until it is their turn, and charges them to the connection.
///
/// The pieces are copied, since a slice would keep the whole buffer into which it was received.
///
/// ```
/// use net_kit::memory_budget::Share;
/// use net_kit::reassembly::Reassembly;
/// use std::sync::Arc;
///
/// let mut stream = Reassembly::new(&Arc::new(Share::unlimited()));
/// stream.insert(0, b"a");
/// stream.insert(2, b"c");
/// assert_eq!(stream.take(), Some("a".into()));
/// assert_eq!(stream.take(), None);
/// stream.insert(1, b"b");
/// assert_eq!(stream.take(), Some("b".into()));
/// assert_eq!(stream.take(), Some("c".into()));
/// ```
#[derive(Debug)]
pub struct Reassembly {
    /// The offset of the next byte.
    position: u64,
    /// Runs of data, by the offset of their first byte.
    runs: BTreeMap<u64, Vec<u8>>,
    held: usize,
    charge: Charge,
    /// `None` if the data has a deadline of its own.
    gap: Option<Gap>,
}

impl Reassembly {
    /// Creates the reassembly of a stream of which nothing has arrived.
    pub fn new(share: &Arc<Share>) -> Self {
        Self { gap: Some(Gap::new(share)), ..Self::without_timeout(share) }
    }

    /// Creates one whose [gaps](Gap) do not end the connection, for what has a deadline of its own, or is not
    /// read at once.
    pub fn without_timeout(share: &Arc<Share>) -> Self {
        let (runs, charge) = (BTreeMap::new(), Charge::new(share));
        Self { position: 0, runs, held: 0, charge, gap: None }
    }

    /// Returns how many bytes are held, with what the gaps between them cost.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Adds the bytes at an offset. No byte may be added twice. May end a connection, so that no lock may
    /// be held.
    pub fn insert(&mut self, offset: u64, data: &[u8]) {
        let before = self.runs.range_mut(..offset).next_back();
        match before.filter(|(start, run)| *start + run.len() as u64 == offset) {
            Some((_, run)) => {
                let capacity = run.capacity();
                run.extend_from_slice(data);
                self.held += run.capacity() - capacity;
            }
            None => {
                self.held += data.len() + RUN;
                self.runs.insert(offset, data.to_vec());
            }
        }
        self.charge.set(self.held);
    }

    /// Takes the next bytes, if they have arrived. From then on the caller charges them. Otherwise what is
    /// held is behind a [gap](Gap) until the next call.
    pub fn take(&mut self) -> Option<Bytes> {
        let first = self.runs.first_entry().filter(|first| *first.key() == self.position);
        if let Some(gap) = &mut self.gap {
            gap.set(if first.is_none() { self.held } else { 0 });
        }
        let run = first?.remove();
        self.position += run.len() as u64;
        self.held -= run.capacity() + RUN;
        self.charge.set(self.held);
        Some(run.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_budget::{MemoryBudget, MemoryLimits};

    fn budget() -> (Arc<MemoryBudget>, Arc<Share>) {
        let budget = Arc::new(MemoryBudget::new(MemoryLimits::NONE));
        let share = Arc::new(Share::new(&budget));
        (budget, share)
    }

    /// Deterministic, so that a failure repeats.
    fn shuffled(mut pieces: Vec<(usize, usize)>, mut seed: u64) -> Vec<(usize, usize)> {
        for last in (1..pieces.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pieces.swap(last, (seed >> 33) as usize % (last + 1));
        }
        pieces
    }

    #[test]
    fn pieces_in_any_order_give_the_stream() {
        let content: Vec<u8> = (0..=255).cycle().take(3000).collect();
        for seed in 0..200 {
            let size = 1 + seed as usize % 97;
            let starts = (0..content.len()).step_by(size);
            let pieces = starts.map(|start| (start, (start + size).min(content.len()))).collect();
            let (budget, share) = budget();
            let (mut stream, mut read) = (Reassembly::new(&share), Vec::new());
            for (start, end) in shuffled(pieces, seed) {
                stream.insert(start as u64, &content[start..end]);
                assert_eq!(budget.used(), stream.held());
                while let Some(run) = stream.take() {
                    read.extend_from_slice(&run);
                }
            }
            assert_eq!(read, content, "{seed}");
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn gaps_without_timeout_are_charged_too() {
        let (budget, share) = budget();
        let mut stream = Reassembly::without_timeout(&share);
        stream.insert(1000, &[7; 10]);
        assert_eq!(stream.take(), None);
        assert_eq!(budget.used(), 10 + RUN);
    }

    #[test]
    fn what_was_taken_is_not_charged() {
        let (budget, share) = budget();
        let mut stream = Reassembly::new(&share);
        stream.insert(0, &[7; 10_000]);
        assert_eq!(budget.used(), 10_000 + RUN);
        assert_eq!(stream.take().unwrap().len(), 10_000);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_behind_gaps_is_charged_until_the_end() {
        let (budget, share) = budget();
        let mut stream = Reassembly::new(&share);
        for gap in 1..=100 {
            stream.insert(gap * 1000, &[7; 10]);
        }
        assert_eq!(budget.used(), 100 * (10 + RUN));
        stream.insert(1010, &[7; 990]);
        assert!((1000..3000).contains(&(budget.used() - 100 * RUN - 99 * 10)));
        assert_eq!(stream.take(), None);
        drop(stream);
        assert_eq!(budget.used(), 0);
    }
}
