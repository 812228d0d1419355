//! The task of a transport that closes the connections whose trust ends.

use super::{AT_ONCE, Entry, Member, Registry, withdraw};
use crate::coop::yield_now;
use net_traits::close_code;
use std::sync::{Arc, Weak};
use tokio::runtime::{Builder, Handle};
use tokio::time::sleep_until;

impl<M: Member> Registry<M> {
    /// Closes the connection when the trust in its peer ends.
    pub(super) fn watch(self: &Arc<Self>, entry: &Entry<M>) {
        let Some(expiry) = entry.expiry else { return };
        let (is_watched, is_first) = self.state.lock().trust_expiry.insert(entry.id, expiry);
        if is_watched {
            if is_first {
                self.expiry_changed.notify_one();
            }
            return;
        }
        let registry = Arc::downgrade(self);
        let watch = Watch(Some(registry.clone()));
        // Without a runtime, `watch` is dropped here and uses a thread.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                watch_expiry(registry).await;
                watch.disarm();
            });
        }
    }
}

/// Closes the connections of a transport whose trust ends, until there are none with an end.
async fn watch_expiry<M: Member>(registry: Weak<Registry<M>>) {
    loop {
        let next = || {
            let registry = registry.upgrade()?;
            let next = registry.state.lock().trust_expiry.next()?;
            Some((next, registry.expiry_changed.clone()))
        };
        let Some((next, changed)) = next() else { return };
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed.notified() => {}
        }
        let Some(registry) = registry.upgrade() else { return };
        let ended = registry.state.lock().trust_expiry.take_ended();
        for ended in ended.chunks(AT_ONCE) {
            for id in ended {
                let member = registry.state.lock().live.get(id).and_then(Weak::upgrade);
                member.iter().for_each(|member| {
                    withdraw(&**member, close_code::TRUST_ENDED);
                });
            }
            yield_now().await;
        }
    }
}

/// Goes on with [`watch_expiry`] on a thread if the runtime of its task is shut down: connections may
/// outlive it.
struct Watch<M: Member>(Option<Weak<Registry<M>>>);

impl<M: Member> Watch<M> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl<M: Member> Drop for Watch<M> {
    fn drop(&mut self) {
        let Some(registry) = self.0.take() else { return };
        let is_needed =
            registry.upgrade().is_some_and(|it| it.state.lock().trust_expiry.next().is_some());
        let watch = move || {
            if let Ok(runtime) = Builder::new_current_thread().enable_time().build() {
                runtime.block_on(watch_expiry(registry));
            }
        };
        if is_needed
            && let Err(error) =
                std::thread::Builder::new().name("net-kit-trust".into()).spawn(watch)
        {
            tracing::error!(%error, "connections whose trust ends are not closed");
        }
    }
}
