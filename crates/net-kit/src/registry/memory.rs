//! Ends connections at the limits of the memory budget.

use super::task::Task;
use super::{Member, Registry};
use crate::admission;
use crate::memory_budget::Charge;
use net_traits::Limit;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

impl<M: Member> Registry<M> {
    /// Starts the task that ends connections whose messages are late, unless it runs.
    pub(super) fn watch_messages(self: &Arc<Self>) {
        let timeout = self.budget.limits().timeout;
        if timeout == Duration::MAX {
            return;
        }
        let (registry, budget) = (Arc::downgrade(self), self.budget.clone());
        self.ensure(
            |tasks| &mut tasks.late,
            || {
                Task::start(move || {
                    let (registry, budget) = (registry.clone(), budget.clone());
                    async move {
                        loop {
                            budget.began().await;
                            sleep(timeout / CHECKS).await;
                            let Some(registry) = registry.upgrade() else { return };
                            registry.end_late();
                        }
                    }
                })
            },
        );
    }

    /// Starts the task that charges the unread bytes of members, unless it runs or `member` does
    /// not know them.
    pub(super) fn watch_unread(self: &Arc<Self>, member: &M) {
        if member.unread().is_none() {
            return;
        }
        let registry = Arc::downgrade(self);
        self.ensure(
            |tasks| &mut tasks.unread,
            || {
                Task::start(move || {
                    let registry = registry.clone();
                    async move {
                        let mut charges = HashMap::new();
                        loop {
                            sleep(UNREAD).await;
                            let Some(registry) = registry.upgrade() else { return };
                            charges = registry.charge_unread(charges);
                        }
                    }
                })
            },
        );
    }

    /// Charges the unread bytes of the members, replacing the charges `before`.
    fn charge_unread(&self, mut before: HashMap<u64, Charge>) -> HashMap<u64, Charge> {
        let mut charges = HashMap::new();
        // A connection that has ended may hold data until the application receives it.
        for member in self.members() {
            let entry = member.entry();
            let bytes = member.unread().unwrap_or(0);
            if bytes > 0 {
                let charge = before.remove(&entry.id).unwrap_or_else(|| Charge::new(&entry.share));
                charges.entry(entry.id).or_insert(charge).set(bytes);
            }
        }
        charges
    }

    fn end_late(&self) {
        let now = Instant::now();
        for member in self.live() {
            if member.entry().share.is_late(now) {
                member.end_at(Limit::MessageTimeout);
            }
        }
    }

    /// Ends the connections that hold most until the budget is not exceeded.
    pub(super) fn enforce_total(&self) {
        while self.budget.is_exceeded() {
            let members = self.members();
            let most = members.iter().max_by_key(|member| member.entry().share.held());
            let Some(most) = most.filter(|member| member.entry().share.held() > 0) else { return };
            // Another thread may have ended a connection meanwhile.
            if self.budget.is_exceeded() {
                most.end_at(Limit::Memory);
            }
        }
    }
}

/// Ends a connection at a limit that applies after the handshake.
trait EndAt: Member {
    fn end_at(&self, limit: Limit) {
        let entry = self.entry();
        // First, so that a reader that misses a message finds the limit.
        if entry.emptied.set(limit).is_ok() && entry.share.end() {
            entry.registry.admission.refuse(entry.facts.remote_addr(), limit);
            self.abort(limit.code(), admission::reason(limit));
            self.discard();
        }
    }
}

impl<M: Member> EndAt for M {}

/// How often messages are checked within their time limit.
const CHECKS: u32 = 4;

/// How often the unread bytes of members are charged.
const UNREAD: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::super::Handle;
    use super::super::tests::{Connection, connect, peer, registry};
    use super::*;
    use crate::admission::{Admission, ConnectionLimits};
    use crate::memory_budget::MemoryLimits;
    use crate::telemetry::Telemetry;
    use bytes::Bytes;
    use net_traits::{CloseReason, RecvError};

    // In real time, a slow machine evicts stalled handshakes, whose places the test keeps.
    #[tokio::test(start_paused = true)]
    async fn handshakes_of_strangers_end_no_connection() {
        for total in [1024, 4 * 1024 * 1024] {
            let handshakes = 1000;
            let wide = ConnectionLimits {
                connections: handshakes,
                per_ip: handshakes,
                per_identity: 1,
                handshakes,
                handshakes_per_ip: handshakes,
            };
            let telemetry = Telemetry::new("test");
            let limits = MemoryLimits { total, ..MemoryLimits::NONE };
            let admission = Admission::new(wide, telemetry.clone());
            let registry = Registry::with_memory(admission, telemetry, limits);
            let connection = connect(&registry, &peer(), 0, false);
            let mut charge = Charge::new(connection.entry().share());
            charge.set(total / 2);
            let attempt = |_| registry.admission().admit(([10, 0, 0, 2], 1).into()).ok();
            let places: Vec<_> = (0..handshakes).filter_map(attempt).collect();
            assert!(!places.is_empty() && !connection.has_ended(), "{}", places.len());
            assert!(registry.budget.used() <= total / 4 * 3);
        }
    }

    #[test]
    fn messages_that_were_dropped_at_a_limit_are_missed() {
        let limits = MemoryLimits { total: 1000, ..MemoryLimits::NONE };
        let telemetry = Telemetry::new("test");
        let admission = Admission::new(*registry().admission().limits(), telemetry.clone());
        let registry = Registry::with_memory(admission, telemetry, limits);
        let [largest, other] = [900, 200].map(|size| {
            let connection = connect(&registry, &peer(), 0, false);
            connection.abort(0, "done"); // the application can receive what has arrived
            let mut charge = Charge::new(connection.entry().share());
            charge.set(size);
            (connection, charge)
        });
        let end = RecvError::Closed(CloseReason::Local { code: 0, reason: "done".to_owned() });
        let hand_out = |of: &(Handle<Connection>, _), it| of.0.entry().hand_out(it);
        assert_eq!(hand_out(&other, Err(end.clone())), Err(end.clone()));
        assert_eq!(hand_out(&largest, Ok((Bytes::new(), Duration::ZERO))).unwrap().0, "");
        let limit = RecvError::Closed(admission::close_reason(Limit::Memory));
        assert_eq!(hand_out(&largest, Err(end.clone())), Err(limit.clone()));
        let many = largest.0.entry().hand_out_many(Err(end), &mut Vec::new());
        assert_eq!(many, Err(limit));
    }
}
