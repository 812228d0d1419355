//! Initial packets of an attacker without a connection: `Attempt`, the client side, and the keys.

use crate::frame::Frame;
use crate::packet::{Draft, MIN_INITIAL, OpenError, Opened, Packet, Space, VERSION_1};
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

/// Derives the Initial keys from the destination connection ID of the client's first packet (RFC
/// 9001, section 5.2).
pub fn initial_keys(first_dst: &[u8], side: Side) -> Keys {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.expect("ring has this suite for QUIC").keys(first_dst, side, Version::V1)
}

/// A connection attempt that consists of hand-made Initial packets.
///
/// ```
/// use quic_attack::{Attempt, Frame};
///
/// let mut attempt = Attempt::new(&mut fastrand::Rng::with_seed(1));
/// let datagram = attempt.datagram(&[Frame::Ping]);
/// assert_eq!(datagram.len(), 1200);
/// ```
pub struct Attempt {
    /// The destination connection ID.
    pub dst: Vec<u8>,
    /// The source connection ID.
    pub src: Vec<u8>,
    /// The token that the packets carry.
    pub token: Vec<u8>,
    /// The number of the next packet.
    pub next_number: u64,
    keys: Keys,
    largest: Option<u64>,
}

impl Attempt {
    /// Creates an attempt with random connection IDs of eight bytes.
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        let dst = rng.u64(..).to_be_bytes().to_vec();
        let src = rng.u64(..).to_be_bytes().to_vec();
        let keys = initial_keys(&dst, Side::Client);
        Self { dst, src, token: Vec::new(), next_number: 0, keys, largest: None }
    }

    /// Sets the token of the attempt.
    #[must_use]
    pub fn with_token(mut self, token: Vec<u8>) -> Self {
        self.token = token;
        self
    }

    /// Returns an Initial packet with `frames`, without padding.
    pub fn packet(&mut self, frames: &[Frame]) -> Vec<u8> {
        self.seal(&Frame::encode_all(frames))
    }

    /// Returns a datagram of one Initial packet with `frames`, padded to 1200 bytes.
    pub fn datagram(&mut self, frames: &[Frame]) -> Vec<u8> {
        let mut payload = Frame::encode_all(frames);
        let overhead = self.overhead();
        payload.resize(payload.len().max(MIN_INITIAL.saturating_sub(overhead)), 0);
        self.seal(&payload)
    }

    /// Returns datagrams that carry `data` as CRYPTO frames from `offset` on.
    pub fn crypto(&mut self, offset: u64, data: &[u8]) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut offset = offset;
        for part in data.chunks(CRYPTO_PART) {
            datagrams.push(self.datagram(&[Frame::Crypto { offset, data: part.to_vec() }]));
            offset += part.len() as u64;
        }
        datagrams
    }

    /// Decrypts the Initial packets of a received datagram and skips packets with other keys.
    ///
    /// # Errors
    ///
    /// [`OpenError`] for packets that do not answer this attempt.
    pub fn open(&mut self, datagram: &[u8]) -> Result<Vec<Opened>, OpenError> {
        let mut opened = Vec::new();
        for packet in Packet::split(datagram, self.src.len())? {
            if let Packet::Protected(packet) = packet
                && packet.space == Space::Initial
            {
                let packet = packet.open(&self.keys.remote, self.largest)?;
                self.largest = self.largest.max(Some(packet.number));
                opened.push(packet);
            }
        }
        Ok(opened)
    }

    fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let number = self.next_number;
        self.next_number += 1;
        let draft = Draft {
            space: Space::Initial,
            version: VERSION_1,
            dst: &self.dst,
            src: &self.src,
            token: &self.token,
            number,
        };
        draft.seal(&self.keys.local, payload)
    }

    /// Returns how many bytes a packet has besides its payload.
    fn overhead(&self) -> usize {
        let token_length = if self.token.len() < 64 { 1 } else { 2 };
        let header = 1 + 4 + 1 + self.dst.len() + 1 + self.src.len();
        header + token_length + self.token.len() + 2 + 4 + self.keys.local.packet.tag_len()
    }
}

/// Bytes of a CRYPTO stream that fit in a packet of 1200 bytes.
const CRYPTO_PART: usize = 1000;
