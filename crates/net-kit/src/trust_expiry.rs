//! `TrustExpiry`: when the trust in the peers of a transport ends.
//!
//! An [`Expiry`] is an instant of tokio's clock and a date. The dates are checked every minute as
//! well, because the system's clock may be set and the machine may sleep. Pure data; the
//! [registry](crate::registry) owns it under its lock.

use net_traits::PeerIdentity;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often the dates are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// When the trust in the peer of a connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry {
    at: Instant,
    date: SystemTime,
}

impl Expiry {
    /// Returns an expiry that has passed.
    #[cfg(test)]
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), date: SystemTime::now() }
    }

    /// Returns when the connection with `peer` has to end; `None` if it does not end with the
    /// trust.
    pub(crate) fn of(peer: &PeerIdentity) -> Option<Self> {
        let date = peer.trusted_until.filter(|_| !peer.stays_connected)?;
        let left = date.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Self { at: Instant::now().checked_add(left)?, date })
    }
}

/// The expiries of the connections of a transport, the earliest first.
#[derive(Debug, Default)]
pub(crate) struct TrustExpiry {
    dates: BTreeMap<(Instant, u64), SystemTime>,
}

impl TrustExpiry {
    /// Adds the expiry of the connection `id`. Returns whether it is the earliest.
    pub(crate) fn insert(&mut self, id: u64, expiry: Expiry) -> bool {
        self.dates.insert((expiry.at, id), expiry.date);
        self.dates.first_key_value().is_some_and(|(first, _)| first.1 == id)
    }

    /// Removes the expiry of a connection.
    pub(crate) fn remove(&mut self, id: u64, expiry: Expiry) {
        self.dates.remove(&(expiry.at, id));
    }

    /// Returns when to call [`take_ended`](Self::take_ended) next; `None` if there is no expiry.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ((first, _), _) = self.dates.first_key_value()?;
        Some((*first).min(Instant::now() + CHECK_INTERVAL))
    }

    /// Removes the expiries that have passed, and returns the ids of their connections.
    pub(crate) fn take_ended(&mut self) -> Vec<u64> {
        let (now, today) = (Instant::now(), SystemTime::now());
        let mut ended = Vec::new();
        self.dates.retain(|(at, id), date| {
            let is_valid = *at > now && *date > today;
            if !is_valid {
                ended.push(*id);
            }
            is_valid
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_expiry_passes_by_either_clock() {
        let (now, today) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let mut trust_expiry = TrustExpiry::default();
        assert_eq!(trust_expiry.next(), None);
        let soon = Expiry { at: now + minute / 2, date: today + minute };
        assert!(trust_expiry.insert(1, Expiry { at: now + 9 * minute, date: today + minute }));
        assert!(trust_expiry.insert(2, soon));
        let set_back = Expiry { at: now + 2 * minute, date: today };
        assert!(!trust_expiry.insert(3, set_back));
        assert_eq!(trust_expiry.next(), Some(now + minute / 2));
        assert_eq!(trust_expiry.take_ended(), [3], "its date has come");
        tokio::time::advance(minute / 2).await;
        assert_eq!(trust_expiry.take_ended(), [2]);
        assert_eq!(trust_expiry.next(), Some(Instant::now() + CHECK_INTERVAL));
        trust_expiry.remove(1, Expiry { at: now + 9 * minute, date: today });
        assert_eq!(trust_expiry.next(), None);
    }
}
