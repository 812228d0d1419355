//! Packets (RFC 9000, section 17) and their protection (RFC 9001, section 5).

use crate::frame::{Frame, FrameError};
use crate::varint::{Reader, Truncated, put, put_two_bytes};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::quic::DirectionalKeys;

/// The version of RFC 9000.
pub const VERSION_1: u32 = 1;

/// The smallest UDP payload in which a client may send an Initial packet.
pub const MIN_INITIAL: usize = 1200;

/// A packet number space, which also determines the keys of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Initial packets.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 1-RTT packets.
    Data,
}

/// A packet before its protection. Its packet number always has four bytes.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The packet number space.
    pub space: Space,
    /// The version, in long headers.
    pub version: u32,
    /// The destination connection ID.
    pub dst: &'a [u8],
    /// The source connection ID, in long headers.
    pub src: &'a [u8],
    /// The token, in Initial packets.
    pub token: &'a [u8],
    /// The packet number.
    pub number: u64,
}

impl Draft<'_> {
    /// Returns the packet with `payload` in it, encrypted and with header protection.
    ///
    /// # Panics
    ///
    /// If the payload has 16 KiB or more.
    pub fn seal(&self, keys: &DirectionalKeys, payload: &[u8]) -> Vec<u8> {
        let sealed_length = payload.len() + keys.packet.tag_len();
        assert!(sealed_length + NUMBER_LENGTH < 1 << 14, "a payload of {} bytes", payload.len());
        let mut packet = Vec::with_capacity(sealed_length + 64);
        match self.space {
            Space::Data => {
                packet.push(FIXED_BIT | 0x03);
                packet.extend_from_slice(self.dst);
            }
            Space::Initial | Space::Handshake => {
                let kind = if self.space == Space::Initial { INITIAL } else { HANDSHAKE };
                long_header(&mut packet, kind | 0x03, self.version, self.dst, self.src);
                if self.space == Space::Initial {
                    put(&mut packet, self.token.len() as u64);
                    packet.extend_from_slice(self.token);
                }
                put_two_bytes(&mut packet, sealed_length + NUMBER_LENGTH);
            }
        }
        let number_at = packet.len();
        packet.extend_from_slice(&(self.number as u32).to_be_bytes());
        let body_at = packet.len();
        packet.extend_from_slice(payload);
        let (header, body) = packet.split_at_mut(body_at);
        let tag = keys.packet.encrypt_in_place(self.number, header, body).expect("it is short");
        packet.extend_from_slice(tag.as_ref());
        let sample_at = number_at + NUMBER_LENGTH;
        let sample = packet[sample_at..sample_at + keys.header.sample_len()].to_vec();
        let (first, rest) = packet.split_at_mut(1);
        let number = &mut rest[number_at - 1..number_at - 1 + NUMBER_LENGTH];
        keys.header.encrypt_in_place(&sample, &mut first[0], number).expect("the sample fits");
        packet
    }
}

/// A received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A Version Negotiation packet.
    VersionNegotiation {
        /// The destination connection ID.
        dst: Vec<u8>,
        /// The source connection ID.
        src: Vec<u8>,
        /// The versions that the sender supports.
        versions: Vec<u32>,
    },
    /// A Retry packet.
    Retry {
        /// The destination connection ID.
        dst: Vec<u8>,
        /// The source connection ID.
        src: Vec<u8>,
        /// The token to send back.
        token: Vec<u8>,
    },
    /// An encrypted packet.
    Protected(Protected),
}

/// A received packet that is still encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// The packet number space.
    pub space: Space,
    /// The version; 0 in short headers, which have none.
    pub version: u32,
    /// The destination connection ID.
    pub dst: Vec<u8>,
    /// The source connection ID; empty in short headers.
    pub src: Vec<u8>,
    bytes: Vec<u8>,
    number_at: usize,
}

/// A received packet, decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The packet number space.
    pub space: Space,
    /// The destination connection ID.
    pub dst: Vec<u8>,
    /// The packet number.
    pub number: u64,
    /// Its frames.
    pub frames: Vec<Frame>,
    /// The size of the packet, in bytes.
    pub size: usize,
}

