//! Records, the content of the TLS stream: messages as in [`net_kit::frame`], and control
//! records, which a reserved length announces. No I/O.

use bytes::Bytes;
use net_kit::frame::{FrameDecoder, Message};
use net_traits::RecvError;

/// The length that announces a control record instead of a message.
const CONTROL: u32 = u32::MAX;
const CLOSE: u8 = 0;
const KEEP_ALIVE: u8 = 1;
/// Bytes of type, code and length of the reason.
const CLOSE_HEADER: usize = 1 + 8 + 2;
/// The longest reason, in bytes.
const MAX_REASON: usize = 511;

/// The longest message; the next length announces a control record.
pub(crate) const MAX_MESSAGE: usize = CONTROL as usize - 1;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Message(Message),
    /// A message that exceeds the limit; later messages can still be received.
    Broken(RecvError),
    /// The peer closes; no record follows.
    Close {
        code: u64,
        reason: String,
    },
    KeepAlive,
}

/// The peer sent an invalid record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// Splits the bytes of a connection into records, independent of how the bytes are chunked.
#[derive(Debug)]
pub(crate) struct RecordDecoder {
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Frame(FrameDecoder),
    Control(Vec<u8>),
    /// The remaining bytes of an oversized message, to be discarded.
    Skip(u64),
}

impl RecordDecoder {
    /// Creates a decoder that rejects messages longer than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(MAX_MESSAGE);
        Self { limit, state: State::Frame(FrameDecoder::new(limit)) }
    }

    /// Consumes bytes from the front of `data` and returns the next complete record.
    pub(crate) fn decode(&mut self, data: &mut &[u8]) -> Result<Option<Record>, Violation> {
        while !data.is_empty() {
            match &mut self.state {
                State::Frame(decoder) => match decoder.decode(data) {
                    Ok(None) => {}
                    Ok(Some(message)) => return Ok(Some(Record::Message(message))),
                    Err(RecvError::TooLarge { size, .. }) if size == CONTROL.into() => {
                        self.state = State::Control(Vec::new());
                    }
                    Err(error) => {
                        let size = match &error {
                            RecvError::TooLarge { size, .. } => *size,
                            _ => 0,
                        };
                        self.state = State::Skip(size);
                        return Ok(Some(Record::Broken(error)));
                    }
                },
                State::Control(bytes) => {
                    bytes.push(data[0]);
                    *data = &data[1..];
                    if let Some(record) = control(bytes)? {
                        self.state = State::Frame(FrameDecoder::new(self.limit));
                        return Ok(Some(record));
                    }
                }
                State::Skip(0) => self.state = State::Frame(FrameDecoder::new(self.limit)),
                State::Skip(rest) => {
                    let count = usize::try_from(*rest).unwrap_or(usize::MAX).min(data.len());
                    *data = &data[count..];
                    *rest -= count as u64;
                }
            }
        }
        Ok(None)
    }

    /// Returns the error for a connection that ends here, or `None` between two records.
    pub(crate) fn truncated(&self) -> Option<RecvError> {
        match &self.state {
            State::Frame(decoder) => decoder.truncated(),
            State::Control(_) | State::Skip(_) => None, // not a message, or already reported
        }
    }
}

/// Decodes a control record, once it is complete.
fn control(bytes: &[u8]) -> Result<Option<Record>, Violation> {
    match bytes[0] {
        KEEP_ALIVE => Ok(Some(Record::KeepAlive)),
        CLOSE if bytes.len() < CLOSE_HEADER => Ok(None),
        CLOSE => {
            let (header, reason) = bytes.split_at(CLOSE_HEADER);
            let length = usize::from(u16::from_be_bytes([header[9], header[10]]));
            if length > MAX_REASON {
                return Err(Violation("the reason of a close record is too long"));
            }
            if reason.len() < length {
                return Ok(None);
            }
            let code = header[1..9].iter().fold(0, |code, byte| code << 8 | u64::from(*byte));
            let reason = String::from_utf8_lossy(reason).into_owned();
            Ok(Some(Record::Close { code, reason }))
        }
        _ => Err(Violation("unknown type of control record")),
    }
}

