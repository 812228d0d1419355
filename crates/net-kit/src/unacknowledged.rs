//! `Unacknowledged`: the messages on a stream that the peer has not confirmed. Pure.
//!
//! A transport knows up to which position of a stream the peer has confirmed the bytes.
//! `Unacknowledged` converts that to numbers of messages. To save memory, messages are counted in
//! groups of up to [`GROUP`] bytes, so the numbers may be too high by at most one group.

use std::collections::VecDeque;

/// The size of a group of messages on the stream, in bytes.
pub const GROUP: u64 = 16 * 1024;

/// From this many groups on, the caller should look for confirmations.
const MANY: usize = 64;

/// The messages of one stream that are not confirmed.
///
/// ```
/// use net_kit::unacknowledged::Unacknowledged;
///
/// let mut unacknowledged = Unacknowledged::default();
/// unacknowledged.sent(20_004, 20_000);
/// unacknowledged.sent(30_004, 30_000);
/// assert_eq!(unacknowledged.totals(), (2, 50_000));
/// unacknowledged.confirm(20_004);
/// assert_eq!(unacknowledged.totals(), (1, 30_000));
/// ```
#[derive(Debug, Default)]
pub struct Unacknowledged {
    /// The end of the last message on the stream.
    end: u64,
    groups: VecDeque<Group>,
}

#[derive(Debug)]
struct Group {
    start: u64,
    end: u64,
    messages: u64,
    bytes: u64,
}

impl Unacknowledged {
    /// Adds a message of `bytes` that takes `length` bytes on the stream.
    #[inline]
    pub fn sent(&mut self, length: u64, bytes: u64) {
        let start = self.end;
        self.end += length;
        match self.groups.back_mut() {
            Some(last) if self.end - last.start <= GROUP => {
                last.end = self.end;
                last.messages += 1;
                last.bytes += bytes;
            }
            _ => self.groups.push_back(Group { start, end: self.end, messages: 1, bytes }),
        }
    }

    /// Removes the messages before `position` on the stream.
    pub fn confirm(&mut self, position: u64) {
        while self.groups.front().is_some_and(|group| group.end <= position) {
            self.groups.pop_front();
        }
    }

    /// Returns whether there are so many messages that the caller should [confirm](Self::confirm)
    /// some.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.groups.len() >= MANY
    }

    /// Returns the end of the last message on the stream.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the number of messages that are not confirmed, and their bytes.
    pub fn totals(&self) -> (u64, u64) {
        let sum =
            |(messages, bytes), group: &Group| (messages + group.messages, bytes + group.bytes);
        self.groups.iter().fold((0, 0), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_share_a_group() {
        let mut unacknowledged = Unacknowledged::default();
        for _ in 0..10_000 {
            unacknowledged.sent(4, 0);
        }
        assert_eq!(unacknowledged.groups.len() as u64, (40_000_u64).div_ceil(GROUP));
        unacknowledged.confirm(GROUP - 1);
        assert_eq!(unacknowledged.totals().0, 10_000, "a group is confirmed as a whole");
        unacknowledged.confirm(GROUP);
        assert_eq!(unacknowledged.totals().0, 10_000 - GROUP / 4);
        unacknowledged.confirm(40_000);
        assert_eq!(unacknowledged.totals(), (0, 0));
    }
}
