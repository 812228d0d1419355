//! `Control`: records about receipts and confirmations, between the frames of a byte stream.
//!
//! `docs/wire-protocol.md` specifies the bytes. Pure.

/// The length of a frame that begins a control record instead of a message.
pub(crate) const CONTROL: [u8; 4] = [0xff; 4];
const MARK: u8 = 6;
const RECEIPT: u8 = 7;
const PROBE: u8 = 8;
const CONFIRMATION: u8 = 9;
/// Bytes of a record with a number only: length, type, number.
const SIZE: usize = 4 + 1 + 4;
/// Bytes of a receipt: a number, and whether the message was taken.
const RECEIPT_SIZE: usize = SIZE + 1;

/// A control record about receipts or confirmations.
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
    /// The sender waits for a confirmation with this number: that the transport of the other side
    /// has everything before this record.
    Probe(u32),
    /// Everything before the probe of the other side with this number was received.
    Confirmation(u32),
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
            Self::Probe(number) => (PROBE, number),
            Self::Confirmation(number) => (CONFIRMATION, number),
        };
        record.push(kind);
        record.extend(number.to_be_bytes());
        if let Self::Receipt { is_taken, .. } = self {
            record.push(is_taken.into());
        }
        record
    }

    /// Decodes the record whose bytes after the length begin with `bytes`; `None` if it is longer.
    ///
    /// # Errors
    ///
    /// The type is not one of these records, or a receipt says neither taken nor rejected.
    #[allow(clippy::result_unit_err, reason = "the caller has the bytes")]
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let [kind, rest @ ..] = bytes else { return Ok(None) };
        if !(MARK..=CONFIRMATION).contains(kind) {
            return Err(());
        }
        let Some((number, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let number = u32::from_be_bytes(*number);
        Ok(Some(match (*kind, rest) {
            (MARK, _) => Self::Mark(number),
            (PROBE, _) => Self::Probe(number),
            (CONFIRMATION, _) => Self::Confirmation(number),
            (_, []) => return Ok(None),
            (_, [0, ..]) => Self::Receipt { number, is_taken: false },
            (_, [1, ..]) => Self::Receipt { number, is_taken: true },
            _ => return Err(()),
        }))
    }
}

/// Collects the bytes of one control record.
#[derive(Debug, Default)]
pub(crate) struct ControlDecoder {
    bytes: [u8; RECEIPT_SIZE],
    filled: usize,
}

/// The bytes are not one of these control records. They begin with this length.
#[derive(Debug)]
pub(crate) struct Invalid(pub(crate) u32);

impl ControlDecoder {
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Consumes bytes from the front of `data` and returns the record once it is complete. After
    /// that, and after an error, it is empty.
    pub(crate) fn decode(&mut self, data: &mut &[u8]) -> Result<Option<Control>, Invalid> {
        while let Some((byte, rest)) = data.split_first() {
            *data = rest;
            self.bytes[self.filled] = *byte;
            self.filled += 1;
            let [a, b, c, d, record @ ..] = &self.bytes[..self.filled] else { continue };
            let length = [*a, *b, *c, *d];
            let decoded = if length == CONTROL { Control::decode(record) } else { Err(()) };
            if let Ok(None) = decoded {
                continue;
            }
            self.filled = 0;
            return decoded.map_err(|()| Invalid(u32::from_be_bytes(length)));
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
            Control::Probe(1 << 16),
            Control::Confirmation(u32::MAX),
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
        for invalid in [
            &b"\xff\xff\xff\xfe"[..],
            b"\xff\xff\xff\xff\x05",
            b"\xff\xff\xff\xff\x0a",
            b"\xff\xff\xff\xff\x07\0\0\0\x01\x02",
        ] {
            let mut decoder = ControlDecoder::default();
            assert!(decoder.decode(&mut &invalid[..]).is_err());
            assert!(decoder.is_empty());
        }
    }
}