/// Encodes a close record, with the reason truncated to fit.
pub(crate) fn close(code: u64, reason: &str) -> Vec<u8> {
    let end = (0..=MAX_REASON.min(reason.len())).rfind(|end| reason.is_char_boundary(*end));
    let reason = &reason[..end.unwrap_or(0)];
    let mut record = CONTROL.to_be_bytes().to_vec();
    record.push(CLOSE);
    record.extend(code.to_be_bytes());
    record.extend(u16::try_from(reason.len()).unwrap_or(0).to_be_bytes());
    record.extend_from_slice(reason.as_bytes());
    record
}

/// Encodes a keep-alive record.
pub(crate) fn keep_alive() -> Vec<u8> {
    [&CONTROL.to_be_bytes()[..], &[KEEP_ALIVE]].concat()
}

/// Encodes a message as the pieces to write.
pub(crate) fn message(parts: &[Bytes]) -> Option<Vec<Bytes>> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    net_kit::frame::encode(parts).filter(|_| length <= MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut RecordDecoder, mut data: &[u8]) -> Vec<String> {
        let mut records = Vec::new();
        while let Some(record) = decoder.decode(&mut data).unwrap() {
            records.push(match record {
                Record::Message((message, _)) => String::from_utf8_lossy(&message).into_owned(),
                record => format!("{record:?}"),
            });
        }
        records
    }

    #[test]
    fn any_split_gives_the_same_records() {
        let frame =
            |text: &'static str| message(&[Bytes::from_static(text.as_bytes())]).unwrap().concat();
        let data = [
            frame("one"),
            keep_alive(),
            frame(""),
            frame("this is too long"),
            frame("two"),
            close(7, "bye"),
        ]
        .concat();
        let too_large = RecvError::TooLarge { size: 16, limit: 10 };
        let expected = [
            "one".to_owned(),
            "KeepAlive".to_owned(),
            String::new(),
            format!("{:?}", Record::Broken(too_large)),
            "two".to_owned(),
            format!("{:?}", Record::Close { code: 7, reason: "bye".to_owned() }),
        ];
        for cut in 0..=data.len() {
            let mut decoder = RecordDecoder::new(10);
            let mut records = decode(&mut decoder, &data[..cut]);
            records.extend(decode(&mut decoder, &data[cut..]));
            assert_eq!(records, expected, "cut at {cut}");
            assert_eq!(decoder.truncated(), None);
        }
    }

    #[test]
    fn the_documented_records_are_what_is_read_and_written() {
        let block = include_str!("../testdata/records.txt");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut count = 0;
        for line in block.lines() {
            let (what, bytes) = line.split_once(" = ").unwrap();
            let (written, read) = match what.split(' ').collect::<Vec<_>>()[..] {
                ["keep-alive"] => (keep_alive(), "KeepAlive".to_owned()),
                ["close", code, reason] => {
                    let code = code.parse().unwrap();
                    let record = Record::Close { code, reason: reason.to_owned() };
                    (close(code, reason), format!("{record:?}"))
                }
                ["message", text] => {
                    let pieces = message(&[Bytes::copy_from_slice(text.as_bytes())]);
                    (pieces.unwrap().concat(), text.to_owned())
                }
                _ => panic!("{what} is unknown"),
            };
            assert_eq!(hex(&written), bytes);
            assert_eq!(decode(&mut RecordDecoder::new(100), &written), [read]);
            count += 1;
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn an_invalid_record_is_a_violation() {
        let unknown = [&[0xff; 4][..], &[9]].concat();
        assert!(RecordDecoder::new(10).decode(&mut &unknown[..]).is_err());
        let long = [&[0xff; 4][..], &[CLOSE], &[0; 8], &512_u16.to_be_bytes()].concat();
        assert!(RecordDecoder::new(10).decode(&mut &long[..]).is_err());
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let mut decoder = RecordDecoder::new(10);
        let record = decoder.decode(&mut &close(u64::MAX, &"ä".repeat(300))[..]).unwrap();
        assert_eq!(record, Some(Record::Close { code: u64::MAX, reason: "ä".repeat(255) }));
    }

    #[test]
    fn large_parts_are_not_copied() {
        let part = Bytes::from(vec![1; 5000]);
        let pieces = message(std::slice::from_ref(&part)).unwrap();
        assert_eq!(pieces[1].as_ptr(), part.as_ptr());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_records_or_a_violation(data: Vec<u8>) {
            let (mut decoder, mut rest) = (RecordDecoder::new(10), &data[..]);
            while let Ok(Some(record)) = decoder.decode(&mut rest) {
                if let Record::Message((message, _)) = record {
                    proptest::prop_assert!(message.len() <= 10);
                }
            }
        }
    }
}
