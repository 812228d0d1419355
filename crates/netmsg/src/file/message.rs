//! The messages of a file transfer. Numbers are big-endian.

use super::name::{FilePath, NameError};
use super::resume::{MAX_RANGES, RangeError, Ranges};
use std::ops::Range;

/// The most bytes of the file in one message.
pub(crate) const CHUNK: usize = 256 * 1024;

/// The smallest window, in bytes: a listener reports when a quarter of it is safe.
pub(crate) const MIN_WINDOW: u64 = 4 * CHUNK as u64;

/// The first message of a dialler: 8 bytes size, 32 bytes SHA-256, the name in UTF-8 with `/` between
/// its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement<'a> {
    pub(crate) size: u64,
    pub(crate) hash: [u8; 32],
    /// Not checked yet.
    pub(crate) name: &'a [u8],
}

impl<'a> Announcement<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.size.to_be_bytes()[..], &self.hash, self.name].concat()
    }

    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, MessageError> {
        let (size, rest) = number(message)?;
        let (hash, name) = rest.split_first_chunk().ok_or(MessageError::Truncated)?;
        Ok(Self { size, hash: *hash, name })
    }

    pub(crate) fn name(&self) -> Result<FilePath, NameError> {
        FilePath::parse(self.name)
    }
}

/// The answer of a listener: 8 bytes window, then 8 bytes begin and 8 bytes end of each range that
/// it lacks, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How many bytes the dialler may send beyond those that are safe; at least [`MIN_WINDOW`].
    pub(crate) window: u64,
    pub(crate) missing: Vec<Range<u64>>,
}

impl Plan {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ranges = self.missing.iter().flat_map(|range| [range.start, range.end]);
        std::iter::once(self.window).chain(ranges).flat_map(u64::to_be_bytes).collect()
    }

    /// Reads the plan for a file of `size` bytes.
    pub(crate) fn decode(message: &[u8], size: u64) -> Result<Self, MessageError> {
        let (window, rest) = number(message)?;
        if window < MIN_WINDOW {
            return Err(MessageError::Window(window));
        }
        let (pairs, []) = rest.as_chunks::<16>() else {
            return Err(MessageError::Truncated);
        };
        // The ranges between the stored ones.
        if pairs.len() > MAX_RANGES + 1 {
            return Err(MessageError::Ranges { count: pairs.len() });
        }
        let (mut plan, mut check) = (Self { window, missing: Vec::new() }, Ranges::new(size));
        for pair in pairs {
            let (start, rest) = number(pair)?;
            let (end, _) = number(rest)?;
            if start < check.end() {
                return Err(RangeError::Overlap { start, end }.into());
            }
            check.insert(start..end)?;
            plan.missing.push(start..end);
        }
        Ok(plan)
    }

    /// Returns how many bytes are missing.
    pub(crate) fn bytes(&self) -> u64 {
        self.missing.iter().map(|range| range.end - range.start).sum()
    }
}

/// Reads a message with bytes of the file: 8 bytes offset, then 1 byte to [`CHUNK`] bytes. Whether
/// they are within the file, [`Ranges`] checks.
pub(crate) fn chunk(message: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let (offset, bytes) = number(message)?;
    match bytes.len() {
        length if length > CHUNK => Err(MessageError::Chunk(length)),
        _ => Ok((offset, bytes)),
    }
}

/// A message of the listener after its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// 8 bytes: how many bytes of this transfer are safe.
    Safe(u64),
    /// 32 bytes: the file is stored, with this hash.
    Stored([u8; 32]),
}

impl Report {
    pub(crate) fn decode(message: &[u8]) -> Result<Self, MessageError> {
        if let Ok(hash) = message.try_into() {
            return Ok(Self::Stored(hash));
        }
        let safe = message.try_into().map_err(|_| MessageError::Report(message.len()))?;
        Ok(Self::Safe(u64::from_be_bytes(safe)))
    }
}

/// Why a message is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the message is too short")]
    Truncated,
    #[error("a window of {0} bytes, less than {MIN_WINDOW}")]
    Window(u64),
    #[error("{count} ranges in one message, more than {MAX_RANGES} and one")]
    Ranges { count: usize },
    #[error("{0} bytes in one message, more than {CHUNK}")]
    Chunk(usize),
    #[error("a report of {0} bytes, not 8 or 32")]
    Report(usize),
    #[error("{safe} bytes are confirmed, and {sent} were sent")]
    Confirmed { safe: u64, sent: u64 },
    #[error("the hash of the stored file is another one")]
    Hash,
    #[error(transparent)]
    Range(#[from] RangeError),
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(MessageError::Truncated)?;
    Ok((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(missing: &[Range<u64>]) -> Vec<u8> {
        Plan { window: MIN_WINDOW, missing: missing.to_vec() }.encode()
    }

    #[test]
    fn messages_are_read_as_written() {
        let announcement = Announcement { size: 5, hash: [3; 32], name: b"name" };
        assert_eq!(Announcement::decode(&announcement.encode()), Ok(announcement));
        let expected = Plan { window: MIN_WINDOW, missing: vec![0..1, 3..9] };
        assert_eq!(Plan::decode(&expected.encode(), 9), Ok(expected.clone()));
        assert_eq!(expected.bytes(), 7);
        assert_eq!(chunk(b"\0\0\0\0\0\0\0\x05ab"), Ok((5, &b"ab"[..])));
        assert_eq!(Report::decode(&7_u64.to_be_bytes()), Ok(Report::Safe(7)));
        assert_eq!(Report::decode(&[7; 32]), Ok(Report::Stored([7; 32])));
    }

    #[test]
    fn invalid_messages_are_rejected() {
        use MessageError::{Chunk, Range, Report as Length, Truncated, Window};
        assert_eq!(Announcement::decode(&[0; 39]), Err(Truncated));
        assert_eq!(Plan::decode(&[0; 8], 9), Err(Window(0)));
        assert_eq!(Plan::decode(&plan(&[0..1])[..23], 9), Err(Truncated));
        let many = vec![0..1; MAX_RANGES + 2];
        assert_eq!(
            Plan::decode(&plan(&many), 9),
            Err(MessageError::Ranges { count: MAX_RANGES + 2 })
        );
        let outside = RangeError::Outside { start: 3, end: 10, size: 9 };
        assert_eq!(Plan::decode(&plan(&[0..1, 3..10]), 9), Err(Range(outside)));
        let descending = RangeError::Overlap { start: 0, end: 1 };
        assert_eq!(Plan::decode(&plan(&[3..4, 0..1]), 9), Err(Range(descending)));
        assert_eq!(chunk(&[0; 7]), Err(Truncated));
        assert_eq!(chunk(&vec![0; CHUNK + 9]), Err(Chunk(CHUNK + 1)));
        assert_eq!(Report::decode(&[0; 9]), Err(Length(9)));
    }
}
