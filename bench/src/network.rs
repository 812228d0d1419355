//! The networks of the workload `Transfer`.

use net_relay::{Bursts, Faults};
use std::time::Duration;

/// The name of a network, and what happens to datagrams in both directions.
pub(crate) type Network = (&'static str, fn() -> Faults);

pub(crate) const NETWORKS: [Network; 9] = [
    ("40 ms, 100 Mbit/s", || path(40, 100)),
    ("40 ms, 100 Mbit/s, 0.1 % loss", || Faults { loss: 0.001, ..path(40, 100) }),
    ("40 ms, 100 Mbit/s, 1 % loss", || Faults { loss: 0.01, ..path(40, 100) }),
    ("40 ms, 100 Mbit/s, 5 % loss", || Faults { loss: 0.05, ..path(40, 100) }),
    ("40 ms, 100 Mbit/s, 1 % loss in bursts", || Faults {
        bursts: Some(Bursts { begin: 0.0025, end: 0.25, loss: 1.0 }),
        ..path(40, 100)
    }),
    ("40 ms, 100 Mbit/s, 2 % reordered", || Faults { reorder: 0.02, ..path(40, 100) }),
    ("40 ms, 100 Mbit/s, 2 % duplicated, 0.1 % corrupted", || Faults {
        duplicate: 0.02,
        corrupt: 0.001,
        ..path(40, 100)
    }),
    ("100 ms, 200 Mbit/s", || path(100, 200)),
    ("100 ms, 200 Mbit/s, 1 % loss", || Faults { loss: 0.01, ..path(100, 200) }),
];

/// Returns a path without faults, with a round-trip time and a rate.
fn path(milliseconds: u64, megabits: u64) -> Faults {
    let (round_trip, rate) = (Duration::from_millis(milliseconds), megabits * 1_000_000);
    Faults {
        delay: round_trip / 2,
        rate: Some(rate),
        // What the path carries in a round trip.
        queue: (rate as f64 / 8.0 * round_trip.as_secs_f64()) as usize,
        ..Faults::default()
    }
}
