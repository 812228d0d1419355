//! The task of a connection.
//!
//! It receives messages into the inbox of the pool, flushes what was sent, and closes the connection
//! when another one is used instead. It runs until the connection has ended and everything that it had
//! received is in the inbox.

use super::config::DropError;
use super::inner::Inner;
use super::link::{LOOK, Link, Role, STABLE};
use futures_util::future::poll_immediate;
use net_traits::{
    Cause, CertHash, CloseReason, NetConnection, NetTransport, RecvError, SendError, close_code,
};
use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::coop::consume_budget;
use tokio::time::{sleep, sleep_until, timeout};

/// How long an orderly close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of doublings of the time after which a further connection counts as stuck.
const STUCK_DOUBLINGS: u32 = 6;

impl<T: NetTransport> Inner<T> {
    /// Returns the task of a connection. If it is dropped, the connection ends.
    pub(super) fn run(
        self: Arc<Self>,
        peer: CertHash,
        link: Arc<Link<T::Connection>>,
    ) -> impl Future<Output = ()> + Send {
        let end = End { inner: self, peer, link: Some(link) };
        async move {
            let End { inner, link: Some(link), .. } = &end else { return };
            let ended = async {
                tokio::select! {
                    biased;
                    reason = link.connection.watch_close() => {
                        inner.ended(peer, link, reason);
                    }
                    never = confirm(inner, peer, link) => match never {},
                    never = retire(inner, peer, link) => match never {},
                }
            };
            tokio::join!(receive(inner, peer, link), ended);
        }
    }

    /// The peer has taken no data for the time limit of the transport. Replaces the connection, unless
    /// connections before it were replaced without success: then the application of the peer is slow.
    pub(super) async fn timed_out(
        self: &Arc<Self>,
        peer: CertHash,
        link: &Arc<Link<T::Connection>>,
    ) {
        let times = link.timed_out.fetch_add(1, Ordering::SeqCst) + 1;
        let stuck = link.limits.stuck.load(Ordering::SeqCst).min(STUCK_DOUBLINGS);
        if times >= 1 << stuck && self.replace_stuck(peer, link, times - 1).await {
            link.limits.stuck.fetch_add(1, Ordering::SeqCst);
            link.connection
                .abort(close_code::DUPLICATE, "the peer takes no data on this connection");
        }
    }
}

/// Ends a connection if its runtime is shut down: nothing is received from it any more. Forgets the
/// peer if it has become unused.
struct End<T: NetTransport> {
    inner: Arc<Inner<T>>,
    peer: CertHash,
    link: Option<Arc<Link<T::Connection>>>,
}

impl<T: NetTransport> Drop for End<T> {
    fn drop(&mut self) {
        const GONE: &str = "the runtime of the pool was shut down";
        if let Some(link) = self.link.take() {
            link.connection.abort(0, GONE); // nothing happens if it has ended
            self.inner.ended(self.peer, &link, CloseReason::Transport(Cause::new(GONE)));
        }
        self.inner.tidy(self.peer);
    }
}

/// Receives into the inbox.
async fn receive<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    link: &Arc<Link<T::Connection>>,
) {
    loop {
        let mut receiving = pin!(link.connection.recv());
        let received = match poll_immediate(receiving.as_mut()).await {
            Some(received) => received,
            None => {
                // Nothing was buffered, so the peer sent it while this side waited.
                let received = receiving.await;
                if received.is_ok() && link.has_role(Role::Spare) {
                    inner.heard_on_spare(peer, link);
                }
                received
            }
        };
        match received {
            Ok((message, _)) => {
                link.hold(true);
                let pushed = inner.inbox.push(&link.connection, message).await;
                link.hold(false);
                if pushed.is_err() {
                    return;
                }
            }
            Err(RecvError::Closed(_)) => return,
            Err(error) => {
                inner.events.telemetry().receive_failed(&peer, &error);
                inner.events.news().receive_failed(peer, error);
                inner.events.wake();
                consume_budget().await;
            }
        }
    }
}

/// Flushes what was sent, until the connection ends.
async fn confirm<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    link: &Arc<Link<T::Connection>>,
) -> Infallible {
    let Link { connection, ledger, limits, .. } = &**link;
    loop {
        let end = loop {
            let settles = ledger.settle(inner.config.keep_sent);
            let settles = async {
                match settles {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                end = ledger.sent() => break end,
                () = settles => {}
            }
        };
        match connection.flush().await {
            Ok(()) => {
                ledger.flushed(end);
                if link.since.elapsed() >= STABLE {
                    link.timed_out.store(0, Ordering::SeqCst);
                    limits.stuck.store(0, Ordering::SeqCst);
                }
                limits.unconfirmed.look_again();
            }
            Err(SendError::Closed(_)) => return pending().await,
            Err(SendError::TimedOut { .. }) => inner.timed_out(peer, link).await,
            Err(error) => ledger.lost(&DropError::Send(error)),
        }
    }
}

/// Closes the connection once another one is used and this one is silent.
async fn retire<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    link: &Arc<Link<T::Connection>>,
) -> Infallible {
    loop {
        let mut changed = pin!(link.role_changed.notified());
        changed.as_mut().enable();
        if link.has_role(Role::Displaced) {
            break;
        }
        if link.has_role(Role::Current) {
            changed.await;
            continue;
        }
        tokio::select! {
            () = changed => continue,
            () = sleep(LOOK) => {}
        }
        if inner.take_dispensable(peer, link.id) {
            break;
        }
    }
    let close = link.connection.close(close_code::DUPLICATE, "another connection is used");
    let _ = timeout(CLOSE_TIMEOUT, close).await; // after that it closes at once
    pending().await
}
