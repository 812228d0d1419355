//! The messages of a measurement. Numbers are big-endian.
//!
//! The client asks for one part after another; the listener answers each.
//!
//! | client | listener |
//! |---|---|
//! | `Upload`, then messages of any bytes, then an empty message | `Counted`: the messages and bytes received |
//! | `Download`: bytes of a message, milliseconds | messages of that size for that time, an empty message, `Counted`: what was sent |
//! | `Echo`, then messages, then an empty message | each message, also the empty one |
//! | `Datagrams`: how many follow; then they are sent | nothing |
//! | `Report`, after the datagrams | `Counted`: the datagrams and bytes received since the last `Datagrams` |

/// The largest message of a measurement, in bytes.
pub(crate) const MAX_MESSAGE: u32 = 1024 * 1024;

/// The longest part of a measurement, in milliseconds.
pub(crate) const MAX_MILLIS: u32 = 60_000;

/// What the client asks for: one byte for the kind, then its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Upload,
    /// 4 bytes: bytes of a message; 4 bytes: milliseconds.
    Download {
        size: u32,
        millis: u32,
    },
    Echo,
    Datagrams,
    Report,
}

impl Ask {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Upload => vec![1],
            Self::Download { size, millis } => {
                [&[2][..], &size.to_be_bytes(), &millis.to_be_bytes()].concat()
            }
            Self::Echo => vec![3],
            Self::Datagrams => vec![4],
            Self::Report => vec![5],
        }
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, MessageError> {
        match *message {
            [1] => Ok(Self::Upload),
            [2, a, b, c, d, e, f, g, h] => {
                let size = u32::from_be_bytes([a, b, c, d]);
                let millis = u32::from_be_bytes([e, f, g, h]);
                match (1..=MAX_MESSAGE).contains(&size) && millis <= MAX_MILLIS {
                    true => Ok(Self::Download { size, millis }),
                    false => Err(MessageError::Download { size, millis }),
                }
            }
            [3] => Ok(Self::Echo),
            [4] => Ok(Self::Datagrams),
            [5] => Ok(Self::Report),
            _ => Err(MessageError::Unknown(message.len())),
        }
    }
}

/// The answer: 8 bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.messages.to_be_bytes(), self.bytes.to_be_bytes()].concat()
    }

    pub(crate) fn decode(message: &[u8]) -> Result<Self, MessageError> {
        let (messages, bytes) = message.split_first_chunk().ok_or(MessageError::Counted)?;
        let bytes = bytes.try_into().map_err(|_| MessageError::Counted)?;
        Ok(Self { messages: u64::from_be_bytes(*messages), bytes: u64::from_be_bytes(bytes) })
    }
}

/// Why a message is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("an unknown request of {0} bytes, the peer may be of a newer version")]
    Unknown(usize),
    #[error(
        "messages of {size} bytes for {millis} ms: at most {MAX_MESSAGE} bytes and {MAX_MILLIS} ms"
    )]
    Download { size: u32, millis: u32 },
    #[error("an answer that is not two numbers")]
    Counted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_written_and_others_are_rejected() {
        let download = Ask::Download { size: MAX_MESSAGE, millis: MAX_MILLIS };
        for ask in [Ask::Upload, download, Ask::Echo, Ask::Datagrams, Ask::Report] {
            assert_eq!(Ask::decode(&ask.encode()), Ok(ask));
        }
        for (size, millis) in [(0, 1), (MAX_MESSAGE + 1, 1), (1, MAX_MILLIS + 1)] {
            let decoded = Ask::decode(&Ask::Download { size, millis }.encode());
            assert_eq!(decoded, Err(MessageError::Download { size, millis }));
        }
        assert_eq!(Ask::decode(&[]), Err(MessageError::Unknown(0)));
        assert_eq!(Ask::decode(&[2; 8]), Err(MessageError::Unknown(8)));
        let counted = Counted { messages: 3, bytes: u64::MAX };
        assert_eq!(Counted::decode(&counted.encode()), Ok(counted));
        assert_eq!(Counted::decode(&[0; 15]), Err(MessageError::Counted));
        assert_eq!(Counted::decode(&[0; 17]), Err(MessageError::Counted));
    }
}
