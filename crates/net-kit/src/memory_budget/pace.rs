//! `Pace` and `Gaps`: whether a connection, its unfinished messages and gaps advance. Pure; looked at from time
//! to time.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How many bytes a connection has to bring within the timeout.
const ADVANCE: u64 = 16 * 1024;

/// Within the timeout, a message has to bring this part of what it holds, if memory is scarce, and a
/// connection this part of what its messages hold.
const PART: usize = 64;

/// What a connection may hold for its time, although memory is scarce.
const SMALL: usize = 64 * 1024;

/// An unfinished message at a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) number: u64,
    pub(super) arrived: usize,
    /// The size of its buffer.
    pub(super) held: usize,
    /// This side accepts no data of it now.
    pub(super) is_waiting: bool,
}

/// How a connection advances.
#[derive(Debug)]
pub(super) struct Pace {
    looked: Instant,
    /// The bytes of complete messages at the last look.
    received: u64,
    /// What the connection has brought.
    brought: u64,
    /// It advances by [`ADVANCE`].
    connection: Advance,
    /// It advances by a [`PART`] of what is held.
    of_held: Advance,
    messages: BTreeMap<u64, Message>,
}

/// An unfinished message.
#[derive(Debug)]
struct Message {
    /// How much had arrived, and the size of its buffer, at the last look.
    arrived: u64,
    held: usize,
    /// It advances by a [`PART`] of what it holds.
    of_held: Advance,
}

/// How many bytes had arrived at the last advance, and when that was.
#[derive(Debug, Clone, Copy)]
struct Advance {
    mark: u64,
    since: Instant,
}

impl Advance {
    /// Advances if at least `bytes` have arrived since the last advance.
    fn by(&mut self, bytes: u64, arrived: u64, now: Instant) {
        if arrived.saturating_sub(self.mark) >= bytes {
            *self = Self { mark: arrived, since: now };
        }
    }

    fn is_late(&self, now: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.since) >= timeout
    }
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let start = Advance { mark: 0, since: now };
        Self {
            looked: now,
            received: 0,
            brought: 0,
            connection: start,
            of_held: start,
            messages: BTreeMap::new(),
        }
    }

    /// Updates the state with all unfinished messages. `received` are the bytes of complete ones so far.
    /// What happened before a pause of `timeout` between two updates does not count, and for what is held
    /// only the time does while memory `is_scarce`.
    pub(super) fn update(
        &mut self,
        now: Instant,
        timeout: Duration,
        is_scarce: bool,
        received: u64,
        unfinished: impl Iterator<Item = Progress>,
    ) {
        self.brought += received.saturating_sub(self.received);
        self.received = received;
        let mut before = std::mem::take(&mut self.messages);
        let (mut held_by_all, mut is_waiting_for_all) = (0_usize, true);
        for Progress { number, arrived, held, is_waiting } in unfinished {
            let arrived = arrived as u64;
            let new = Message { arrived: 0, held, of_held: Advance { mark: arrived, since: now } };
            let mut message = before.remove(&number).unwrap_or(new);
            self.brought += arrived.saturating_sub(message.arrived);
            (message.arrived, message.held) = (arrived, held);
            let is_free = is_waiting || !is_scarce;
            message.of_held.by(if is_free { 0 } else { part(held) }, arrived, now);
            self.messages.insert(number, message);
            held_by_all = held_by_all.saturating_add(held);
            is_waiting_for_all &= is_waiting;
        }
        let begins =
            now.saturating_duration_since(std::mem::replace(&mut self.looked, now)) >= timeout;
        let is_free = begins || is_waiting_for_all || !is_scarce || held_by_all <= SMALL;
        self.of_held.by(if is_free { 0 } else { part(held_by_all) }, self.brought, now);
        self.connection.by(ADVANCE, self.brought, now);
    }

    /// Returns whether the connection brought less than 16 KiB within `timeout`.
    pub(super) fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        self.connection.is_late(now, timeout)
    }

    /// Returns whether the connection brought too little of what its messages hold within `timeout`, or
    /// messages that did so hold too much together.
    pub(super) fn is_slow(&self, now: Instant, timeout: Duration) -> bool {
        let slow = self.messages.values().filter(|it| it.of_held.is_late(now, timeout));
        let held_by_slow = slow.map(|it| it.held).fold(0, usize::saturating_add);
        held_by_slow > SMALL || self.of_held.is_late(now, timeout)
    }
}

/// The gaps in the streams of a connection, by age.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<u64, Behind>);

