//! `TrustExpiry`: when the trust in the peers of a transport ends.
//!
//! A term is kept as a moment of tokio's clock, and as a date: a clock that was set, or a machine that
//! slept, is noticed when the dates are looked at. Pure data; the [registry](crate::registry) owns it
//! under its lock.

use net_traits::PeerIdentity;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often the dates are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// When the trust in the peer of a connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    at: Instant,
    date: SystemTime,
}

impl Term {
    /// Returns a term that has ended.
    #[cfg(test)]
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), date: SystemTime::now() }
    }

    /// Returns the term of a peer whose connection ends with it; `None` if it does not.
    pub(crate) fn of(peer: &PeerIdentity) -> Option<Self> {
        let date = peer.trusted_until.filter(|_| !peer.stays_connected)?;
        let left = date.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Self { at: Instant::now().checked_add(left)?, date })
    }
}

/// When the trust in the peer of each connection of a transport ends, the first to end first.
#[derive(Debug, Default)]
pub(crate) struct TrustExpiry {
    dates: BTreeMap<(Instant, u64), SystemTime>,
    /// A task waits for the first of them.
    is_watched: bool,
}

impl TrustExpiry {
    /// Adds the term of the connection `id`. Returns whether a task waits already, and whether this
    /// term is the first to end.
    pub(crate) fn insert(&mut self, id: u64, term: Term) -> (bool, bool) {
        self.dates.insert((term.at, id), term.date);
        let is_first = self.dates.first_key_value().is_some_and(|(first, _)| first.1 == id);
        (std::mem::replace(&mut self.is_watched, true), is_first)
    }

    /// Removes the term of a connection. Returns whether the waiting task has nothing to wait for.
    pub(crate) fn remove(&mut self, id: u64, term: Term) -> bool {
        self.dates.remove(&(term.at, id)).is_some() && self.dates.is_empty()
    }

    /// Returns when to look for terms that have ended. If there are none, the task ends, and `None` is
    /// returned.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        let first = self.dates.first_key_value().map(|((at, _), _)| *at);
        self.is_watched = first.is_some();
        first.map(|first| first.min(Instant::now() + LOOK))
    }

    /// Removes the terms that have ended, and returns the numbers of their connections.
    pub(crate) fn take_ended(&mut self) -> Vec<u64> {
        let (now, today) = (Instant::now(), SystemTime::now());
        let mut ended = Vec::new();
        self.dates.retain(|(at, id), date| {
            let lasts = *at > now && *date > today;
            if !lasts {
                ended.push(*id);
            }
            lasts
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn terms_end_by_either_clock() {
        let (now, today) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let mut trust_expiry = TrustExpiry::default();
        assert_eq!(trust_expiry.next(), None);
        let soon = Term { at: now + minute / 2, date: today + minute };
        assert_eq!(
            trust_expiry.insert(1, Term { at: now + 9 * minute, date: today + minute }),
            (false, true)
        );
        assert_eq!(trust_expiry.insert(2, soon), (true, true));
        let set_back = Term { at: now + 2 * minute, date: today };
        assert_eq!(trust_expiry.insert(3, set_back), (true, false));
        assert_eq!(trust_expiry.next(), Some(now + minute / 2));
        assert_eq!(trust_expiry.take_ended(), [3], "its date has come");
        tokio::time::advance(minute / 2).await;
        assert_eq!(trust_expiry.take_ended(), [2]);
        assert_eq!(trust_expiry.next(), Some(Instant::now() + LOOK));
        assert!(!trust_expiry.remove(2, soon), "it has ended");
        assert!(trust_expiry.remove(1, Term { at: now + 9 * minute, date: today }));
        assert_eq!(trust_expiry.next(), None);
    }
}
