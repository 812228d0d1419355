//! `Faults`: what happens to the datagrams of one direction. `Counts`: how often it happened.

use std::time::Duration;

/// The faults of one direction. The default has none.
///
/// Probabilities are between 0 and 1, and apply to each datagram.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// The time that each datagram takes.
    pub delay: Duration,
    /// The longest additional time, which is chosen for each datagram. It does not change the order.
    pub jitter: Duration,
    /// Bits per second; `None` if the rate is not limited.
    pub rate: Option<u64>,
    /// Bytes that may wait because of the rate. Further datagrams are dropped. Default 256 KiB.
    pub queue: usize,
    /// The probability of loss.
    pub loss: f64,
    /// Losses in bursts, in addition to `loss`.
    pub bursts: Option<Bursts>,
    /// The probability that a datagram takes `reorder_by` longer, while later ones overtake it.
    pub reorder: f64,
    /// The additional time of reordered datagrams. Default 5 ms.
    pub reorder_by: Duration,
    /// The probability that a datagram arrives twice.
    pub duplicate: f64,
    /// The probability that one bit is inverted.
    pub corrupt: f64,
    /// The largest datagram that passes, in bytes of UDP payload. Larger ones are dropped.
    pub mtu: usize,
    /// Whether all datagrams are dropped.
    pub blackhole: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: 256 << 10,
            loss: 0.0,
            bursts: None,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: usize::MAX,
            blackhole: false,
        }
    }
}

/// The model of Gilbert and Elliott: a good state without loss, and a bad state. Each datagram may
/// change the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// The probability that a burst begins.
    pub begin: f64,
    /// The probability that a burst ends. The mean length of a burst is its inverse.
    pub end: f64,
    /// The probability of loss during a burst.
    pub loss: f64,
}

/// What happened to the datagrams of one direction.
///
/// After all have left, `arrived + duplicated` is the sum of `delivered` and all drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams that arrived at the relay.
    pub arrived: u64,
    /// Datagrams that left it.
    pub delivered: u64,
    /// Dropped by `loss`.
    pub lost: u64,
    /// Dropped during a burst.
    pub lost_in_bursts: u64,
    /// Dropped because of the MTU.
    pub too_large: u64,
    /// Dropped by the blackhole.
    pub blackholed: u64,
    /// Dropped because the queue, or the memory of the relay, was full.
    pub overflowed: u64,
    /// Delayed by `reorder_by`.
    pub reordered: u64,
    /// Copies that were added.
    pub duplicated: u64,
    /// Passed with an inverted bit.
    pub corrupted: u64,
}
