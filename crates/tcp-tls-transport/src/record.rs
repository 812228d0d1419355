//! Records, the content of the TLS stream: messages as in [`net_kit::frame`], and control records,
//! which a reserved length announces. Pure.

use bytes::Bytes;
use net_kit::frame::{FrameDecoder, Message};
use net_kit::receipts;
use net_traits::close_code::{self, MAX_REASON, sent_reason};
use net_traits::{Cause, RecvError, RequestError, SendError};

/// The length that announces a control record instead of a message.
const CONTROL: u32 = u32::MAX;
const CLOSE: u8 = 0;
const KEEP_ALIVE: u8 = 1;
const QUESTION: u8 = 2;
const ANSWER: u8 = 3;
const REFUSAL: u8 = 4;
const CANCEL: u8 = 5;
/// Bytes of the type and the number of a request.
const REQUEST_HEADER: usize = 1 + 4;
/// Bytes of type, code and length of the reason.
const CLOSE_HEADER: usize = 1 + 8 + 2;

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
    /// A question of the peer; `None` if it exceeds the limit.
    Question {
        id: u32,
        question: Option<Bytes>,
    },
    /// An answer of the peer, or its size if it exceeds the limit.
    Answer {
        id: u32,
        answer: Result<Bytes, u64>,
    },
    /// The peer refuses a question.
    Refusal {
        id: u32,
        code: u64,
    },
    /// The peer no longer waits for the answer.
    Cancel {
        id: u32,
    },
    /// A record about receipts or confirmations, but not a mark.
    Control(receipts::Control),
}

/// A decoded control record.
enum Control {
    Record(Record),
    /// A frame with a question or an answer follows.
    Request {
        id: u32,
        is_question: bool,
    },
    /// A message with this number follows.
    Mark(u32),
}

/// The peer sent an invalid record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// Splits the bytes of a connection into records, independent of how the bytes are chunked.
#[derive(Debug)]
pub(crate) struct RecordDecoder {
    limit: usize,
    request_limit: usize,
    state: State,
    /// The number of the next message.
    mark: Option<u32>,
}

#[derive(Debug)]
enum State {
    Frame(FrameDecoder),
    Control(Vec<u8>),
    Request {
        id: u32,
        is_question: bool,
        frame: FrameDecoder,
    },
    /// The remaining bytes of an oversized message, to be discarded.
    Skip(u64),
}

impl RecordDecoder {
    /// Creates a decoder that rejects messages longer than `limit` bytes, and questions and answers
    /// longer than `request_limit`.
    pub(crate) fn new(limit: usize, request_limit: usize) -> Self {
        let limit = limit.min(MAX_MESSAGE);
        Self { limit, request_limit, state: State::Frame(FrameDecoder::new(limit)), mark: None }
    }

    /// Returns the number of the message that was decoded last, if it is marked.
    pub(crate) fn take_mark(&mut self) -> Option<u32> {
        self.mark.take()
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
                    match control(bytes)? {
                        None => {}
                        Some(Control::Record(record)) => {
                            self.state = State::Frame(FrameDecoder::new(self.limit));
                            return Ok(Some(record));
                        }
                        Some(Control::Mark(number)) => {
                            self.mark = Some(number);
                            self.state = State::Frame(FrameDecoder::new(self.limit));
                        }
                        Some(Control::Request { id, is_question }) => {
                            let frame = FrameDecoder::new(self.request_limit);
                            self.state = State::Request { id, is_question, frame };
                        }
                    }
                }
                State::Request { id, is_question, frame } => {
                    let (id, is_question) = (*id, *is_question);
                    let content = match frame.decode(data) {
                        Ok(None) => continue,
                        Ok(Some((content, _))) => {
                            self.state = State::Frame(FrameDecoder::new(self.limit));
                            Ok(content)
                        }
                        Err(error) => {
                            let size = match &error {
                                RecvError::TooLarge { size, .. } => *size,
                                _ => 0,
                            };
                            self.state = State::Skip(size);
                            Err(size)
                        }
                    };
                    return Ok(Some(match is_question {
                        true => Record::Question { id, question: content.ok() },
                        false => Record::Answer { id, answer: content },
                    }));
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

    /// Returns how many bytes of the message, question or answer in progress have arrived, and the
    /// size of its buffer; zeros between two of them.
    pub(crate) fn unfinished(&self) -> (usize, usize) {
        match &self.state {
            State::Frame(frame) | State::Request { frame, .. } => frame.unfinished(),
            State::Control(_) | State::Skip(_) => (0, 0),
        }
    }

    /// Returns the error for a connection that ends here, or `None` between two records.
    pub(crate) fn truncated(&self) -> Option<RecvError> {
        match &self.state {
            State::Frame(decoder) => decoder.truncated(),
            State::Control(_) | State::Request { .. } | State::Skip(_) => None, // not a message, or already reported
        }
    }
}

/// Decodes a control record, once it is complete.
fn control(bytes: &[u8]) -> Result<Option<Control>, Violation> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let id = || u32::try_from(number(&bytes[1..REQUEST_HEADER])).unwrap_or_default();
    match bytes[0] {
        KEEP_ALIVE => Ok(Some(Control::Record(Record::KeepAlive))),
        QUESTION..=CANCEL if bytes.len() < REQUEST_HEADER => Ok(None),
        QUESTION => Ok(Some(Control::Request { id: id(), is_question: true })),
        ANSWER => Ok(Some(Control::Request { id: id(), is_question: false })),
        CANCEL => Ok(Some(Control::Record(Record::Cancel { id: id() }))),
        REFUSAL if bytes.len() < REQUEST_HEADER + 8 => Ok(None),
        REFUSAL => {
            let code = number(&bytes[REQUEST_HEADER..]).min(close_code::MAX);
            Ok(Some(Control::Record(Record::Refusal { id: id(), code })))
        }
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
            let code = number(&header[1..9]).min(close_code::MAX);
            let reason = sent_reason(&String::from_utf8_lossy(reason)); // lossy may be longer
            Ok(Some(Control::Record(Record::Close { code, reason })))
        }
        _ => match receipts::Control::decode(bytes) {
            Err(()) => Err(Violation("unknown type of control record")),
            Ok(Some(receipts::Control::Mark(number))) => Ok(Some(Control::Mark(number))),
            Ok(record) => Ok(record.map(|record| Control::Record(Record::Control(record)))),
        },
    }
}

