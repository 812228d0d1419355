//! `Control`: records about receipts, between the frames of a byte stream.
//!
//! `docs/wire-protocol.md` specifies the bytes. Pure.

/// The length of a frame that begins a control record instead of a message.
pub(crate) const CONTROL: [u8; 4] = [0xff; 4];
const MARK: u8 = 6;
const RECEIPT: u8 = 7;
/// Bytes of a mark: length, type, number.
const MARK_SIZE: usize = 4 + 1 + 4;
/// Bytes of a receipt: those of a mark, and whether the message was taken.
const RECEIPT_SIZE: usize = MARK_SIZE + 1;

/// A control record about receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The next message has this number, and its sender waits for a receipt.
    Mark(u32),
    /// The message of the other side with this number was taken, or never will be.
    Receipt {
        /// The number.
        number: u32,
        /// Whether the application has taken it; otherwise it never receives it.
        is_taken: bool,
    },
}

impl Control {
    /// Encodes the record.
    ///
    /// ```
    /// use net_kit::receipts::Control;
    ///
    /// assert_eq!(Control::Mark(3).encode(), [255, 255, 255, 255, 6, 0, 0, 0, 3]);
    /// ```
    pub fn encode(self) -> Vec<u8> {
        let mut record = CONTROL.to_vec();
        let (kind, number) = match self {
            Self::Mark(number) => (MARK, number),
            Self::Receipt { number, .. } => (RECEIPT, number),
        };
        record.push(kind);
        record.extend(number.to_be_bytes());
        if let Self::Receipt { is_taken, .. } = self {
            record.push(is_taken.into());
        }
        record
    }
}

/// Collects the bytes of one control record.
#[derive(Debug, Default)]
pub(crate) struct ControlDecoder {
    bytes: [u8; RECEIPT_SIZE],
    filled: usize,
}

/// The bytes are not a control record about receipts. They begin with this length.
#[derive(Debug)]
pub(crate) struct Invalid(pub(crate) u32);

impl ControlDecoder {
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Consumes bytes from the front of `data` and returns the record once it is complete.
    pub(crate) fn decode(&mut self, data: &mut &[u8]) -> Result<Option<Control>, Invalid> {
        while let Some((byte, rest)) = data.split_first() {
            *data = rest;
            self.bytes[self.filled] = *byte;
            self.filled += 1;
            let length = [self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]];
            let is_valid = match self.filled {
                4 => length == CONTROL,
                5 => matches!(*byte, MARK | RECEIPT),
                RECEIPT_SIZE => *byte <= 1,
                _ => true,
            };
            if !is_valid {
                return Err(Invalid(u32::from_be_bytes(length)));
            }
            let [.., a, b, c, d, is_taken] = self.bytes;
            let number = u32::from_be_bytes([a, b, c, d]);
            let record = match (self.bytes[4], self.filled) {
                (MARK, MARK_SIZE) => Control::Mark(number),
                (RECEIPT, RECEIPT_SIZE) => Control::Receipt { number, is_taken: is_taken == 1 },
                _ => continue,
            };
            self.filled = 0;
            return Ok(Some(record));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_decoded_however_the_bytes_are_split() {
        let records = [
            Control::Mark(u32::MAX),
            Control::Receipt { number: 7, is_taken: true },
            Control::Mark(0),
            Control::Receipt { number: 1 << 24, is_taken: false },
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|it| it.encode()).collect();
        for size in 1..=bytes.len() {
            let (mut decoder, mut decoded) = (ControlDecoder::default(), Vec::new());
            for mut piece in bytes.chunks(size) {
                while let Ok(Some(record)) = decoder.decode(&mut piece) {
                    decoded.push(record);
                }
            }
            assert_eq!(decoded, records);
        }
        for invalid in [&b"\xff\xff\xff\xfe"[..], b"\xff\xff\xff\xff\x05", &[255; 12]] {
            assert!(ControlDecoder::default().decode(&mut &invalid[..]).is_err());
        }
    }
}
