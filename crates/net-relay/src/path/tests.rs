//! Tests of each fault, by counts and contents.

use super::*;
use crate::Bursts;

const MS: Duration = Duration::from_millis(1);

/// Pushes 10,000 numbered datagrams, one each millisecond, and returns what leaves, in order.
fn relay(faults: Faults) -> (Vec<Vec<u8>>, Counts) {
    let mut path = Path::new(faults, 7);
    let mut left = Vec::new();
    for number in 0..10_000_u32 {
        let now = MS * number;
        left.extend(std::iter::from_fn(|| path.pop(now)));
        path.push(now, &number.to_be_bytes());
    }
    left.extend(std::iter::from_fn(|| path.pop(Duration::MAX)));
    let counts = path.counts();
    let drops = counts.lost + counts.lost_in_bursts + counts.too_large + counts.blackholed;
    assert_eq!(counts.arrived + counts.duplicated, counts.delivered + drops + counts.overflowed);
    assert_eq!((counts.arrived, counts.delivered), (10_000, left.len() as u64));
    assert_eq!(path.held_bytes, 0);
    (left, counts)
}

fn numbers(left: &[Vec<u8>]) -> Vec<u32> {
    left.iter().map(|datagram| u32::from_be_bytes(datagram[..].try_into().unwrap())).collect()
}

fn close_to(count: u64, expected: u64) -> bool {
    count.abs_diff(expected) < expected / 5
}

#[test]
fn without_faults_everything_passes_in_order() {
    let (left, _) = relay(Faults::default());
    assert_eq!(numbers(&left), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn jitter_does_not_change_the_order() {
    let (left, _) = relay(Faults { delay: 10 * MS, jitter: 20 * MS, ..Faults::default() });
    assert_eq!(numbers(&left), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn a_datagram_leaves_after_its_delay() {
    let mut path = Path::new(Faults { delay: 5 * MS, ..Faults::default() }, 0);
    path.push(2 * MS, b"one");
    assert_eq!(path.next_time(), Some(7 * MS));
    assert_eq!(path.pop(6 * MS), None);
    assert_eq!(path.pop(7 * MS).as_deref(), Some(&b"one"[..]));
}

#[test]
fn loss_drops_its_part() {
    let (left, counts) = relay(Faults { loss: 0.05, ..Faults::default() });
    assert!(close_to(counts.lost, 500), "{counts:?}");
    assert!(numbers(&left).is_sorted());
}

#[test]
fn bursts_drop_neighbours() {
    let bursts = Bursts { begin: 0.01, end: 0.1, loss: 1.0 };
    let (left, counts) = relay(Faults { bursts: Some(bursts), ..Faults::default() });
    let left = numbers(&left);
    let gaps = left.windows(2).filter(|pair| pair[1] - pair[0] > 1).count() as u64;
    assert!((500..1500).contains(&counts.lost_in_bursts), "{counts:?}"); // a tenth or so is bad
    assert!(counts.lost_in_bursts > 5 * gaps, "{counts:?} in {gaps} gaps");
}

#[test]
fn reordered_datagrams_are_overtaken() {
    let (left, counts) = relay(Faults { reorder: 0.1, ..Faults::default() });
    assert!(close_to(counts.reordered, 1000), "{counts:?}");
    let mut left = numbers(&left);
    let early = left.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    assert!((500..=counts.reordered).contains(&early), "{early}");
    left.sort_unstable();
    assert_eq!(left, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn duplicates_are_copies() {
    let (left, counts) = relay(Faults { duplicate: 0.1, ..Faults::default() });
    assert!(close_to(counts.duplicated, 1000), "{counts:?}");
    let mut left = numbers(&left);
    left.dedup();
    assert_eq!(left, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn corruption_inverts_one_bit() {
    let (left, counts) = relay(Faults { corrupt: 0.1, ..Faults::default() });
    assert!(close_to(counts.corrupted, 1000), "{counts:?}");
    let bits = |(sent, left): (u32, u32)| (sent ^ left).count_ones();
    let inverted: Vec<_> = (0..).zip(numbers(&left)).map(bits).collect();
    assert!(inverted.iter().all(|bits| *bits <= 1));
    assert_eq!(inverted.iter().sum::<u32>() as u64, counts.corrupted);
}

#[test]
fn a_smaller_mtu_drops_what_is_larger() {
    let mut path = Path::new(Faults { mtu: 1400, ..Faults::default() }, 0);
    path.push(MS, &[0; 1400]);
    path.faults().mtu = 1300;
    path.push(MS, &[0; 1400]);
    path.push(MS, &[0; 1300]);
    let left: Vec<_> = std::iter::from_fn(|| path.pop(MS)).map(|left| left.len()).collect();
    assert_eq!(left, [1400, 1300]);
    assert_eq!(path.counts().too_large, 1);
}

#[test]
fn a_blackhole_drops_everything_until_it_ends() {
    let mut path = Path::new(Faults { blackhole: true, ..Faults::default() }, 0);
    path.push(MS, b"one");
    path.faults().blackhole = false;
    path.push(MS, b"two");
    assert_eq!(path.pop(MS).as_deref(), Some(&b"two"[..]));
    assert_eq!((path.pop(MS), path.counts().blackholed), (None, 1));
}

#[test]
fn the_rate_spaces_datagrams_and_the_queue_is_bounded() {
    // 1000 bytes take a millisecond.
    let mut path = Path::new(Faults { rate: Some(8_000_000), queue: 3000, ..Faults::default() }, 0);
    for _ in 0..10 {
        path.push(Duration::ZERO, &[0; 1000]);
    }
    assert_eq!(path.counts().overflowed, 7);
    for number in 1..=3 {
        assert_eq!(path.next_time(), Some(MS * number));
        assert!(path.pop(MS * number).is_some());
    }
    path.push(3 * MS, &[0; 5000]); // larger than the queue, over an idle link
    assert_eq!(path.next_time(), Some(8 * MS));
}

#[test]
fn memory_is_bounded_in_bytes_and_in_number() {
    for size in [0, 60_000] {
        let mut path = Path::new(Faults { delay: MS, ..Faults::default() }, 0);
        for _ in 0..=MAX_HELD / (size + BOOKKEEPING) {
            path.push(Duration::ZERO, &vec![0; size]);
        }
        assert!(path.held_bytes <= MAX_HELD);
        assert_eq!(path.counts().overflowed, 1);
    }
}

#[test]
fn decisions_depend_on_the_seed_and_not_on_other_faults() {
    let faults = |loss| Faults { loss, corrupt: 0.1, ..Faults::default() };
    let (one, again) = (relay(faults(0.0)), relay(faults(0.0)));
    assert_eq!(one, again);
    let lossy: std::collections::HashSet<_> = relay(faults(0.5)).0.into_iter().collect();
    let all: std::collections::HashSet<_> = one.0.into_iter().collect();
    assert!(lossy.is_subset(&all));
}
