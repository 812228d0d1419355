//! What a registry does at the limits of memory: it ends connections.

use super::{Member, Registry};
use crate::admission;
use crate::memory_budget::Charge;
use net_traits::Limit;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The tasks of a registry that has connections.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// Ends connections whose messages stand still.
    late: Option<JoinHandle<()>>,
    /// Charges what members have not read.
    unread: Option<JoinHandle<()>>,
    /// Samples connections.
    pub(super) sampler: Option<JoinHandle<()>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.late.iter().chain(&self.unread).chain(&self.sampler).for_each(JoinHandle::abort);
    }
}

impl<M: Member> Registry<M> {
    /// Starts the task that ends connections whose messages stand still, unless it runs.
    pub(super) fn watch_messages(self: &Arc<Self>) {
        let timeout = self.budget.limits().timeout;
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        if timeout < Duration::MAX && state.tasks.late.as_ref().is_none_or(JoinHandle::is_finished)
        {
            let (registry, budget) = (Arc::downgrade(self), self.budget.clone());
            state.tasks.late = Some(runtime.spawn(async move {
                loop {
                    budget.began().await;
                    sleep(timeout / CHECKS).await;
                    let Some(registry) = registry.upgrade() else { return };
                    registry.end_late();
                }
            }));
        }
    }

    /// Starts the task that charges what members have not read, unless it runs or `member` does not know
    /// it.
    pub(super) fn watch_unread(self: &Arc<Self>, member: &M) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        if member.unread().is_some()
            && state.tasks.unread.as_ref().is_none_or(JoinHandle::is_finished)
        {
            let registry = Arc::downgrade(self);
            state.tasks.unread = Some(runtime.spawn(async move {
                let mut charges = HashMap::new();
                loop {
                    sleep(UNREAD).await;
                    let Some(registry) = registry.upgrade() else { return };
                    charges = registry.charge_unread(charges);
                }
            }));
        }
    }

    /// Charges what the members have not read, instead of `before`.
    fn charge_unread(&self, mut before: HashMap<u64, Charge>) -> HashMap<u64, Charge> {
        let mut charges = HashMap::new();
        for member in self.live() {
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

    /// Ends the connections that hold most until the memory suffices.
    pub(super) fn enforce_total(&self) {
        while self.budget.is_exceeded() {
            let live: Vec<_> = self.state.lock().live.values().filter_map(Weak::upgrade).collect();
            let most = live.iter().max_by_key(|member| member.entry().share.held());
            let Some(most) = most.filter(|member| member.entry().share.held() > 0) else { return };
            // Another thread may have ended one meanwhile.
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

/// How often the time limit of a message is looked at.
const CHECKS: u32 = 4;

/// How often it is looked what members have not read.
const UNREAD: Duration = Duration::from_millis(250);