/// Why a packet cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The packet ends too early.
    #[error("a packet is truncated")]
    Truncated(#[from] Truncated),
    /// This crate does not support the kind of packet, such as 0-RTT.
    #[error("a packet with the first byte {0:#04x} is not supported")]
    Unsupported(u8),
    /// It was not encrypted with these keys.
    #[error("a packet cannot be decrypted")]
    Forged,
    /// Its frames cannot be read.
    #[error("a packet has invalid frames")]
    Frame(#[from] FrameError),
}

impl Packet {
    /// Reads the packets of a datagram. Short headers have a connection ID of `id_length` bytes.
    ///
    /// # Errors
    ///
    /// [`OpenError`] at the first packet whose header cannot be read.
    pub fn split(datagram: &[u8], id_length: usize) -> Result<Vec<Self>, OpenError> {
        let mut packets = Vec::new();
        let mut rest = datagram;
        while !rest.is_empty() {
            let (packet, length) = Self::first(rest, id_length)?;
            packets.push(packet);
            rest = &rest[length..];
        }
        Ok(packets)
    }

    fn first(bytes: &[u8], id_length: usize) -> Result<(Self, usize), OpenError> {
        let mut reader = Reader::new(bytes);
        let first = reader.byte()?;
        if first & LONG == 0 {
            let dst = reader.take(id_length)?.to_vec();
            let number_at = reader.position();
            let (bytes, length) = (bytes.to_vec(), bytes.len());
            let (space, version, src) = (Space::Data, 0, Vec::new());
            return Ok((
                Self::Protected(Protected { space, version, dst, src, bytes, number_at }),
                length,
            ));
        }
        let version = u32::from_be_bytes(reader.array()?);
        let dst_length = usize::from(reader.byte()?);
        let dst = reader.take(dst_length)?.to_vec();
        let src_length = usize::from(reader.byte()?);
        let src = reader.take(src_length)?.to_vec();
        if version == 0 {
            let mut versions = Vec::new();
            while !reader.is_empty() {
                versions.push(u32::from_be_bytes(reader.array()?));
            }
            return Ok((Self::VersionNegotiation { dst, src, versions }, bytes.len()));
        }
        let space = match first & TYPE {
            INITIAL => Space::Initial,
            HANDSHAKE => Space::Handshake,
            RETRY => {
                let rest = reader.rest();
                let length = rest.len().checked_sub(TAG_LENGTH);
                let length = length.ok_or(Truncated { at: bytes.len() })?;
                let token = rest[..length].to_vec();
                return Ok((Self::Retry { dst, src, token }, bytes.len()));
            }
            _ => return Err(OpenError::Unsupported(first)),
        };
        if space == Space::Initial {
            reader.counted()?;
        }
        let length = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let number_at = reader.position();
        reader.take(length)?;
        let end = reader.position();
        let bytes = bytes[..end].to_vec();
        Ok((Self::Protected(Protected { space, version, dst, src, bytes, number_at }), end))
    }
}

impl Protected {
    /// Decrypts the packet. `largest` is the largest packet number that was opened before in this
    /// space.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(
        mut self,
        keys: &DirectionalKeys,
        largest: Option<u64>,
    ) -> Result<Opened, OpenError> {
        let size = self.bytes.len();
        let sample_at = self.number_at + NUMBER_LENGTH;
        let sample = self.bytes.get(sample_at..sample_at + keys.header.sample_len());
        let sample = sample.ok_or(Truncated { at: size })?.to_vec();
        let (first, rest) = self.bytes.split_at_mut(1);
        let number = &mut rest[self.number_at - 1..self.number_at - 1 + NUMBER_LENGTH];
        keys.header
            .decrypt_in_place(&sample, &mut first[0], number)
            .map_err(|_| OpenError::Forged)?;
        let length = usize::from(first[0] & 0x03) + 1;
        let short = number[..length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let number = expand(short, length, largest.map_or(0, |largest| largest + 1));
        let (header, body) = self.bytes.split_at_mut(self.number_at + length);
        let payload = keys.packet.decrypt_in_place(number, header, body);
        let payload = payload.map_err(|_| OpenError::Forged)?;
        let frames = Frame::decode_all(payload)?;
        Ok(Opened { space: self.space, dst: self.dst, number, frames, size })
    }
}

/// Returns a Version Negotiation packet that lists `versions`.
pub fn version_negotiation(dst: &[u8], src: &[u8], versions: &[u32]) -> Vec<u8> {
    let mut packet = Vec::new();
    long_header(&mut packet, LONG | FIXED_BIT, 0, dst, src);
    versions.iter().for_each(|version| packet.extend_from_slice(&version.to_be_bytes()));
    packet
}

/// Returns a Retry packet with a correct integrity tag (RFC 9001, section 5.8). `first_dst` is the
/// destination connection ID of the client's first packet.
pub fn retry(first_dst: &[u8], dst: &[u8], src: &[u8], token: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    long_header(&mut packet, RETRY | UNUSED, VERSION_1, dst, src);
    packet.extend_from_slice(token);
    let pseudo = [&[first_dst.len() as u8][..], first_dst, &packet].concat();
    let key = UnboundKey::new(&AES_128_GCM, &RETRY_KEY).expect("the key has the right length");
    let nonce = Nonce::assume_unique_for_key(RETRY_NONCE);
    let tag = LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(pseudo), &mut []);
    packet.extend_from_slice(tag.expect("nothing is encrypted").as_ref());
    packet
}

