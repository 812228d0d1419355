//! `Confirmation`: how much of a byte stream the transport of the peer has confirmed. Pure.
//!
//! A *probe* is a control record between the messages. The peer answers it once its decoder has
//! reached it, and so has received everything before it. At most one probe is without an answer.
//! It is written after everything for which a flush waits, and every [`INTERVAL`] bytes, so that
//! little is unconfirmed when a connection ends.
//!
//! ```text
//!        what is wanted is written, or INTERVAL bytes
//! idle ────────────────────────────────────────────────▶ asked
//!   ▲──── answered, stream lost, all confirmed at close ───┘
//! ```

/// How many bytes are written without a probe.
const INTERVAL: u64 = 256 * 1024;

/// The bits of a number that count the probes of a lane; the others identify the lane.
const COUNT_BITS: u32 = 16;

/// The probes of one lane. Positions are numbers of written messages and control records.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The lane in the numbers of its probes. `None` if the peer answers no probes: then what is
    /// written counts as confirmed.
    lane: Option<u16>,
    count: u16,
    /// The position for which a flush waits.
    wanted: u64,
    /// The position before which nothing is awaited: it is confirmed, or lost with a stream.
    settled: u64,
    asked: Option<Probe>,
    /// The end of the last message before the last probe.
    probed: u64,
}

#[derive(Debug)]
struct Probe {
    number: u32,
    position: u64,
    /// The end of the last message before the probe.
    end: u64,
}

impl Confirmation {
    pub(super) fn with_probes(lane: u16) -> Self {
        Self { lane: Some(lane), ..Self::default() }
    }

    /// Begins to wait for `position`.
    pub(super) fn want(&mut self, position: u64) {
        self.wanted = self.wanted.max(position);
    }

    /// Returns the position before which nothing is awaited, which never decreases.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns whether everything before `position` is settled, if `written` is written.
    pub(super) fn is_settled(&self, position: u64, written: u64) -> bool {
        position <= if self.lane.is_some() { self.settled } else { written }
    }

    /// Returns whether the peer answers probes.
    pub(super) fn has_probes(&self) -> bool {
        self.lane.is_some()
    }

    /// Returns whether a probe is without an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns whether a flush waits for what is written, or an interval has passed.
    fn is_due(&self, written: u64, end: u64) -> bool {
        let is_wanted = (self.settled + 1..=written).contains(&self.wanted);
        is_wanted || end.saturating_sub(self.probed) >= INTERVAL
    }

    /// Returns whether an answer is missing, or would be if there had been room for its probe.
    pub(super) fn is_overdue(&self, written: u64, end: u64) -> bool {
        self.lane.is_some() && (self.is_asked() || self.is_due(written, end))
    }

    /// Returns the number of the probe that has to be written now, if any. `end` is the end of the
    /// last written message.
    pub(super) fn probe(&mut self, written: u64, end: u64) -> Option<u32> {
        let is_due = self.asked.is_none() && self.is_due(written, end);
        let lane = self.lane.filter(|_| is_due)?;
        self.probed = end;
        self.count = self.count.wrapping_add(1);
        let number = u32::from(lane) << COUNT_BITS | u32::from(self.count);
        self.asked = Some(Probe { number, position: written, end });
        Some(number)
    }

    /// Records an answer. Returns the end of the last confirmed message, or `None` if no such probe
    /// is without an answer.
    pub(super) fn answered(&mut self, number: u32) -> Option<u64> {
        let Probe { position, end, .. } = self.asked.take_if(|asked| asked.number == number)?;
        self.settled = position;
        Some(end)
    }

    /// Records that no answer for what is written will arrive or is needed: the stream is lost, or
    /// the peer has confirmed everything. The next stream begins at 0.
    pub(super) fn settle(&mut self, written: u64) {
        (self.settled, self.asked, self.probed) = (written, None, 0);
    }
}

/// Returns the lane of the probe with this number, see [`Outbox::with_probes`](super::Outbox::with_probes).
pub fn lane_of(number: u32) -> usize {
    (number >> COUNT_BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_follows_what_is_wanted_and_one_is_asked_at_a_time() {
        let mut lane_3 = Confirmation::with_probes(3);
        assert!(lane_3.is_settled(0, 0) && lane_3.probe(5, 50).is_none(), "nothing is wanted");
        lane_3.want(7);
        assert_eq!(lane_3.probe(6, 60), None, "the seventh is not written");
        let number = lane_3.probe(8, 80).unwrap();
        assert_eq!(lane_of(number), 3);
        lane_3.want(9);
        assert_eq!(lane_3.probe(9, 90), None, "one is asked");
        assert_eq!(lane_3.answered(number + 1), None);
        assert_eq!(lane_3.answered(number), Some(80));
        assert_eq!(lane_3.answered(number), None);
        assert!(lane_3.is_settled(8, 9) && !lane_3.is_settled(9, 9));
        let next = lane_3.probe(9, 90).unwrap();
        assert_ne!(next, number);
        lane_3.settle(9);
        assert!(lane_3.is_settled(9, 9) && lane_3.answered(next).is_none());
        assert_eq!(lane_3.probe(9, 90), None);
    }

    #[test]
    fn a_probe_follows_each_interval_without_a_flush() {
        let mut confirmation = Confirmation::with_probes(0);
        assert_eq!(confirmation.probe(1, INTERVAL - 1), None);
        let number = confirmation.probe(2, INTERVAL).unwrap();
        assert_eq!(confirmation.probe(4, 3 * INTERVAL), None, "one is asked");
        assert_eq!(confirmation.answered(number), Some(INTERVAL));
        assert!(confirmation.is_overdue(4, 3 * INTERVAL) && !confirmation.is_overdue(3, INTERVAL));
        assert!(confirmation.probe(4, 3 * INTERVAL).is_some());
        confirmation.settle(4);
        assert_eq!(confirmation.probe(4, INTERVAL - 1), None, "on the next stream");
        assert!(confirmation.probe(5, INTERVAL).is_some());
    }

    #[test]
    fn numbers_wrap_within_their_lane() {
        let mut confirmation = Confirmation::with_probes(1024);
        for position in 1..200_000 {
            confirmation.want(position);
            let number = confirmation.probe(position, position).unwrap();
            assert_eq!(lane_of(number), 1024);
            assert_eq!(confirmation.answered(number), Some(position));
        }
    }

    #[test]
    fn without_probes_what_is_written_is_settled() {
        let mut confirmation = Confirmation::default();
        confirmation.want(2);
        assert!(confirmation.is_settled(2, 2) && !confirmation.is_settled(2, 1));
        assert_eq!(confirmation.probe(2, 2), None);
    }
}
