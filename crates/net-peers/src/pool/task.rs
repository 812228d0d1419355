//! The task of a connection.
//!
//! It receives messages into the inbox of the pool, flushes what was sent, and closes the connection
//! when another one is used instead. It runs until the connection has ended and everything that it had
//! received is in the inbox.

use super::config::DropError;
use super::inner::Inner;
use super::pooled_connection::{LOOK, PooledConnection, Role, STABLE};
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
        pooled: Arc<PooledConnection<T::Connection>>,
    ) -> impl Future<Output = ()> + Send {
        let end = End { inner: self, peer, pooled: Some(pooled) };
        async move {
            let End { inner, pooled: Some(pooled), .. } = &end else { return };
            let ended = async {
                tokio::select! {
                    biased;
                    reason = pooled.connection.watch_close() => {
                        inner.ended(peer, pooled, reason);
                    }
                    never = confirm(inner, peer, pooled) => match never {},
                    never = retire(inner, peer, pooled) => match never {},
                }
            };
            tokio::join!(receive(inner, peer, pooled), ended);
        }
    }

    /// The peer has taken no data for the time limit of the transport. Replaces the connection, unless
    /// connections before it were replaced without success: then the application of the peer is slow.
    pub(super) async fn timed_out(
        self: &Arc<Self>,
        peer: CertHash,
        pooled: &Arc<PooledConnection<T::Connection>>,
    ) {
        let times = pooled.timed_out.fetch_add(1, Ordering::SeqCst) + 1;
        let stuck = pooled.limits.stuck.load(Ordering::SeqCst).min(STUCK_DOUBLINGS);
        if times >= 1 << stuck && self.replace_stuck(peer, pooled, times - 1).await {
            pooled.limits.stuck.fetch_add(1, Ordering::SeqCst);
            pooled
                .connection
                .abort(close_code::DUPLICATE, "the peer takes no data on this connection");
        }
    }
}

/// Ends a connection if its runtime is shut down: nothing is received from it any more. Forgets the
/// peer if it has become unused.
struct End<T: NetTransport> {
    inner: Arc<Inner<T>>,
    peer: CertHash,
    pooled: Option<Arc<PooledConnection<T::Connection>>>,
}

impl<T: NetTransport> Drop for End<T> {
    fn drop(&mut self) {
        const GONE: &str = "the runtime of the pool was shut down";
        if let Some(pooled) = self.pooled.take() {
            pooled.connection.abort(0, GONE); // nothing happens if it has ended
            self.inner.ended(self.peer, &pooled, CloseReason::Transport(Cause::new(GONE)));
        }
        self.inner.tidy(self.peer);
    }
}

/// Receives into the inbox.
async fn receive<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    pooled: &Arc<PooledConnection<T::Connection>>,
) {
    loop {
        let mut receiving = pin!(pooled.connection.recv());
        let received = match poll_immediate(receiving.as_mut()).await {
            Some(received) => received,
            None => {
                // Nothing was buffered, so the peer sent it while this side waited.
                let received = receiving.await;
                if received.is_ok() && pooled.has_role(Role::Spare) {
                    inner.heard_on_spare(peer, pooled);
                }
                received
            }
        };
        match received {
            Ok((message, _)) => {
                pooled.hold(true);
                let pushed = inner.inbox.push(&pooled.connection, message).await;
                pooled.hold(false);
                if pushed.is_err() {
                    return;
                }
            }
            Err(RecvError::Closed(_)) => return,
            Err(error) => {
                inner.events.telemetry().receive_failed(&peer, &error);
                inner.events.pending().receive_failed(peer, error);
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
    pooled: &Arc<PooledConnection<T::Connection>>,
) -> Infallible {
    let PooledConnection { connection, in_flight, limits, .. } = &**pooled;
    loop {
        let end = loop {
            let settles = in_flight.settle(inner.config.keep_sent);
            let settles = async {
                match settles {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                end = in_flight.sent() => break end,
                () = settles => {}
            }
        };
        match connection.flush().await {
            Ok(()) => {
                in_flight.flushed(end);
                if pooled.since.elapsed() >= STABLE {
                    pooled.timed_out.store(0, Ordering::SeqCst);
                    limits.stuck.store(0, Ordering::SeqCst);
                }
                limits.unconfirmed.look_again();
            }
            Err(SendError::Closed(_)) => return pending().await,
            Err(SendError::TimedOut { .. }) => inner.timed_out(peer, pooled).await,
            Err(error) => in_flight.lost(&DropError::Send(error)),
        }
    }
}

/// Closes the connection once another one is used and this one is silent.
async fn retire<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    pooled: &Arc<PooledConnection<T::Connection>>,
) -> Infallible {
    loop {
        let mut changed = pin!(pooled.role_changed.notified());
        changed.as_mut().enable();
        if pooled.has_role(Role::Displaced) {
            break;
        }
        if pooled.has_role(Role::Current) {
            changed.await;
            continue;
        }
        tokio::select! {
            () = changed => continue,
            () = sleep(LOOK) => {}
        }
        if inner.take_dispensable(peer, pooled.id) {
            break;
        }
    }
    let close = pooled.connection.close(close_code::DUPLICATE, "another connection is used");
    let _ = timeout(CLOSE_TIMEOUT, close).await; // after that it closes at once
    pending().await
}
