//! `Pipe`: one direction of a connection, with the data in flight and the data that was not
//! received yet.

use super::link::{Faults, Link};
use bytes::Bytes;
use fastrand::Rng;
use net_kit::frame::{FrameDecoder, HEADER};
use net_traits::RecvError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Limit of the bytes in flight or not received yet; a single message may exceed it.
const WINDOW: usize = 256 * 1024;

/// Bookkeeping bytes counted per piece, so that empty messages are bounded too.
const PIECE_COST: usize = 64;

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) link: Arc<Link>,
    pieces: VecDeque<Piece>,
    /// The cost of all pieces.
    held: usize,
    /// When the last piece arrives.
    last_at: Option<Instant>,
    sent: u64,
    /// How many pieces were received: the progress that senders wait for.
    pub(super) taken: u64,
    decoder: FrameDecoder,
    limit: usize,
    /// Remaining bytes of an oversized message, to be discarded.
    skip: u64,
    /// The number of the message that was decoded last, if it is marked.
    mark: Option<u32>,
    /// When the message that is being decoded began to arrive.
    began: Option<Instant>,
    faults: Faults,
    rng: Rng,
}

#[derive(Debug)]
struct Piece {
    first_at: Instant,
    last_at: Instant,
    content: Content,
    cost: usize,
}

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    /// Later data begins with a new message.
    End,
}

/// The result of a receive.
pub(super) enum Taken {
    Entry(Result<(Bytes, Duration), RecvError>),
    /// Data arrives at this time.
    Later(Instant),
    Nothing,
}

/// The network reset the connection.
pub(super) struct Reset;

