//! `Completions`: which received bytes are completed, and how many of them contiguously from the
//! front.

use rangemap::RangeSet;
use std::ops::Range;

/// The received bytes of a stream that are no longer in use (*completed*). Ranges are completed in any order;
/// msquic takes bytes back from the oldest on, so they are reported to it up to the first gap.
///
/// It holds at most one range more than there are runs of bytes in use.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    /// All bytes before this offset were reported to the caller.
    reported: u64,
    /// Bytes before this offset are reported only all together.
    together: u64,
    /// Completed bytes after `reported`. A range begins exactly there only while `together` is larger.
    done: RangeSet<u64>,
}

impl Completions {
    /// Reports nothing until all bytes up to `offset` are completed.
    pub(crate) fn require(&mut self, offset: u64) {
        self.together = self.together.max(offset);
    }

    /// Marks `range` as completed. Returns how many bytes the caller has to report to msquic now.
    #[must_use]
    pub(crate) fn complete(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        self.done.insert(range);
        let Some(first) = self.done.first().cloned() else { return 0 };
        if first.start != self.reported || first.end < self.together {
            return 0;
        }
        self.done.remove(first.clone());
        self.reported = first.end;
        first.end - first.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// All orders of the numbers below `count`.
    fn orders(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let with_last = |order: Vec<usize>| {
            (0..count).map(move |place| {
                let mut order = order.clone();
                order.insert(place, count - 1);
                order
            })
        };
        orders(count - 1).into_iter().flat_map(with_last).collect()
    }

    /// Completes `pieces` in `order` and compares with a set of bytes.
    fn check(pieces: &[Range<u64>], order: &[usize], together: u64) {
        let (mut completions, mut bytes, mut reported) =
            (Completions::default(), HashSet::new(), 0);
        completions.require(together);
        for place in order {
            bytes.extend(pieces[*place].clone());
            let prefix = (0..).take_while(|byte| bytes.contains(byte)).count() as u64;
            let expected = if prefix < together { 0 } else { prefix - reported };
            assert_eq!(completions.complete(pieces[*place].clone()), expected, "{order:?}");
            reported += expected;
            assert!(completions.done.iter().count() <= pieces.len());
        }
        assert_eq!(reported, pieces.last().map_or(0, |last| last.end));
        assert!(completions.done.is_empty());
    }

    #[test]
    fn each_order_of_a_few_pieces_tells_the_contiguous_front() {
        let pieces = [0..3, 3..4, 4..9, 9..9, 9..11, 11..12, 12..20];
        for order in orders(pieces.len()) {
            for together in [0, 1, 4, 20] {
                check(&pieces, &order, together);
            }
        }
    }

    #[test]
    fn random_orders_of_many_pieces_tell_the_contiguous_front() {
        let mut state = 1_u64;
        let mut random = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..200 {
            let mut start = 0;
            let pieces: Vec<_> = (0..40)
                .map(|_| {
                    let end = start + random(5);
                    std::mem::replace(&mut start, end)..end
                })
                .collect();
            let mut order: Vec<_> = (0..pieces.len()).collect();
            for place in (1..order.len()).rev() {
                order.swap(place, random(place as u64 + 1) as usize);
            }
            check(&pieces, &order, 0);
        }
    }

    #[test]
    fn what_is_required_later_is_reported_together() {
        let mut completions = Completions::default();
        completions.require(4);
        assert_eq!(completions.complete(0..2), 0);
        completions.require(8);
        assert_eq!(completions.complete(2..4), 0);
        assert_eq!(completions.complete(4..8), 8);
        completions.require(9);
        assert_eq!(completions.complete(8..9), 1);
    }
}