#[derive(Debug)]
struct Behind {
    held: usize,
    since: Instant,
}

impl Gaps {
    /// Sets how many bytes are held behind a gap, which begins now if it is new.
    pub(super) fn set(&mut self, number: u64, held: usize) {
        let new = Behind { held, since: Instant::now() };
        self.0.entry(number).or_insert(new).held = held;
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    /// Returns whether a gap has existed for `timeout`, without the time in which the inbox was full.
    pub(super) fn is_late(&mut self, now: Instant, timeout: Duration, is_full: bool) -> bool {
        let mut gaps = self.0.values_mut();
        if is_full {
            gaps.for_each(|behind| behind.since = now);
            return false;
        }
        gaps.any(|behind| now.saturating_duration_since(behind.since) >= timeout)
    }

    /// Returns the gaps as messages that do not advance.
    pub(super) fn progress(&self, is_waiting: bool) -> impl Iterator<Item = Progress> {
        let progress = move |(number, behind): (&u64, &Behind)| Progress {
            number: *number,
            arrived: 0,
            held: behind.held,
            is_waiting,
        };
        self.0.iter().map(progress)
    }
}

/// Returns how much has to arrive of what is held.
fn part(held: usize) -> u64 {
    held.div_ceil(PART) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOOKS: u32 = 4;
    const TIMEOUT: Duration = Duration::from_secs(LOOKS as u64);
    const MESSAGES: usize = 4;

    /// What happens to a message between two looks.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Grow(usize),
        /// Another message begins on its stream.
        Replace(usize),
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6000_usize).prop_map(Step::Grow),
            1 => (1..200_000_usize).prop_map(Step::Grow),
            1 => (0..300_000_usize).prop_map(Step::Replace),
            2 => Just(Step::Wait),
        ]
    }

    proptest! {
        /// A connection that is never slow brings, within two timeouts, a part of the least that it held
        /// meanwhile, and its messages that bring less of what they hold are small together.
        #[test]
        fn what_is_not_slow_advances(
            steps in proptest::collection::vec(proptest::array::uniform4(step()), 1..60),
        ) {
            let begin = Instant::now();
            let mut pace = Pace::new();
            let mut messages = [(0, 1, 1_usize); MESSAGES]; // number, bytes that arrived and are held
            let (mut numbers, mut brought) = (0, 0);
            let mut looks = Vec::new();
            for (number, of_all) in steps.iter().enumerate() {
                let mut unfinished = Vec::new();
                for (it, step) in of_all.iter().enumerate() {
                    let (number, arrived, held) = &mut messages[it];
                    match *step {
                        Step::Grow(bytes) => {
                            *arrived += bytes;
                            *held = (*held).max(*arrived);
                            brought += bytes;
                        }
                        Step::Replace(buffer) => {
                            numbers += 1;
                            (*number, *arrived, *held) = (numbers, 1, buffer.max(1));
                            brought += 1;
                        }
                        Step::Wait => {}
                    }
                    unfinished.push(Progress {
                        number: (*number * MESSAGES + it) as u64,
                        arrived: *arrived,
                        held: *held,
                        is_waiting: matches!(step, Step::Wait),
                    });
                }
                let held: usize = unfinished.iter().map(|it| it.held).sum();
                let waits = unfinished.iter().all(|it| it.is_waiting);
                let now = begin + TIMEOUT / LOOKS * (number as u32 + 1);
                pace.update(now, TIMEOUT, true, 0, unfinished.into_iter());
                looks.push((brought, if waits { 0 } else { held }));
                if pace.is_slow(now, TIMEOUT) {
                    break;
                }
                let mut recent = looks.iter().rev().take(2 * LOOKS as usize + 1);
                let least = recent.clone().map(|(_, held)| *held).min().unwrap_or(0);
                if let Some((before, _)) = recent.nth(2 * LOOKS as usize) {
                    let advance = brought - before;
                    prop_assert!(least <= SMALL || advance * PART >= least, "{advance} of {least}");
                }
                // Several small advances may be an advance together, so only still ones are known.
                let still = |it: &usize| steps[..=number].iter().rev().take(LOOKS as usize + 1)
                    .filter(|of_all| matches!(of_all[*it], Step::Grow(0))).count() > LOOKS as usize;
                let held: usize = (0..MESSAGES).filter(still).map(|it| messages[it].2).sum();
                prop_assert!(held <= SMALL, "{held} stand still");
            }
        }
    }
}