/// Encodes a close record, with the reason truncated to fit.
pub(crate) fn close(code: u64, reason: &str) -> Vec<u8> {
    let reason = sent_reason(reason);
    let mut record = CONTROL.to_be_bytes().to_vec();
    record.push(CLOSE);
    record.extend(code.min(close_code::MAX).to_be_bytes());
    record.extend(u16::try_from(reason.len()).unwrap_or(0).to_be_bytes());
    record.extend_from_slice(reason.as_bytes());
    record
}

/// Encodes a keep-alive record.
pub(crate) fn keep_alive() -> Vec<u8> {
    [&CONTROL.to_be_bytes()[..], &[KEEP_ALIVE]].concat()
}

/// Encodes a question as the pieces to write.
pub(crate) fn question(id: u32, question: Bytes) -> Vec<Bytes> {
    request(QUESTION, id, question)
}

/// Encodes an answer as the pieces to write.
pub(crate) fn answer(id: u32, answer: Bytes) -> Vec<Bytes> {
    request(ANSWER, id, answer)
}

/// Encodes a question or an answer, whose limit is far below that of a frame.
fn request(kind: u8, id: u32, content: Bytes) -> Vec<Bytes> {
    let header = request_header(kind, id).into();
    let frame = net_kit::frame::encode(&[content]).unwrap_or_default();
    std::iter::once(header).chain(frame).collect()
}

fn request_header(kind: u8, id: u32) -> Vec<u8> {
    [&CONTROL.to_be_bytes()[..], &[kind], &id.to_be_bytes()].concat()
}

/// Encodes the refusal of a question.
pub(crate) fn refusal(id: u32, code: u64) -> Vec<Bytes> {
    let mut record = request_header(REFUSAL, id);
    record.extend(code.min(close_code::MAX).to_be_bytes());
    vec![record.into()]
}

/// Encodes the cancellation of a question.
pub(crate) fn cancel(id: u32) -> Vec<Bytes> {
    vec![request_header(CANCEL, id).into()]
}

