//! Frames (RFC 9000, section 19; RFC 9221), and bytes that only look like frames.

use crate::varint::{Reader, Truncated, put};

/// A frame. It need not be valid: fields are encoded unmodified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A number of PADDING bytes.
    Padding(usize),
    /// PING.
    Ping,
    /// ACK.
    Ack(Ack),
    /// RESET_STREAM.
    ResetStream {
        /// The stream.
        stream: u64,
        /// The application's code.
        code: u64,
        /// The final size of the stream.
        final_size: u64,
    },
    /// STOP_SENDING.
    StopSending {
        /// The stream.
        stream: u64,
        /// The application's code.
        code: u64,
    },
    /// CRYPTO.
    Crypto {
        /// The offset of the data.
        offset: u64,
        /// Bytes of TLS messages.
        data: Vec<u8>,
    },
    /// NEW_TOKEN.
    NewToken(Vec<u8>),
    /// STREAM, always with offset and length.
    Stream {
        /// The stream.
        stream: u64,
        /// The offset of the data.
        offset: u64,
        /// Whether the stream ends after the data (FIN).
        fin: bool,
        /// The data.
        data: Vec<u8>,
    },
    /// NEW_CONNECTION_ID.
    NewConnectionId {
        /// Its sequence number.
        sequence: u64,
        /// Connection IDs with smaller sequence numbers must be retired.
        retire_prior_to: u64,
        /// The connection ID.
        id: Vec<u8>,
        /// The stateless reset token.
        token: [u8; 16],
    },
    /// RETIRE_CONNECTION_ID.
    RetireConnectionId(u64),
    /// PATH_CHALLENGE.
    PathChallenge([u8; 8]),
    /// PATH_RESPONSE.
    PathResponse([u8; 8]),
    /// CONNECTION_CLOSE.
    Close {
        /// The code.
        code: u64,
        /// The type of the frame that caused the error; `None` for an application close (type
        /// 0x1d).
        frame_type: Option<u64>,
        /// The reason phrase.
        reason: Vec<u8>,
    },
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// DATAGRAM, always with a length.
    Datagram(Vec<u8>),
    /// A frame that consists of integers: MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS and the BLOCKED
    /// frames.
    Limit {
        /// The type, 0x10 to 0x17.
        kind: u64,
        /// The integers after the type.
        values: Vec<u64>,
    },
    /// Raw bytes that are not a frame.
    Raw(Vec<u8>),
}

/// An ACK frame as on the wire, which need not be valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// The largest packet number.
    pub largest: u64,
    /// The delay field, not scaled.
    pub delay: u64,
    /// The number of packet numbers below `largest` in the first range.
    pub first: u64,
    /// Gap and length of each further range.
    pub ranges: Vec<(u64, u64)>,
}

impl Ack {
    /// Creates an ACK of one range, `smallest` to `largest`.
    pub fn range(smallest: u64, largest: u64) -> Self {
        Self { largest, first: largest.saturating_sub(smallest), ..Self::default() }
    }

