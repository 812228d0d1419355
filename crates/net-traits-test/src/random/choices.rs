//! `Choices`: where the decisions of a schedule come from: random numbers, or the bytes of a fuzzer.

use fastrand::Rng;

/// Makes the decisions of a schedule.
pub(super) trait Choices {
    /// Returns a number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize;

    /// Returns any number.
    fn any(&mut self) -> u64;

    /// Returns one of a few ways, by its number below `of`, which is not 0.
    fn way(&mut self, of: u32) -> u32;

    /// Returns true in half of the cases.
    fn coin(&mut self) -> bool;
}

impl Choices for Rng {
    fn below(&mut self, end: usize) -> usize {
        self.usize(..end)
    }

    fn any(&mut self) -> u64 {
        self.u64(..)
    }

    fn way(&mut self, of: u32) -> u32 {
        self.u32(..of)
    }

    fn coin(&mut self) -> bool {
        self.bool()
    }
}

/// The bytes that are left. After the last one, each number is 0.
impl Choices for &[u8] {
    fn below(&mut self, end: usize) -> usize {
        let (mut number, mut range) = (0_usize, 1_usize);
        while range < end
            && let Some(byte) = self.split_off_first()
        {
            number = number << 8 | usize::from(*byte);
            range = range.saturating_mul(256);
        }
        number % end
    }

    fn any(&mut self) -> u64 {
        u64::try_from(self.below(1 << 16)).unwrap_or_default()
    }

    fn way(&mut self, of: u32) -> u32 {
        self.split_off_first().map_or(0, |byte| u32::from(*byte) % of)
    }

    fn coin(&mut self) -> bool {
        self.way(2) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_numbers_of_their_range() {
        let mut bytes: &[u8] = &[7, 1, 2, 200];
        assert_eq!((bytes.below(1), bytes.below(5), bytes.below(1000)), (0, 2, 258));
        assert_eq!((bytes.below(100_000), bytes.below(3), bytes.any()), (200, 0, 0));
    }
}
