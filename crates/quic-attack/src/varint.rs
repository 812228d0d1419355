//! Variable-length integers (RFC 9000, section 16), written to vectors and read from slices.

/// Appends `value` in its shortest form. Values of 2^62 or more are truncated to 62 bits.
pub fn put(out: &mut Vec<u8>, value: u64) {
    let value = value & MAX;
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends `value`, which must be below 2^14, in two bytes, so that its size is known beforehand.
pub(crate) fn put_two_bytes(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as u16 & 0x3fff | 0x4000).to_be_bytes());
}

/// The input ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the input ends at byte {at}, in the middle of a field")]
pub struct Truncated {
    /// The length of the input, in bytes.
    pub at: usize,
}

/// Reads fields from a slice, front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns how many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Reads the remaining bytes.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if there are fewer.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Truncated { at: self.bytes.len() })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Reads an array.
    ///
    /// # Errors
    ///
    /// [`Truncated`] when there are fewer bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if there is none.
    pub fn byte(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a variable-length integer.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if it is incomplete.
    pub fn varint(&mut self) -> Result<u64, Truncated> {
        let first = self.byte()?;
        let mut value = u64::from(first & 0x3f);
        for byte in self.take((1 << (first >> 6)) - 1)? {
            value = value << 8 | u64::from(*byte);
        }
        Ok(value)
    }

    /// Reads bytes with a length prefix, which is a variable-length integer.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if they are incomplete.
    pub fn counted(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// The largest variable-length integer.
const MAX: u64 = (1 << 62) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_read_as_it_was_written() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
            assert!(Reader::new(&out[..out.len() - 1]).varint().is_err());
        }
    }
}
