//! Datagrams over a virtual network.

use bytes::Bytes;
use std::collections::VecDeque;
use tokio::time::Instant;

/// The largest datagram, in bytes.
pub(super) const LARGEST: usize = 1200;

/// How many bytes of datagrams may be queued, each counted as [`LARGEST`].
const QUEUE: usize = 64 * 1024;

/// The datagrams that one side has sent, until they are received or dropped.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    waiting: VecDeque<(Instant, Bytes)>,
    sent: u64,
    received: u64,
    dropped: u64,
}

impl Datagrams {
    pub(super) fn push(&mut self, arrives: Instant, datagram: Bytes) {
        self.sent += 1;
        self.waiting.push_back((arrives, datagram));
        if self.waiting.len() > QUEUE / LARGEST {
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }

    /// Counts a datagram that the network lost.
    pub(super) fn lose(&mut self) {
        self.sent += 1;
    }

    /// Returns the next datagram that has arrived.
    ///
    /// # Errors
    ///
    /// When the next one arrives, if one is in flight.
    pub(super) fn take(&mut self, now: Instant) -> Result<Bytes, Option<Instant>> {
        match self.waiting.front() {
            Some((at, _)) if *at > now => return Err(Some(*at)),
            _ => {}
        }
        let (_, datagram) = self.waiting.pop_front().ok_or(None)?;
        self.received += 1;
        Ok(datagram)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns how many have arrived, and how many were received.
    pub(super) fn received(&self, now: Instant) -> (u64, u64) {
        let waiting = self.waiting.iter().filter(|(at, _)| *at <= now).count() as u64;
        (self.received + self.dropped + waiting, self.received)
    }
}