fn long_header(packet: &mut Vec<u8>, first: u8, version: u32, dst: &[u8], src: &[u8]) {
    packet.push(first);
    packet.extend_from_slice(&version.to_be_bytes());
    for id in [dst, src] {
        packet.push(id.len() as u8);
        packet.extend_from_slice(id);
    }
}

/// Expands `short` to the packet number nearest to `expected` (RFC 9000, appendix A.3).
fn expand(short: u64, length: usize, expected: u64) -> u64 {
    let window = 1u64 << (8 * length);
    let candidate = expected & !(window - 1) | short;
    if candidate + window / 2 <= expected {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

const LONG: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;
const TYPE: u8 = 0xf0;
const INITIAL: u8 = 0xc0;
const HANDSHAKE: u8 = 0xe0;
const RETRY: u8 = 0xf0;
/// The bits of the first byte that a Retry packet does not use, set as in the specification's
/// example.
const UNUSED: u8 = 0x0f;

/// The longest encoding of a packet number.
const NUMBER_LENGTH: usize = 4;

/// The length of the tag of a Retry packet.
const TAG_LENGTH: usize = 16;

/// The key of RFC 9001, section 5.8.
const RETRY_KEY: [u8; 16] = 0xbe0c_690b_9f66_575a_1d76_6b54_e368_c84e_u128.to_be_bytes();

/// The nonce of RFC 9001, section 5.8.
const RETRY_NONCE: [u8; 12] =
    [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_matches_the_specification() {
        // RFC 9001, appendix A.4.
        let first_dst = 0x8394_c8f0_3e51_5708_u64.to_be_bytes();
        let src = 0xf067_a550_2a42_62b5_u64.to_be_bytes();
        let packet = retry(&first_dst, &[], &src, b"token");
        let tag = 0x04a2_65ba_2eff_4d82_9058_fb3f_0f24_96ba_u128.to_be_bytes();
        assert_eq!(packet[packet.len() - TAG_LENGTH..], tag);
        let Packet::Retry { token, .. } = &Packet::split(&packet, 0).unwrap()[0] else { panic!() };
        assert_eq!(token, b"token");
    }

    #[test]
    fn packet_numbers_are_expanded_as_in_the_specification() {
        assert_eq!(expand(0x9b32, 2, 0xa82f_30eb), 0xa82f_9b32);
        assert_eq!(expand(0, 1, 255), 256);
        assert_eq!(expand(255, 1, 256), 255);
        assert_eq!(expand(0, 4, 0), 0);
    }
}
