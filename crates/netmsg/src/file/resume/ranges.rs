//! `Ranges`: which bytes of a file are stored.

use rangemap::RangeSet;
use std::ops::Range;

/// The most separate ranges of one file. It bounds the memory and the map file that a peer can
/// cause by sending every second byte.
pub(crate) const MAX_RANGES: usize = 1024;

/// The stored bytes of a file of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges {
    size: u64,
    stored: RangeSet<u64>,
    bytes: u64,
}

impl Ranges {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, stored: RangeSet::new(), bytes: 0 }
    }

    /// Records that `range` is stored.
    ///
    /// # Errors
    ///
    /// [`RangeError`]; nothing has changed then.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> Result<(), RangeError> {
        let (start, end, size) = (range.start, range.end, self.size);
        if end > size {
            return Err(RangeError::Outside { start, end, size });
        }
        if start >= end {
            return Err(RangeError::Empty { start });
        }
        if self.stored.overlaps(&range) {
            return Err(RangeError::Overlap { start, end });
        }
        self.stored.insert(range.clone());
        self.bytes += end - start;
        if self.stored.len() > MAX_RANGES {
            self.remove(range);
            return Err(RangeError::TooMany { start, end });
        }
        Ok(())
    }

    /// Undoes [`insert`](Self::insert) of the same range.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        self.bytes -= range.end - range.start;
        self.stored.remove(range);
    }

    /// Returns the stored ranges in ascending order.
    pub(crate) fn stored(&self) -> impl ExactSizeIterator<Item = &Range<u64>> {
        self.stored.iter().collect::<Vec<_>>().into_iter()
    }

    /// Returns the missing ranges in ascending order; at most one more than [`MAX_RANGES`].
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        match self.size {
            0 => Vec::new(),
            size => self.stored.gaps(&(0..size)).collect(),
        }
    }

    /// Returns how many bytes are stored.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.bytes == self.size
    }

    /// Returns the end of the last stored range: the file on disk has at least this length.
    pub(crate) fn end(&self) -> u64 {
        self.stored.last().map_or(0, |last| last.end)
    }
}

/// Why a range is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RangeError {
    #[error("no bytes at {start}")]
    Empty { start: u64 },
    #[error("bytes {start}..{end} are outside of the announced size of {size}")]
    Outside { start: u64, end: u64, size: u64 },
    #[error("bytes {start}..{end} overlap with bytes that are stored")]
    Overlap { start: u64, end: u64 },
    #[error(
        "bytes {start}..{end} would leave more than {MAX_RANGES} separate ranges, send the missing \
         ranges in order"
    )]
    TooMany { start: u64, end: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_file_is_complete() {
        let ranges = Ranges::new(0);
        assert!(ranges.is_complete());
        assert_eq!(ranges.missing(), []);
    }

    #[test]
    fn invalid_ranges_are_rejected_and_change_nothing() {
        let mut ranges = Ranges::new(100);
        ranges.insert(10..20).unwrap();
        let before = ranges.clone();
        for (range, expected) in [
            (5..5, RangeError::Empty { start: 5 }),
            (Range { start: 9, end: 3 }, RangeError::Empty { start: 9 }),
            (99..101, RangeError::Outside { start: 99, end: 101, size: 100 }),
            (
                u64::MAX - 1..u64::MAX,
                RangeError::Outside { start: u64::MAX - 1, end: u64::MAX, size: 100 },
            ),
            (19..21, RangeError::Overlap { start: 19, end: 21 }),
            (0..100, RangeError::Overlap { start: 0, end: 100 }),
        ] {
            assert_eq!(ranges.insert(range), Err(expected));
            assert_eq!(ranges, before);
        }
    }

    #[test]
    fn separate_ranges_are_limited() {
        let mut ranges = Ranges::new(u64::MAX);
        for index in 0..MAX_RANGES as u64 {
            ranges.insert(2 * index..2 * index + 1).unwrap();
        }
        let before = ranges.clone();
        let next = 2 * MAX_RANGES as u64;
        let refused = ranges.insert(next..next + 1);
        assert_eq!(refused, Err(RangeError::TooMany { start: next, end: next + 1 }));
        assert_eq!(ranges, before);
        ranges.insert(1..2).unwrap(); // joins two ranges
        ranges.insert(next..next + 1).unwrap();
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_list_of_bytes(
            size in 0..60_u64,
            inserts in proptest::collection::vec((0..64_u64, 0..16_u64), 0..40),
        ) {
            let (mut ranges, mut model) = (Ranges::new(size), vec![false; size as usize]);
            for (start, length) in inserts {
                let range = start..start + length;
                let bytes = start as usize..(start + length) as usize;
                let valid = length > 0
                    && model.get(bytes.clone()).is_some_and(|bytes| !bytes.contains(&true));
                prop_assert_eq!(ranges.insert(range).is_ok(), valid);
                if valid {
                    model[bytes].fill(true);
                }
            }
            let mut seen = vec![false; size as usize];
            for range in ranges.stored() {
                seen[range.start as usize..range.end as usize].fill(true);
            }
            prop_assert_eq!(&seen, &model);
            for range in ranges.missing() {
                prop_assert!(range.start < range.end);
                seen[range.start as usize..range.end as usize].fill(true);
            }
            prop_assert!(seen.iter().all(|it| *it));
            let count = model.iter().filter(|it| **it).count() as u64;
            prop_assert_eq!(ranges.bytes(), count);
            prop_assert_eq!(ranges.is_complete(), count == size);
            let end = model.iter().rposition(|it| *it).map_or(0, |last| last as u64 + 1);
            prop_assert_eq!(ranges.end(), end);
        }
    }
}
