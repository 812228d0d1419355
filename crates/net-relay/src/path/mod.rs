//! `Path`: one direction of a relay, without sockets and without a clock.

#[cfg(test)]
mod tests;

use crate::{Counts, Faults};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// One direction of a relay. Times count from any moment, the same for all calls.
///
/// The decisions about a datagram depend on the seed and on the number of datagrams before it. They
/// do not depend on the other faults: a path with more loss still reorders the same datagrams.
#[derive(Debug)]
pub struct Path {
    faults: Faults,
    counts: Counts,
    rng: Rng,
    in_burst: bool,
    /// When the last bit of what waits because of the rate has been sent.
    busy_until: Duration,
    /// When the last datagram that is not reordered leaves.
    last_leaves: Duration,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    next_number: u64,
}

/// A datagram on its way, ordered by its time and then by its arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    leaves: Duration,
    number: u64,
    datagram: Vec<u8>,
}

impl Path {
    /// Creates a path.
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            counts: Counts::default(),
            rng: Rng::with_seed(seed),
            in_burst: false,
            busy_until: Duration::ZERO,
            last_leaves: Duration::ZERO,
            held: BinaryHeap::new(),
            held_bytes: 0,
            next_number: 0,
        }
    }

    /// Returns the faults, to change them. Datagrams on their way keep their times.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Returns what happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Decides about a datagram that arrives at the time `now`.
    pub fn push(&mut self, now: Duration, datagram: &[u8]) {
        self.counts.arrived += 1;
        // All numbers are drawn, so that the decisions about one fault do not move those of others.
        let mut dice = self.rng.fork();
        let [loss, burst, in_burst, reorder, duplicate, corrupt, jitter] =
            std::array::from_fn(|_| dice.f64());
        let position = dice.usize(..);
        if let Some(bursts) = self.faults.bursts {
            let change = if self.in_burst { bursts.end } else { bursts.begin };
            self.in_burst ^= burst < change;
        }
        let burst_loss = self.faults.bursts.map_or(0.0, |bursts| bursts.loss);
        let dropped = if self.faults.blackhole {
            Some(&mut self.counts.blackholed)
        } else if datagram.len() > self.faults.mtu {
            Some(&mut self.counts.too_large)
        } else if loss < self.faults.loss {
            Some(&mut self.counts.lost)
        } else if self.in_burst && in_burst < burst_loss {
            Some(&mut self.counts.lost_in_bursts)
        } else {
            None
        };
        if let Some(count) = dropped {
            *count += 1;
            return;
        }
        let Some(sent) = self.transmit(now, datagram.len()) else {
            self.counts.overflowed += 1;
            return;
        };
        let leaves = sent + self.faults.delay + self.faults.jitter.mul_f64(jitter);
        let leaves = if reorder < self.faults.reorder {
            self.counts.reordered += 1;
            leaves + self.faults.reorder_by
        } else {
            self.last_leaves = self.last_leaves.max(leaves);
            self.last_leaves
        };
        let mut datagram = datagram.to_vec();
        if duplicate < self.faults.duplicate {
            self.counts.duplicated += 1;
            self.hold(leaves, datagram.clone());
        }
        if corrupt < self.faults.corrupt && !datagram.is_empty() {
            self.counts.corrupted += 1;
            let bit = position % (datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        self.hold(leaves, datagram);
    }

    /// Returns when the next datagram leaves.
    pub fn next_time(&self) -> Option<Duration> {
        self.held.peek().map(|Reverse(held)| held.leaves)
    }

    /// Removes the next datagram that leaves at the time `now` or before.
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.next_time().filter(|leaves| *leaves <= now)?;
        let Reverse(held) = self.held.pop()?;
        self.held_bytes -= held.datagram.len() + BOOKKEEPING;
        self.counts.delivered += 1;
        Some(held.datagram)
    }

    /// Returns when the last bit of a datagram has been sent at the rate; `None` if the queue has no
    /// room for it.
    fn transmit(&mut self, now: Duration, size: usize) -> Option<Duration> {
        let Some(rate) = self.faults.rate else { return Some(now) };
        let rate = rate.max(1) as f64;
        let waits = self.busy_until.saturating_sub(now);
        let waiting = waits.as_secs_f64() * rate / 8.0;
        // A datagram that finds the link idle passes whatever the size of the queue.
        if !waits.is_zero() && waiting + size as f64 > self.faults.queue as f64 {
            return None;
        }
        let time = Duration::from_secs_f64(size as f64 * 8.0 / rate);
        self.busy_until = now + waits + time;
        Some(self.busy_until)
    }

    fn hold(&mut self, leaves: Duration, datagram: Vec<u8>) {
        let bytes = datagram.len() + BOOKKEEPING;
        if self.held_bytes + bytes > MAX_HELD {
            self.counts.overflowed += 1;
            return;
        }
        self.held_bytes += bytes;
        self.held.push(Reverse(Held { leaves, number: self.next_number, datagram }));
        self.next_number += 1;
    }
}

/// Bytes of memory per datagram besides its own.
const BOOKKEEPING: usize = 128;

/// The limit of the memory of a path: 100 ms at 1 Gbit/s need 12.5 MB.
const MAX_HELD: usize = 32 << 20;
