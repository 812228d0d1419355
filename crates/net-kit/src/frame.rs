//! Message framing in a byte stream: a 4-byte big-endian length, then the message.
//!
//! `docs/wire-protocol.md` specifies the bytes. Pure: the decoder owns the incomplete message, and
//! runs on the thread that receives.

use crate::control_record::{CONTROL, Control, ControlDecoder, Invalid};
use bytes::{Bytes, BytesMut};
use net_traits::RecvError;
use std::time::{Duration, Instant};

/// Size of the header before each message, in bytes.
pub const HEADER: usize = 4;

/// Bytes allocated for a message before its first byte has arrived.
const FIRST_RESERVE: usize = 64 * 1024;

/// Size of the block that small messages share, in bytes. Sharing saves allocations; the limit
/// bounds the memory that a single kept message holds.
const BLOCK: usize = 2048;

/// The parts of messages from this size on, in bytes, are written without copying them.
const COPY_BELOW: usize = 4 * 1024;

/// Encodes the header of a message of `length` bytes; `None` if `length` exceeds 32 bits.
pub fn header(length: usize) -> Option<[u8; HEADER]> {
    u32::try_from(length).ok().map(u32::to_be_bytes)
}

/// Encodes the concatenation of `parts` as the pieces to write; `None` if its length exceeds 32
/// bits. The parts of a message below 4 KiB are joined; those of larger ones are not copied.
pub fn encode(parts: &[Bytes]) -> Option<Vec<Bytes>> {
    let length = parts.iter().map(Bytes::len).sum();
    let header = header(length)?;
    if length < COPY_BELOW {
        let mut frame = Vec::with_capacity(header.len() + length);
        frame.extend(header);
        parts.iter().for_each(|part| frame.extend_from_slice(part));
        return Some(vec![frame.into()]);
    }
    let header = Bytes::copy_from_slice(&header);
    Some(std::iter::once(header).chain(parts.iter().cloned()).collect())
}

/// Splits the bytes of one stream into messages, independent of how the bytes are chunked.
///
/// The memory for a message grows with the received bytes, not with the announced length. Messages
/// of up to 512 bytes that arrive in one piece share a block of at most 2 KiB. The block is freed
/// when the last of them is dropped.
///
/// ```
/// use net_kit::frame::{self, FrameDecoder};
///
/// let mut decoder = FrameDecoder::new(1024);
/// let bytes = [&frame::header(5).unwrap()[..], b"hello"].concat();
/// assert_eq!(decoder.decode(&mut &bytes[..6]), Ok(None));
/// let (message, _elapsed) = decoder.decode(&mut &bytes[6..])?.unwrap();
/// assert_eq!(message, "hello");
/// # Ok::<(), net_traits::RecvError>(())
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    state: State,
    /// Memory for the next small messages, see [`BLOCK`].
    block: BytesMut,
    /// For streams that may contain control records.
    controls: Option<Controls>,
}

#[derive(Debug, Default)]
struct Controls {
    decoder: ControlDecoder,
    /// The number of the message in progress.
    mark: Option<u32>,
    /// Whether there was anything but receipts and confirmations.
    has_messages: bool,
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER], filled: usize },
    Message { bytes: Vec<u8>, length: usize, since: Instant },
}

const EMPTY: State = State::Header { bytes: [0; HEADER], filled: 0 };

/// A message, and the time from its header to its last byte; zero if they arrived in one piece.
pub type Message = (Bytes, Duration);

