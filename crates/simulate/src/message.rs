//! `Message`: what neighbours send each other, and its encoding.

use crate::journal::Arrived;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use net_traits::CertHash;
use std::hash::{DefaultHasher, Hasher};

/// A message from a node to a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Something that every node should know.
    Rumor(Rumor),
    /// The numbers of the rumors that the sender knows.
    Known(Vec<u32>),
}

/// What is told from node to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rumor {
    /// Later rumors have larger numbers.
    pub(crate) number: u32,
    /// An identity that must not be trusted any more.
    pub(crate) revoked: Option<CertHash>,
    pub(crate) body: Bytes,
}

const RUMOR: u8 = 0;
const REVOCATION: u8 = 1;
const KNOWN: u8 = 2;

impl Message {
    /// Encodes the message. `number` gets the length and a hash of the content, and returns the
    /// number of the message.
    pub(crate) fn encode(&self, number: impl FnOnce(usize, u64) -> u64) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(0);
        match self {
            Self::Rumor(Rumor { number, revoked, body }) => {
                bytes.put_u8(if revoked.is_some() { REVOCATION } else { RUMOR });
                bytes.put_u32(*number);
                revoked.iter().for_each(|hash| bytes.put_slice(hash.as_bytes()));
                bytes.put_slice(body);
            }
            Self::Known(numbers) => {
                bytes.put_u8(KNOWN);
                numbers.iter().for_each(|number| bytes.put_u32(*number));
            }
        }
        let number = number(bytes.len(), hash(&bytes[8..]));
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes.freeze()
    }

    /// Decodes a message and what the journal compares. `None` if the bytes are no message.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<(Arrived, Self)> {
        let number = bytes.try_get_u64().ok()?;
        let arrived = Arrived { number, content: hash(&bytes) };
        let message = match bytes.try_get_u8().ok()? {
            KNOWN => {
                let mut numbers = Vec::with_capacity(bytes.len() / 4);
                while bytes.has_remaining() {
                    numbers.push(bytes.try_get_u32().ok()?);
                }
                Self::Known(numbers)
            }
            kind @ (RUMOR | REVOCATION) => {
                let rumor = bytes.try_get_u32().ok()?;
                let mut revoked = None;
                if kind == REVOCATION {
                    let mut hash = [0; 32];
                    bytes.try_copy_to_slice(&mut hash).ok()?;
                    revoked = Some(CertHash::from_bytes(hash));
                }
                Self::Rumor(Rumor { number: rumor, revoked, body: bytes })
            }
            _ => return None,
        };
        Some((arrived, message))
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_a_round_trip() {
        let revoked = Some(CertHash::from_bytes([7; 32]));
        let rumor = |revoked| Message::Rumor(Rumor { number: 3, revoked, body: "news".into() });
        for message in [rumor(None), rumor(revoked), Message::Known(vec![1, 2])] {
            let mut content = 0;
            let bytes = message.encode(|length, hash| {
                content = hash;
                length as u64
            });
            let arrived = Arrived { number: bytes.len() as u64, content };
            assert_eq!(Message::decode(bytes.clone()), Some((arrived, message)));
            assert_eq!(Message::decode(bytes.slice(..8)), None);
        }
        assert_eq!(Message::decode(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 1, 9])), None);
    }
}
