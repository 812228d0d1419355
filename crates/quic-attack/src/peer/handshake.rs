//! The automatic part of a peer: it decrypts packets, drives TLS and sends acknowledgements.

use super::{Peer, PeerError, Received};
use crate::frame::Frame;
use crate::packet::{MIN_INITIAL, Opened, Packet, Protected, Space};
use rustls::quic::{Connection, KeyChange};

impl Peer {
    /// Decrypts the packets of a datagram, handles their frames and answers.
    pub(super) fn take_datagram(
        &mut self,
        datagram: &[u8],
        socket: usize,
    ) -> Result<Vec<Received>, PeerError> {
        let mut received = Vec::new();
        match Packet::split(datagram, self.src.len()) {
            Err(_) => self.unreadable += 1,
            Ok(packets) => {
                for packet in packets {
                    if let Packet::Protected(packet) = packet {
                        self.take_packet(packet, socket, &mut received)?;
                    }
                }
            }
        }
        // Packets that arrived before their keys.
        for (packet, socket) in std::mem::take(&mut self.early) {
            self.take_packet(packet, socket, &mut received)?;
        }
        self.flush()?;
        Ok(received)
    }

    fn take_packet(
        &mut self,
        packet: Protected,
        socket: usize,
        received: &mut Vec<Received>,
    ) -> Result<(), PeerError> {
        let space = packet.space;
        let source = packet.src.clone();
        let state = &mut self.spaces[space as usize];
        let Some(keys) = &state.keys else {
            if self.early.len() < MAX_EARLY {
                self.early.push((packet, socket));
            }
            return Ok(());
        };
        let Ok(packet) = packet.open(&keys.remote, state.largest()) else {
            self.unreadable += 1;
            return Ok(());
        };
        if self.policy.lost.is_some_and(|is_lost| is_lost(&packet)) {
            return Ok(());
        }
        let is_client = matches!(self.tls, Connection::Client(_));
        if is_client && space == Space::Initial && state.received.is_empty() {
            self.remote_ids[0].1 = source; // the server chooses its own
        }
        if !state.received.insert(packet.number) {
            state.owes_ack = true;
            return Ok(());
        }
        state.owes_ack |= packet.frames.iter().any(Frame::is_ack_eliciting);
        self.take_frames(&packet, socket)?;
        received.push(Received { packet, socket });
        Ok(())
    }

    fn take_frames(&mut self, packet: &Opened, socket: usize) -> Result<(), PeerError> {
        let state = &mut self.spaces[packet.space as usize];
        for frame in &packet.frames {
            match frame {
                Frame::Ack(ack) => state.acknowledged = state.acknowledged.max(Some(ack.largest)),
                Frame::Crypto { offset, data } => state.crypto.insert(*offset, data),
                _ => {}
            }
        }
        let crypto = state.crypto.take();
        if !crypto.is_empty() {
            self.tls.read_hs(&crypto)?;
        }
        for frame in &packet.frames {
            match frame {
                Frame::HandshakeDone => self.is_confirmed = true,
                Frame::Close { .. } => self.closed = Some(frame.clone()),
                Frame::NewConnectionId { sequence, id, .. }
                    if self.remote_ids.iter().all(|(other, _)| other != sequence) =>
                {
                    self.remote_ids.push((*sequence, id.clone()));
                }
                Frame::PathChallenge(data) if self.policy.answers_challenges => {
                    let frames = [Frame::PathResponse(*data), Frame::Padding(PROBE)];
                    self.send_from(socket, Space::Data, &frames)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends pending TLS data and acknowledgements.
    pub(super) fn flush(&mut self) -> Result<(), PeerError> {
        let mut datagram = Vec::new();
        loop {
            let mut data = Vec::new();
            let space = self.write_space;
            let change = self.tls.write_hs(&mut data);
            let is_done = change.is_none() && data.is_empty();
            match change {
                Some(KeyChange::Handshake { keys }) => {
                    self.spaces[Space::Handshake as usize].keys = Some(keys);
                    self.write_space = Space::Handshake;
                }
                Some(KeyChange::OneRtt { keys, .. }) => {
                    self.spaces[Space::Data as usize].keys = Some(keys);
                    self.write_space = Space::Data;
                }
                None => {}
            }
            for part in data.chunks(CRYPTO_PART) {
                let state = &mut self.spaces[space as usize];
                let offset = state.crypto_sent;
                state.crypto_sent += part.len() as u64;
                let mut frames = self.owed_ack(space);
                frames.push(Frame::Crypto { offset, data: part.to_vec() });
                let packet = self.seal(space, &frames);
                self.coalesce(&mut datagram, space, packet)?;
            }
            if is_done {
                break;
            }
        }
        for space in [Space::Initial, Space::Handshake, Space::Data] {
            let frames = self.owed_ack(space);
            if !frames.is_empty() {
                let packet = self.seal(space, &frames);
                self.coalesce(&mut datagram, space, packet)?;
            }
        }
        let is_server = matches!(self.tls, Connection::Server(_));
        let is_complete = is_server && !self.tls.is_handshaking();
        if is_complete && !self.is_confirmed {
            self.is_confirmed = true;
            if self.policy.confirms {
                let packet = self.seal(Space::Data, &[Frame::HandshakeDone]);
                self.coalesce(&mut datagram, Space::Data, packet)?;
            }
        }
        if datagram.is_empty() { Ok(()) } else { self.transmit(self.socket, datagram) }
    }

    /// Appends a packet to a datagram, which is sent first if it would become too large. A packet
    /// with a short header has no length, so it ends its datagram (RFC 9000, section 12.2).
    fn coalesce(
        &mut self,
        datagram: &mut Vec<u8>,
        space: Space,
        packet: Vec<u8>,
    ) -> Result<(), PeerError> {
        if !datagram.is_empty() && datagram.len() + packet.len() > MAX_DATAGRAM {
            self.transmit(self.socket, std::mem::take(datagram))?;
        }
        datagram.extend(packet);
        if space == Space::Data {
            self.transmit(self.socket, std::mem::take(datagram))?;
        }
        Ok(())
    }

    fn owed_ack(&mut self, space: Space) -> Vec<Frame> {
        let is_wanted = self.policy.acknowledged.contains(&space);
        let state = &mut self.spaces[space as usize];
        if !is_wanted || !state.owes_ack {
            return Vec::new();
        }
        state.owes_ack = false;
        state.ack().map(Frame::Ack).into_iter().collect()
    }
}

/// Bytes of a CRYPTO stream per packet.
const CRYPTO_PART: usize = 1000;

/// The size of datagrams that the tests' paths carry.
const MAX_DATAGRAM: usize = 1400;

/// How many packets may wait for their keys.
const MAX_EARLY: usize = 32;

/// A response to a path challenge must fill a datagram of 1200 bytes (RFC 9000, section 8.2.2).
const PROBE: usize = MIN_INITIAL - 40;
