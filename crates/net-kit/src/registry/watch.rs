//! The task that closes connections when the trust in their peer ends.

use super::task::Task;
use super::{AT_ONCE, Entry, Live, Member, Registry, withdraw};
use crate::coop::yield_now;
use net_traits::close_code;
use std::sync::{Arc, Weak};
use tokio::time::{Instant, sleep_until};

impl<M: Member> Registry<M> {
    /// Arranges that the connection is closed when the trust in its peer ends.
    pub(super) fn watch(self: &Arc<Self>, entry: &Entry<M>) {
        let Some(expiry) = entry.expiry else { return };
        let registry = Arc::downgrade(self);
        let is_next = self.state.lock().trust_expiry.insert(entry.id, expiry);
        if is_next {
            self.expiry_changed.notify_one();
        }
        let start = || Task::start(move || watch_expiry(registry.clone()));
        self.ensure(|tasks| &mut tasks.expiry, start);
    }
}

/// Closes the connections of a transport when trust ends.
async fn watch_expiry<M: Member>(registry: Weak<Registry<M>>) {
    loop {
        let next = || {
            let registry = registry.upgrade()?;
            let next = registry.state.lock().trust_expiry.next();
            Some((next, registry.expiry_changed.clone()))
        };
        let Some((next, changed)) = next() else { return };
        tokio::select! {
            biased;
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            () = changed.notified() => {}
        }
        let Some(registry) = registry.upgrade() else { return };
        let ended = registry.state.lock().trust_expiry.take_ended();
        for ended in ended.chunks(AT_ONCE) {
            for id in ended {
                let member = registry.state.lock().live.get(id).and_then(Live::upgrade);
                member.iter().for_each(|member| {
                    withdraw(&**member, close_code::TRUST_ENDED);
                });
            }
            yield_now().await;
        }
    }
}
