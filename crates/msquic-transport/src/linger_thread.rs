//! The thread on which connections without handles are closed, and probes of peers answered.
//!
//! msquic drives connections on its own threads, and the runtime of the application may have ended.
//! So a thread of this crate, with a small runtime, waits until the queued messages are
//! acknowledged. It starts with the first such connection and ends after it was idle for a while.
//! If it cannot be started, or the process ends, connections close at once.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long the thread keeps running without a connection.
const IDLE: Duration = Duration::from_secs(2);

type Lingering = BoxFuture<'static, ()>;

/// The channel to the thread, if one was started.
static THREAD: Mutex<Option<UnboundedSender<Lingering>>> = Mutex::new(None);

/// Runs `lingering` on the thread, without waiting. If there is no thread, it is dropped.
pub(crate) fn run(lingering: impl Future<Output = ()> + Send + 'static) {
    let refused = {
        let mut thread = THREAD.lock();
        send(&mut thread, lingering.boxed()).err()
    };
    drop(refused); // after unlocking, since the drop calls msquic
}

fn send(
    thread: &mut Option<UnboundedSender<Lingering>>,
    lingering: Lingering,
) -> Result<(), Lingering> {
    let lingering = match thread {
        None => lingering,
        Some(running) => match running.send(lingering) {
            Ok(()) => return Ok(()),
            Err(refused) => refused.0, // it has ended
        },
    };
    let (sender, waiting) = unbounded_channel();
    // The runtime is created on the thread, since it must not be dropped inside another runtime.
    let serve = move || match Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime.block_on(serve(waiting)),
        Err(_) => drop(waiting), // the connections close at once
    };
    if thread::Builder::new().name("msquic-linger".to_owned()).spawn(serve).is_err() {
        return Err(lingering);
    }
    let sent = sender.send(lingering).map_err(|refused| refused.0);
    *thread = Some(sender);
    sent
}

async fn serve(mut waiting: UnboundedReceiver<Lingering>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(lingering) = waiting.recv() => {
                running.spawn(lingering);
            }
            Some(_) = running.join_next() => {}
            () = sleep(IDLE), if running.is_empty() => {
                waiting.close(); // futures sent before are received below
                while let Some(lingering) = waiting.recv().await {
                    running.spawn(lingering);
                }
                while running.join_next().await.is_some() {}
                return;
            }
        }
    }
}