impl Pipe {
    pub(super) fn new(link: Arc<Link>, limit: usize, mut rng: Rng) -> Self {
        let faults = link.plan().draw(&mut rng);
        Self {
            link,
            pieces: VecDeque::new(),
            held: 0,
            last_at: None,
            sent: 0,
            taken: 0,
            decoder: FrameDecoder::with_receipts(limit, true),
            limit,
            skip: 0,
            mark: None,
            began: None,
            faults,
            rng,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held < WINDOW
    }

    /// Returns how many bytes of the message in progress have arrived, and the size of its buffer.
    pub(super) fn unfinished(&self) -> (usize, usize) {
        self.decoder.unfinished()
    }

    /// Checks that all sent data has arrived. Data that arrives after the receiving side has
    /// closed, at `closed`, is not received.
    ///
    /// # Errors
    ///
    /// When the data arrives, if that is known.
    pub(super) fn delivered(
        &self,
        now: Instant,
        closed: Option<Instant>,
    ) -> Result<(), Option<Instant>> {
        let Some(sent) = self.last_at else { return Ok(()) };
        match self.link.arrives(sent) {
            None => Err(None),
            Some(at) if closed.is_some_and(|closed| at > closed) => Err(None),
            Some(at) if at > now => Err(Some(at)),
            Some(_) => Ok(()),
        }
    }

    /// Returns how many messages have not arrived, and their bytes.
    pub(super) fn undelivered(&self, now: Instant) -> (u64, u64) {
        let until = self.link.blocked_since().map_or(now, |since| since.min(now));
        let mut rest = (0, 0);
        for piece in self.pieces.iter().filter(|piece| piece.last_at > until) {
            if let Content::Bytes(bytes) = &piece.content {
                rest = (rest.0 + 1, rest.1 + bytes.len().saturating_sub(HEADER) as u64);
            }
        }
        rest
    }

    /// Sends one message or any other bytes.
    pub(super) fn push(&mut self, now: Instant, mut bytes: Bytes) -> Result<(), Reset> {
        let start = self.sent;
        self.sent += bytes.len() as u64;
        let passes = |place: u64| self.sent > place;
        if self.faults.reset.is_some_and(passes) {
            return Err(Reset);
        }
        let mut delay = Duration::ZERO;
        if let Some((_, duration)) = self.faults.stall.take_if(|(place, _)| passes(*place)) {
            delay = duration;
        }
        let cut = self.faults.truncate.take_if(|place| passes(*place));
        if let Some(place) = cut {
            // Cut inside the message, not in front of it.
            let length = place.saturating_sub(start).max(1);
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        }
        let length = bytes.len() as u64;
        let (first_at, last_at) = self.link.transmit(now, length, &mut self.rng);
        // A stall affects this connection only.
        let (first_at, last_at) = (first_at + delay, last_at + delay);
        let cost = bytes.len() + PIECE_COST;
        self.add(Piece { first_at, last_at, content: Content::Bytes(bytes), cost });
        if cut.is_some() {
            self.end(now);
        }
        Ok(())
    }

    /// Marks the end of the data pushed so far, possibly inside a message.
    pub(super) fn end(&mut self, now: Instant) {
        let at = self.link.arrival(now);
        self.add(Piece { first_at: at, last_at: at, content: Content::End, cost: PIECE_COST });
    }

    fn add(&mut self, mut piece: Piece) {
        // Data stays in order.
        if let Some(before) = self.last_at {
            piece.first_at = piece.first_at.max(before);
            piece.last_at = piece.last_at.max(before);
        }
        self.last_at = Some(piece.last_at);
        self.held += piece.cost;
        self.pieces.push_back(piece);
    }

    /// Returns the next message that has arrived.
    pub(super) fn take(&mut self, now: Instant) -> Taken {
        loop {
            let Some(mut piece) = self.pieces.pop_front() else { return Taken::Nothing };
            let later = match self.link.arrives(piece.last_at) {
                None => Some(Taken::Nothing),
                Some(at) if at > now => Some(Taken::Later(at)),
                Some(_) => None,
            };
            if let Some(later) = later {
                self.pieces.push_front(piece);
                return later;
            }
            let entry = match &mut piece.content {
                Content::End => self.decode_end(),
                Content::Bytes(bytes) => {
                    self.began.get_or_insert(piece.first_at);
                    let entry = self.decode(bytes, piece.last_at);
                    if !bytes.is_empty() {
                        self.pieces.push_front(piece);
                        match entry {
                            Some(entry) => return Taken::Entry(entry),
                            None => continue,
                        }
                    }
                    entry
                }
            };
            self.held -= piece.cost;
            self.taken += 1;
            if let Some(entry) = entry {
                return Taken::Entry(entry);
            }
        }
    }

    /// Decodes one message from the front of `bytes`.
    fn decode(
        &mut self,
        bytes: &mut Bytes,
        last_at: Instant,
    ) -> Option<Result<(Bytes, Duration), RecvError>> {
        if self.skip > 0 {
            let count = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            let _ = bytes.split_to(count);
            self.skip -= count as u64;
            return None;
        }
        let mut rest = &bytes[..];
        let decoded = loop {
            match self.decoder.control(&mut rest) {
                Ok(None) => break self.decoder.decode(&mut rest),
                Ok(Some(_)) => {} // such records are not sent through pipes
                Err(error) => break Err(error),
            }
        };
        if !matches!(decoded, Ok(None)) {
            self.mark = self.decoder.take_mark();
        }
        *bytes = bytes.slice_ref(rest);
        match decoded {
            Ok(None) => None,
            Ok(Some((message, _))) => {
                let began = self.began.take().unwrap_or(last_at);
                Some(Ok((message, last_at.saturating_duration_since(began))))
            }
            Err(error) => {
                if let RecvError::TooLarge { size, .. } = error {
                    self.skip = size;
                }
                self.decoder = FrameDecoder::with_receipts(self.limit, true);
                self.began = None;
                Some(Err(error))
            }
        }
    }

    /// Returns the number of the message that was taken last, if it is marked.
    pub(super) fn take_mark(&mut self) -> Option<u32> {
        self.mark.take()
    }

    fn decode_end(&mut self) -> Option<Result<(Bytes, Duration), RecvError>> {
        let truncated = self.decoder.truncated().filter(|_| self.skip == 0);
        self.decoder = FrameDecoder::with_receipts(self.limit, true);
        self.skip = 0;
        self.began = None;
        truncated.map(Err)
    }
}

/// Encodes a message as it is on the wire; `None` if it is too long for a header.
pub(super) fn frame(parts: &[Bytes]) -> Option<Bytes> {
    let length = parts.iter().map(Bytes::len).sum();
    let mut frame = Vec::with_capacity(HEADER + length);
    frame.extend(net_kit::frame::header(length)?);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Some(frame.into())
}