/// Maps the error of a record about a request that was not queued.
pub(crate) fn request_error(error: SendError) -> RequestError {
    match error {
        SendError::Closed(reason) => RequestError::Closed(reason),
        SendError::TimedOut { after } => RequestError::TimedOut { after },
        error => RequestError::Transport(Cause::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use net_kit::frame::encode as message;
    use net_kit::receipts::Control as ReceiptRecord;

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
    fn records_are_decoded_however_the_bytes_are_split() {
        let frame =
            |text: &'static str| message(&[Bytes::from_static(text.as_bytes())]).unwrap().concat();
        let data = [
            frame("one"),
            keep_alive(),
            frame(""),
            frame("this is too long"),
            question(3, "why?".into()).concat(),
            answer(4, "this is too long".into()).concat(),
            refusal(5, 77).concat(),
            cancel(6).concat(),
            ReceiptRecord::Receipt { number: 8, is_taken: true }.encode(),
            ReceiptRecord::Mark(9).encode(),
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
            format!("{:?}", Record::Question { id: 3, question: Some("why?".into()) }),
            format!("{:?}", Record::Answer { id: 4, answer: Err(16) }),
            format!("{:?}", Record::Refusal { id: 5, code: 77 }),
            format!("{:?}", Record::Cancel { id: 6 }),
            format!("{:?}", Record::Control(ReceiptRecord::Receipt { number: 8, is_taken: true })),
            "two".to_owned(),
            format!("{:?}", Record::Close { code: 7, reason: "bye".to_owned() }),
        ];
        for cut in 0..=data.len() {
            let mut decoder = RecordDecoder::new(10, 10);
            let mut records = decode(&mut decoder, &data[..cut]);
            records.extend(decode(&mut decoder, &data[cut..]));
            assert_eq!(records, expected, "cut at {cut}");
            assert_eq!((decoder.take_mark(), decoder.take_mark()), (Some(9), None));
            assert_eq!(decoder.truncated(), None);
        }
    }

    #[test]
    fn records_are_encoded_and_decoded_as_documented() {
        let block = include_str!("../testdata/records.txt");
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
                ["question", id, text] => {
                    let (id, text) = (id.parse().unwrap(), Bytes::copy_from_slice(text.as_bytes()));
                    let record = Record::Question { id, question: Some(text.clone()) };
                    (question(id, text).concat(), format!("{record:?}"))
                }
                ["answer", id, text] => {
                    let (id, text) = (id.parse().unwrap(), Bytes::copy_from_slice(text.as_bytes()));
                    let record = Record::Answer { id, answer: Ok(text.clone()) };
                    (answer(id, text).concat(), format!("{record:?}"))
                }
                ["refusal", id, code] => {
                    let (id, code) = (id.parse().unwrap(), code.parse().unwrap());
                    (refusal(id, code).concat(), format!("{:?}", Record::Refusal { id, code }))
                }
                ["cancel", id] => {
                    let id = id.parse().unwrap();
                    (cancel(id).concat(), format!("{:?}", Record::Cancel { id }))
                }
                ["marked", number, text] => {
                    let mark = ReceiptRecord::Mark(number.parse().unwrap()).encode();
                    let pieces = message(&[Bytes::copy_from_slice(text.as_bytes())]);
                    ([mark, pieces.unwrap().concat()].concat(), text.to_owned())
                }
                ["receipt", number, is_taken] => {
                    let (number, is_taken) = (number.parse().unwrap(), is_taken == "taken");
                    let record = ReceiptRecord::Receipt { number, is_taken };
                    (record.encode(), format!("{:?}", Record::Control(record)))
                }
                ["probe", number] => {
                    let record = ReceiptRecord::Probe(number.parse().unwrap());
                    (record.encode(), format!("{:?}", Record::Control(record)))
                }
                ["confirmation", number] => {
                    let record = ReceiptRecord::Confirmation(number.parse().unwrap());
                    (record.encode(), format!("{:?}", Record::Control(record)))
                }
                _ => panic!("{what} is unknown"),
            };
            assert_eq!(HEXLOWER.encode(&written), bytes);
            assert_eq!(decode(&mut RecordDecoder::new(100, 100), &written), [read]);
            count += 1;
        }
        assert_eq!(count, 12);
    }

    #[test]
    fn codes_and_reasons_of_any_peer_are_limited() {
        let mut bytes = close(0, &"x".repeat(MAX_REASON));
        bytes[5..13].fill(0xff);
        bytes[15..].fill(0xff); // each byte is replaced by three
        let mut data = &bytes[..];
        match RecordDecoder::new(10, 10).decode(&mut data).unwrap() {
            Some(Record::Close { code, reason }) => {
                assert_eq!((code, reason.len()), (close_code::MAX, 510));
            }
            record => panic!("{record:?}"),
        }
        let mut bytes = refusal(5, 0).concat();
        bytes[9..].fill(0xff);
        let refused = format!("{:?}", Record::Refusal { id: 5, code: close_code::MAX });
        assert_eq!(decode(&mut RecordDecoder::new(10, 10), &bytes), [refused]);
    }

    #[test]
    fn an_invalid_record_is_a_violation() {
        let unknown = [&[0xff; 4][..], &[10]].concat();
        assert!(RecordDecoder::new(10, 10).decode(&mut &unknown[..]).is_err());
        let long = [&[0xff; 4][..], &[CLOSE], &[0; 8], &512_u16.to_be_bytes()].concat();
        assert!(RecordDecoder::new(10, 10).decode(&mut &long[..]).is_err());
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let mut decoder = RecordDecoder::new(10, 10);
        let record = decoder.decode(&mut &close(u64::MAX, &"ä".repeat(300))[..]).unwrap();
        assert_eq!(record, Some(Record::Close { code: close_code::MAX, reason: "ä".repeat(255) }));
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
            let (mut decoder, mut rest) = (RecordDecoder::new(10, 10), &data[..]);
            while let Ok(Some(record)) = decoder.decode(&mut rest) {
                if let Record::Message((message, _)) = record {
                    proptest::prop_assert!(message.len() <= 10);
                }
            }
        }
    }
}