impl FrameDecoder {
    /// Creates a decoder that rejects messages longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: EMPTY, block: BytesMut::new(), controls: None }
    }

    /// Creates a decoder for a stream on which the peer may send control records about
    /// [receipts](crate::receipts) and confirmations, if `has_receipts`. Call
    /// [`control`](Self::control) before each [`decode`](Self::decode), and
    /// [`take_mark`](Self::take_mark) after it.
    pub fn with_receipts(limit: usize, has_receipts: bool) -> Self {
        Self { controls: has_receipts.then(Controls::default), ..Self::new(limit) }
    }

    /// Consumes control records from the front of `data` and returns the first one that is not a
    /// mark. It needs no room in the inbox, so call this even if that is full.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooLarge`] for an unknown record, as from [`decode`](Self::decode).
    #[inline]
    pub fn control(&mut self, data: &mut &[u8]) -> Result<Option<Control>, RecvError> {
        let (Some(controls), State::Header { filled: 0, .. }) = (&mut self.controls, &self.state)
        else {
            return Ok(None);
        };
        while let Some(first) = data.first() {
            if controls.decoder.is_empty() && *first != CONTROL[0] {
                controls.has_messages = true;
                break;
            }
            match controls.decoder.decode(data) {
                Ok(None) => {}
                Ok(Some(Control::Mark(number))) => {
                    (controls.mark, controls.has_messages) = (Some(number), true);
                }
                Ok(Some(record)) => {
                    controls.has_messages |= matches!(record, Control::Probe(_));
                    return Ok(Some(record));
                }
                Err(Invalid(size)) if size == u32::from_be_bytes(CONTROL) => {
                    return Err(RecvError::TooLarge { size: size.into(), limit: self.limit });
                }
                Err(Invalid(size)) => {
                    // It is the length of a message.
                    controls.has_messages = true;
                    self.state = State::Header { bytes: size.to_be_bytes(), filled: HEADER };
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Returns the number of the message that was decoded last, if it is marked.
    pub fn take_mark(&mut self) -> Option<u32> {
        self.controls.as_mut()?.mark.take()
    }

    /// Returns whether the stream may contain receipts and confirmations and has contained nothing
    /// else.
    pub fn is_of_receipts(&self) -> bool {
        self.controls.as_ref().is_some_and(|controls| !controls.has_messages)
    }

    /// Consumes bytes from the front of `data` and returns the next complete message.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooLarge`]; what follows on the stream cannot be decoded.
    pub fn decode(&mut self, data: &mut &[u8]) -> Result<Option<Message>, RecvError> {
        if let State::Header { bytes, filled } = &mut self.state {
            let part = take(data, HEADER - *filled);
            bytes[*filled..*filled + part.len()].copy_from_slice(part);
            *filled += part.len();
            if *filled < HEADER {
                return Ok(None);
            }
            let size = u32::from_be_bytes(*bytes);
            let length = usize::try_from(size).unwrap_or(usize::MAX);
            if length > self.limit {
                return Err(RecvError::TooLarge { size: size.into(), limit: self.limit });
            }
            if data.len() >= length {
                self.state = EMPTY;
                return Ok(Some((self.copy(take(data, length), data.len()), Duration::ZERO)));
            }
            let bytes = Vec::with_capacity(length.min(FIRST_RESERVE));
            self.state = State::Message { bytes, length, since: Instant::now() };
        }
        let State::Message { bytes, length, since } = &mut self.state else { return Ok(None) };
        let part = take(data, *length - bytes.len());
        if bytes.capacity() - bytes.len() < part.len() {
            // Twice the received bytes, and at most the announced length. Allocators move the pages
            // of a large vector instead of copying it, which would take many milliseconds.
            let target = (bytes.len() + part.len()).saturating_mul(2).min(*length);
            bytes.reserve_exact(target - bytes.len());
        }
        bytes.extend_from_slice(part);
        if bytes.len() < *length {
            return Ok(None);
        }
        let message = (std::mem::take(bytes).into(), since.elapsed());
        self.state = EMPTY;
        Ok(Some(message))
    }

    /// Copies a complete message, after which `following` bytes have arrived.
    fn copy(&mut self, message: &[u8], following: usize) -> Bytes {
        if following == 0 {
            self.block = BytesMut::new(); // hold no unused memory between messages
        }
        if following == 0 || message.is_empty() || message.len() > BLOCK / 4 {
            return Bytes::copy_from_slice(message);
        }
        if self.block.capacity() < message.len() {
            self.block = BytesMut::with_capacity(BLOCK.min(message.len() + following));
        }
        self.block.extend_from_slice(message);
        self.block.split().freeze()
    }

    /// Returns how many bytes of the message in progress have arrived, and the size of their
    /// buffer; zeros between two messages.
    #[inline]
    pub fn unfinished(&self) -> (usize, usize) {
        match &self.state {
            State::Header { .. } => (0, 0),
            State::Message { bytes, .. } => (bytes.len().max(1), bytes.capacity()),
        }
    }

    /// Returns the error for a stream that ends here, or `None` between two messages.
    pub fn truncated(&self) -> Option<RecvError> {
        let (received, announced) = match &self.state {
            State::Header { filled: 0, .. } => return None,
            State::Header { filled, .. } => (*filled, HEADER),
            State::Message { bytes, length, .. } => (bytes.len(), *length),
        };
        Some(RecvError::Truncated { received: received as u64, announced: announced as u64 })
    }
}

/// Splits up to `count` bytes off the front of `data`.
fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = data.split_at(data.len().min(count));
    *data = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(messages: &[&[u8]]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&header(m.len()).unwrap()[..], m].concat()).collect()
    }

    fn decode(decoder: &mut FrameDecoder, mut data: &[u8]) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while !data.is_empty() {
            messages.extend(decoder.decode(&mut data).unwrap().map(|(bytes, _)| bytes));
        }
        messages
    }

    #[test]
    fn every_split_into_two_gives_the_same_messages() {
        let messages: [&[u8]; 5] = [b"", b"a", b"hello", b"", &[7; 300]];
        let data = encode(&messages);
        for cut in 0..=data.len() {
            let mut decoder = FrameDecoder::new(300);
            let mut got = decode(&mut decoder, &data[..cut]);
            got.extend(decode(&mut decoder, &data[cut..]));
            assert_eq!(got, messages, "cut at {cut}");
            assert_eq!(decoder.truncated(), None);
        }
    }

    #[test]
    fn marks_and_receipts_are_found_between_messages() {
        let receipt = Control::Receipt { number: 9, is_taken: true };
        let mark = Control::Mark(5).encode();
        let data = [receipt.encode(), mark, encode(&[b"", b"two"]), receipt.encode()].concat();
        for size in 1..=data.len() {
            let mut decoder = FrameDecoder::with_receipts(3, true);
            assert!(decoder.is_of_receipts());
            let (mut receipts, mut messages) = (0, Vec::new());
            for mut piece in data.chunks(size) {
                loop {
                    while let Some(it) = decoder.control(&mut piece).unwrap() {
                        assert_eq!(it, receipt);
                        receipts += 1;
                    }
                    let Some((message, _)) = decoder.decode(&mut piece).unwrap() else { break };
                    messages.push((message, decoder.take_mark()));
                }
            }
            assert_eq!(receipts, 2);
            assert_eq!(messages, [("".into(), Some(5)), ("two".into(), None)]);
            assert!(!decoder.is_of_receipts());
        }
        let mut decoder = FrameDecoder::with_receipts(100, true);
        assert_eq!(decoder.control(&mut &[0xff, 0, 0, 1][..]), Ok(None));
        let too_large = RecvError::TooLarge { size: 0xff00_0001, limit: 100 };
        assert_eq!(decoder.decode(&mut &[7][..]), Err(too_large));
        let unknown = [&CONTROL[..], &[5]].concat();
        assert!(FrameDecoder::with_receipts(100, true).control(&mut &unknown[..]).is_err());
        let mut older = FrameDecoder::with_receipts(3, false);
        assert_eq!(older.control(&mut &data[..]), Ok(None));
        assert!(older.decode(&mut &data[..]).is_err() && !older.is_of_receipts());
    }

    #[test]
    fn one_byte_at_a_time_works() {
        let data = encode(&[b"one", b"", b"two"]);
        let mut decoder = FrameDecoder::new(3);
        let got: Vec<_> = data.chunks(1).flat_map(|byte| decode(&mut decoder, byte)).collect();
        assert_eq!(got, [&b"one"[..], b"", b"two"]);
    }

    #[test]
    fn the_limit_is_exact() {
        let mut decoder = FrameDecoder::new(3);
        assert_eq!(decode(&mut decoder, &encode(&[b"abc"])), ["abc"]);
        let error = decoder.decode(&mut &encode(&[b"abcd"])[..]);
        assert_eq!(error, Err(RecvError::TooLarge { size: 4, limit: 3 }));
    }

    #[test]
    fn an_end_inside_a_message_reports_the_missing_bytes() {
        let mut decoder = FrameDecoder::new(10);
        decode(&mut decoder, &[0, 0]);
        let cut = RecvError::Truncated { received: 2, announced: 4 };
        assert_eq!(decoder.truncated(), Some(cut));
        decode(&mut decoder, &[0, 5, b'x']);
        let cut = RecvError::Truncated { received: 1, announced: 5 };
        assert_eq!(decoder.truncated(), Some(cut));
    }

    #[test]
    fn memory_follows_what_has_arrived() {
        let mut decoder = FrameDecoder::new(usize::MAX);
        decode(&mut decoder, &u32::MAX.to_be_bytes());
        decode(&mut decoder, &[1; 100_000]);
        let State::Message { bytes, .. } = &decoder.state else { panic!("no message began") };
        assert!(bytes.capacity() <= 2 * 100_000, "{} bytes allocated", bytes.capacity());
    }

    #[test]
    fn the_documented_frames_are_what_is_read_and_written() {
        let block = include_str!("../testdata/frames.txt");
        let bytes = |digits: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            (0..digits.len()).step_by(2).map(byte).collect()
        };
        let mut count = 0;
        for line in block.lines() {
            let (message, frame) = line.split_once(" = ").unwrap();
            let message = bytes(message.trim_matches('-'));
            assert_eq!(encode(&[&message]), bytes(frame));
            assert_eq!(decode(&mut FrameDecoder::new(100), &bytes(frame)), [message]);
            count += 1;
        }
        assert_eq!(count, 4);
    }

    proptest::proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_messages(
            messages in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..700), 0..20),
            cuts in proptest::collection::vec(0_usize..14_000, 0..30),
        ) {
            let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let data = encode(&messages);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
            cuts.extend([0, data.len()]);
            cuts.sort_unstable();
            let mut decoder = FrameDecoder::new(700);
            let pieces = cuts.windows(2).map(|cut| &data[cut[0]..cut[1]]);
            let got: Vec<_> = pieces.flat_map(|piece| decode(&mut decoder, piece)).collect();
            proptest::prop_assert_eq!(got, messages);
            proptest::prop_assert_eq!(decoder.truncated(), None);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(data: Vec<u8>) {
            let (mut decoder, mut rest) = (FrameDecoder::new(10), &data[..]);
            while !rest.is_empty() {
                match decoder.decode(&mut rest) {
                    Ok(None) => {}
                    Ok(Some((message, _))) => proptest::prop_assert!(message.len() <= 10),
                    Err(_) => break,
                }
            }
        }
    }
}
