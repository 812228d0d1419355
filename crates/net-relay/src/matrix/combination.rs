//! `Combination`: which faults, which event, and which transfer.

use crate::{Bursts, Faults, Relay};
use std::fmt;
use std::time::Duration;
use tokio::time::sleep;

/// The losses of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The part of all datagrams, in percent.
    Percent(u8),
    /// About 4 %, in bursts of five datagrams on average.
    Bursts,
}

/// What else happens to the datagrams of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// A tenth is overtaken.
    Reorder,
    /// A tenth arrives twice.
    Duplicate,
    /// Of a fiftieth, a bit is inverted.
    Corrupt,
}

/// What happens once a third of the transfer has arrived; of datagrams, once it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Datagrams above 1252 bytes are dropped.
    ShrinkingMtu,
    /// All datagrams are dropped for half a second.
    Blackhole,
    /// The client gets another port.
    Rebind,
    /// The rate becomes a tenth, and the queue a quarter.
    RateChange,
}

/// What is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Messages in one direction, then a close.
    Messages,
    /// Requests, eight at once.
    Requests,
    /// Datagrams, then a message.
    Datagrams,
}

/// One combination of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combination {
    /// The losses.
    pub loss: Loss,
    /// What else happens to datagrams.
    pub disturbance: Disturbance,
    /// What happens during the transfer.
    pub event: Event,
    /// What is transferred.
    pub transfer: Transfer,
}

impl Combination {
    /// Returns all combinations, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LOSSES.len() * DISTURBANCES.len() * PAIRS).map(Self::nth)
    }

    /// Returns one combination for each pair of event and transfer; the seed chooses the losses and
    /// the disturbances.
    pub fn selection(seed: u64) -> Vec<Self> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let others = LOSSES.len() * DISTURBANCES.len();
        (0..PAIRS).map(|pair| Self::nth(rng.usize(..others) * PAIRS + pair)).collect()
    }

    /// Returns the number of the combination in [`all`](Self::all).
    pub fn number(self) -> usize {
        Self::all().position(|other| other == self).expect("every combination is in the list")
    }

    fn nth(number: usize) -> Self {
        let (others, pair) = (number / PAIRS, number % PAIRS);
        Self {
            loss: LOSSES[others / DISTURBANCES.len()],
            disturbance: DISTURBANCES[others % DISTURBANCES.len()],
            event: EVENTS[pair / TRANSFERS.len()],
            transfer: TRANSFERS[pair % TRANSFERS.len()],
        }
    }

    /// Returns the faults from the beginning, before the event.
    pub(super) fn faults(self) -> Faults {
        let mut faults = Faults {
            delay: Duration::from_millis(2),
            jitter: Duration::from_millis(1),
            rate: Some(50_000_000),
            queue: 128 << 10,
            ..Faults::default()
        };
        match self.loss {
            Loss::Percent(percent) => faults.loss = f64::from(percent) / 100.0,
            Loss::Bursts => {
                faults.bursts = Some(Bursts { begin: 0.01, end: 0.2, loss: 0.8 });
            }
        }
        match self.disturbance {
            Disturbance::Reorder => faults.reorder = 0.1,
            Disturbance::Duplicate => faults.duplicate = 0.1,
            Disturbance::Corrupt => faults.corrupt = 0.02,
        }
        faults
    }
}

impl Event {
    /// Makes the event happen.
    pub(super) async fn happen(self, relay: &Relay) {
        match self {
            // QUIC needs 1200 bytes, and libmsquic returns to 1220.
            Self::ShrinkingMtu => relay.change_both(|faults| faults.mtu = 1252),
            Self::Blackhole => {
                relay.change_both(|faults| faults.blackhole = true);
                sleep(Duration::from_millis(500)).await;
                relay.change_both(|faults| faults.blackhole = false);
            }
            Self::Rebind => relay.rebind().expect("a port is free"),
            Self::RateChange => relay.change_both(|faults| {
                faults.rate = faults.rate.map(|rate| rate / 10);
                faults.queue /= 4;
            }),
        }
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, disturbance, event, transfer } = self;
        write!(f, "{loss:?}, {disturbance:?}, {event:?}, {transfer:?}")
    }
}

const LOSSES: [Loss; 5] =
    [Loss::Percent(0), Loss::Percent(1), Loss::Percent(5), Loss::Percent(20), Loss::Bursts];

const DISTURBANCES: [Disturbance; 3] =
    [Disturbance::Reorder, Disturbance::Duplicate, Disturbance::Corrupt];

const EVENTS: [Event; 4] =
    [Event::ShrinkingMtu, Event::Blackhole, Event::Rebind, Event::RateChange];

const TRANSFERS: [Transfer; 3] = [Transfer::Messages, Transfer::Requests, Transfer::Datagrams];

/// Pairs of event and transfer.
const PAIRS: usize = EVENTS.len() * TRANSFERS.len();
