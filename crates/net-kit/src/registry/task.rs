//! `Task`: a background task of a transport that survives the runtime in which it began.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// A background task, which is aborted when this is dropped. Connections may outlive the runtime of
/// the first one. If that is shut down, the task is started again on a thread; without a runtime,
/// it begins there.
#[derive(Debug)]
pub(super) struct Task {
    stop: watch::Sender<()>,
}

impl Task {
    /// Starts the task that `begin` returns. `begin` is called again, on a thread, if the runtime
    /// is shut down.
    pub(super) fn start<F>(begin: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(());
        let relay = Relay(Some(Work { begin: Box::new(move || begin().boxed()), stopped }));
        // Without a runtime, `relay` is dropped here.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(relay.run());
        }
        Self { stop }
    }

    /// Returns whether the task has neither ended nor failed to start.
    pub(super) fn is_running(&self) -> bool {
        !self.stop.is_closed()
    }
}

struct Work {
    begin: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    stopped: watch::Receiver<()>,
}

impl Work {
    async fn run(&self) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.changed() => {}
            () = (self.begin)() => {}
        }
    }
}

/// Starts the task again on a thread if it is dropped before the task has ended.
struct Relay(Option<Work>);

impl Relay {
    async fn run(mut self) {
        if let Some(work) = &self.0 {
            work.run().await;
        }
        self.0 = None;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(work) = self.0.take() else { return };
        if work.stopped.has_changed().is_err() {
            return; // the task was aborted
        }
        let on_thread = move || match Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(work.run()),
            Err(error) => failed(&error),
        };
        let thread = std::thread::Builder::new().name("net-kit".to_owned());
        if let Err(error) = thread.spawn(on_thread) {
            failed(&error);
        }
    }
}

fn failed(error: &io::Error) {
    tracing::error!(%error, "the connections of a transport are not watched");
}

#[cfg(test)]
mod tests {
    use super::super::tests::registry;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::task::yield_now;

    #[tokio::test]
    async fn a_task_is_started_once_and_again_after_it_has_ended() {
        let registry = registry();
        let (started, proceed) =
            (Arc::new(AtomicU32::new(0)), Arc::new(tokio::sync::Notify::new()));
        let ensure = || {
            registry.ensure(
                |tasks| &mut tasks.late,
                || {
                    started.fetch_add(1, Ordering::SeqCst);
                    let proceed = proceed.clone();
                    Task::start(move || {
                        let proceed = proceed.clone();
                        async move { proceed.notified().await }
                    })
                },
            );
        };
        (0..3).for_each(|_| ensure());
        assert_eq!(started.load(Ordering::SeqCst), 1);
        proceed.notify_one();
        while registry.state.lock().tasks.late.as_ref().is_some_and(Task::is_running) {
            yield_now().await;
        }
        (0..3).for_each(|_| ensure());
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }
}
