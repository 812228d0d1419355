//! `Pace`: when an attacker sent its packets and used the processor, which its control repeats.
//!
//! Many attacks are bursts: a peer sends until a limit stops it. With the same packets spread evenly
//! over the experiment, the control would compare the burst with a quiet endpoint.

use anyhow::{Context, Error, Result};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What was sent and used since the start of an attack.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sent {
    /// Seconds since the start.
    pub(crate) time: f64,
    pub(crate) packets: f64,
    /// Seconds of processor time.
    pub(crate) processor: f64,
}

/// Samples in the order of their times. As text: `time:packets:processor`, separated by commas.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pace(Vec<Sent>);

impl Pace {
    /// Adds a later sample.
    pub(crate) fn push(&mut self, sent: Sent) {
        self.0.push(sent);
    }

    /// Returns what was sent after `elapsed`, interpolated; after the last sample, all.
    pub(crate) fn at(&self, elapsed: Duration) -> Sent {
        let time = elapsed.as_secs_f64();
        let next = self.0.partition_point(|sent| sent.time <= time);
        let before = next.checked_sub(1).map_or(Sent::default(), |index| self.0[index]);
        let Some(after) = self.0.get(next) else { return before };
        let part = (time - before.time) / (after.time - before.time);
        let between = |from: f64, to: f64| from + part * (to - from);
        Sent {
            time,
            packets: between(before.packets, after.packets),
            processor: between(before.processor, after.processor),
        }
    }

    /// Returns packets, and seconds of processor time, per second.
    pub(crate) fn rates(&self) -> (f64, f64) {
        let last = self.0.last().copied().unwrap_or_default();
        let seconds = last.time.max(f64::MIN_POSITIVE);
        (last.packets / seconds, last.processor / seconds)
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Sent { time, packets, processor }) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{time}:{packets}:{processor}")?;
        }
        Ok(())
    }
}

impl FromStr for Pace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sample = |text: &str| {
            let mut figures = text.split(':').map(f64::from_str);
            let mut next = || figures.next().with_context(|| format!("`{text}` is too short"));
            Ok(Sent { time: next()??, packets: next()??, processor: next()?? })
        };
        text.split(',').map(sample).collect::<Result<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_stays_a_burst() {
        let mut pace = Pace::default();
        pace.push(Sent { time: 0.5, packets: 100.0, processor: 0.25 });
        pace.push(Sent { time: 2.0, packets: 100.0, processor: 0.25 });
        assert_eq!(pace.to_string().parse::<Pace>().unwrap(), pace);
        let sent = |millis| {
            let sent = pace.at(Duration::from_millis(millis));
            (sent.packets, sent.processor)
        };
        assert_eq!(sent(0), (0.0, 0.0));
        assert_eq!(sent(250), (50.0, 0.125));
        assert_eq!(sent(1000), (100.0, 0.25));
        assert_eq!(sent(9000), (100.0, 0.25));
        assert_eq!(pace.rates(), (50.0, 0.125));
    }
}
