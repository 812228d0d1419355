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
        if entry.share.end() {
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