    /// Creates an ACK of packet numbers, which are sorted, smallest first, and unique. `None` if
    /// empty.
    pub fn of(numbers: &[u64]) -> Option<Self> {
        let largest = *numbers.last()?;
        let mut ranges = Vec::new(); // (smallest, largest), largest range first
        for number in numbers.iter().rev() {
            match ranges.last_mut() {
                Some((smallest, _)) if *smallest == number + 1 => *smallest = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        let first = largest - ranges[0].0;
        let further = ranges.windows(2).take(MAX_RANGES);
        let further = further.map(|pair| (pair[0].0 - pair[1].1 - 2, pair[1].1 - pair[1].0));
        Some(Self { largest, delay: 0, first, ranges: further.collect() })
    }

    /// Returns whether it acknowledges `number`.
    pub fn contains(&self, number: u64) -> bool {
        let mut largest = self.largest;
        let mut length = self.first;
        let mut ranges = self.ranges.iter();
        loop {
            let Some(smallest) = largest.checked_sub(length) else { return false };
            if (smallest..=largest).contains(&number) {
                return true;
            }
            let Some((gap, next)) = ranges.next() else { return false };
            let Some(below) = smallest.checked_sub(gap.saturating_add(2)) else { return false };
            (largest, length) = (below, *next);
        }
    }
}

/// Why bytes are not frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The payload ends too early.
    #[error("a frame is truncated")]
    Truncated(#[from] Truncated),
    /// This crate does not know the type.
    #[error("unknown frame type {0:#x}")]
    UnknownType(u64),
}

impl Frame {
    /// Creates a CONNECTION_CLOSE of the transport without a reason.
    pub fn transport_close(code: u64) -> Self {
        Self::Close { code, frame_type: Some(0), reason: Vec::new() }
    }

    /// Creates a CONNECTION_CLOSE of the application without a reason.
    pub fn application_close(code: u64) -> Self {
        Self::Close { code, frame_type: None, reason: Vec::new() }
    }

    /// Returns whether a packet with this frame must be acknowledged.
    pub fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Padding(_) | Self::Ack(_) | Self::Close { .. })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Padding(count) => out.resize(out.len() + count, 0),
            Self::Ping => out.push(0x01),
            Self::Ack(ack) => {
                integers(out, &[0x02, ack.largest, ack.delay, ack.ranges.len() as u64, ack.first]);
                ack.ranges.iter().for_each(|(gap, length)| integers(out, &[*gap, *length]));
            }
            Self::ResetStream { stream, code, final_size } => {
                integers(out, &[0x04, *stream, *code, *final_size]);
            }
            Self::StopSending { stream, code } => integers(out, &[0x05, *stream, *code]),
            Self::Crypto { offset, data } => {
                integers(out, &[0x06, *offset]);
                counted(out, data);
            }
            Self::NewToken(token) => {
                out.push(0x07);
                counted(out, token);
            }
            Self::Stream { stream, offset, fin, data } => {
                integers(out, &[0x0e | u64::from(*fin), *stream, *offset]);
                counted(out, data);
            }
            Self::Limit { kind, values } => {
                put(out, *kind);
                integers(out, values);
            }
            Self::NewConnectionId { sequence, retire_prior_to, id, token } => {
                integers(out, &[0x18, *sequence, *retire_prior_to]);
                out.push(id.len() as u8);
                out.extend_from_slice(id);
                out.extend_from_slice(token);
            }
            Self::RetireConnectionId(sequence) => integers(out, &[0x19, *sequence]),
            Self::PathChallenge(data) => {
                out.push(0x1a);
                out.extend_from_slice(data);
            }
            Self::PathResponse(data) => {
                out.push(0x1b);
                out.extend_from_slice(data);
            }
            Self::Close { code, frame_type, reason } => {
                integers(out, &[if frame_type.is_some() { 0x1c } else { 0x1d }, *code]);
                frame_type.iter().for_each(|kind| put(out, *kind));
                counted(out, reason);
            }
            Self::HandshakeDone => out.push(0x1e),
            Self::Datagram(data) => {
                out.push(0x31);
                counted(out, data);
            }
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Returns the bytes of `frames`.
    pub fn encode_all(frames: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        out
    }

    /// Reads all frames of a packet.
    ///
    /// # Errors
    ///
    /// [`FrameError`] at the first frame that cannot be read.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<Self>, FrameError> {
        let mut reader = Reader::new(payload);
        let mut frames = Vec::new();
        while !reader.is_empty() {
            let frame = Self::decode(&mut reader)?;
            match (frames.last_mut(), &frame) {
                (Some(Self::Padding(count)), Self::Padding(more)) => *count += more,
                _ => frames.push(frame),
            }
        }
        Ok(frames)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FrameError> {
        let kind = reader.varint()?;
        Ok(match kind {
            0x00 => Self::Padding(1),
            0x01 => Self::Ping,
            0x02 | 0x03 => Self::Ack(decode_ack(reader, kind == 0x03)?),
            0x04 => Self::ResetStream {
                stream: reader.varint()?,
                code: reader.varint()?,
                final_size: reader.varint()?,
            },
            0x05 => Self::StopSending { stream: reader.varint()?, code: reader.varint()? },
            0x06 => Self::Crypto { offset: reader.varint()?, data: reader.counted()?.to_vec() },
            0x07 => Self::NewToken(reader.counted()?.to_vec()),
            0x08..=0x0f => Self::Stream {
                stream: reader.varint()?,
                offset: if kind & 0x04 != 0 { reader.varint()? } else { 0 },
                fin: kind & 0x01 != 0,
                data: if kind & 0x02 != 0 { reader.counted()? } else { reader.rest() }.to_vec(),
            },
            0x10 | 0x12..=0x14 | 0x16 | 0x17 => {
                Self::Limit { kind, values: vec![reader.varint()?] }
            }
            0x11 | 0x15 => Self::Limit { kind, values: vec![reader.varint()?, reader.varint()?] },
            0x18 => {
                let (sequence, retire_prior_to) = (reader.varint()?, reader.varint()?);
                let length = usize::from(reader.byte()?);
                let id = reader.take(length)?.to_vec();
                Self::NewConnectionId { sequence, retire_prior_to, id, token: reader.array()? }
            }
            0x19 => Self::RetireConnectionId(reader.varint()?),
            0x1a => Self::PathChallenge(reader.array()?),
            0x1b => Self::PathResponse(reader.array()?),
            0x1c | 0x1d => Self::Close {
                code: reader.varint()?,
                frame_type: if kind == 0x1c { Some(reader.varint()?) } else { None },
                reason: reader.counted()?.to_vec(),
            },
            0x1e => Self::HandshakeDone,
            0x30 => Self::Datagram(reader.rest().to_vec()),
            0x31 => Self::Datagram(reader.counted()?.to_vec()),
            unknown => return Err(FrameError::UnknownType(unknown)),
        })
    }
}

fn decode_ack(reader: &mut Reader<'_>, has_ecn: bool) -> Result<Ack, Truncated> {
    let (largest, delay) = (reader.varint()?, reader.varint()?);
    let (count, first) = (reader.varint()?, reader.varint()?);
    let mut ranges = Vec::new();
    for _ in 0..count {
        ranges.push((reader.varint()?, reader.varint()?));
    }
    if has_ecn {
        for _ in 0..3 {
            reader.varint()?;
        }
    }
    Ok(Ack { largest, delay, first, ranges })
}

fn integers(out: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| put(out, *value));
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The most ranges that fit in a packet together with data.
const MAX_RANGES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let frames = vec![
            Frame::Ping,
            Frame::Ack(Ack { largest: 9, delay: 1, first: 2, ranges: vec![(0, 1)] }),
            Frame::Crypto { offset: 5, data: vec![1, 2, 3] },
            Frame::Stream { stream: 4, offset: 70, fin: true, data: vec![9; 100] },
            Frame::NewConnectionId {
                sequence: 3,
                retire_prior_to: 2,
                id: vec![7; 8],
                token: [1; 16],
            },
            Frame::Limit { kind: 0x11, values: vec![4, 1 << 20] },
            Frame::transport_close(7),
            Frame::application_close(300),
            Frame::Padding(12),
        ];
        assert_eq!(Frame::decode_all(&Frame::encode_all(&frames)), Ok(frames));
    }

    #[test]
    fn an_ack_contains_exactly_its_numbers() {
        let numbers = [0, 1, 2, 5, 9, 10];
        let ack = Ack::of(&numbers).unwrap();
        for number in 0..12 {
            assert_eq!(ack.contains(number), numbers.contains(&number), "{number}");
        }
    }
}
