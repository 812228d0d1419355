//! The task of a connection.
//!
//! It receives messages into the inbox of the pool, flushes the sent messages, and closes the
//! connection when another one is used instead. It runs until the connection has ended and all
//! messages that it had received are in the inbox.

use super::config::DropError;
use super::inner::Inner;
use super::pooled_connection::{PooledConnection, Role, SILENCE_CHECK, STABLE};
use futures_util::future::poll_immediate;
use net_traits::{
    Cause, CertHash, CloseReason, Limit, NetConnection, NetTransport, RecvError, SendError,
    close_code,
};
use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::coop::{consume_budget, unconstrained};
use tokio::time::{sleep, sleep_until, timeout};

/// How long a graceful close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the time after which a connection counts as stuck doubles, at most.
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

    /// Drops what a connection holds that has ended and is not in the pool, and reports it as not received
    /// since the connection was closed with `reason`.
    pub(super) async fn discard_received(
        self: Arc<Self>,
        connection: T::Connection,
        reason: CloseReason,
    ) {
        let (peer, mut messages) = (connection.peer_identity().hash, 0);
        loop {
            match connection.recv().await {
                Ok(_) => messages += 1,
                Err(RecvError::Closed(end)) => {
                    messages += u64::from(has_dropped(&end));
                    break;
                }
                Err(error) => self.receive_failed(peer, error, 1),
            }
        }
        if messages > 0 {
            self.receive_failed(peer, RecvError::Closed(reason), messages);
        }
    }

    /// Handles that the peer has taken no data for the time limit of the transport: replaces the
    /// connection. After connections that were replaced without success, that needs several such
    /// times in a row, since the application of the peer is probably slow.
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

/// On drop, ends the connection if the task was dropped with its runtime, since nothing would
/// receive from it. Removes the entry of the peer if that is unused.
struct End<T: NetTransport> {
    inner: Arc<Inner<T>>,
    peer: CertHash,
    pooled: Option<Arc<PooledConnection<T::Connection>>>,
}

impl<T: NetTransport> Drop for End<T> {
    fn drop(&mut self) {
        const SHUT_DOWN: &str = "the runtime of the pool was shut down";
        if let Some(pooled) = self.pooled.take() {
            pooled.connection.abort(0, SHUT_DOWN); // does nothing if it has ended
            self.inner.ended(self.peer, &pooled, CloseReason::Transport(Cause::new(SHUT_DOWN)));
        }
        self.inner.prune(self.peer);
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
        let received = match poll_immediate(unconstrained(receiving.as_mut())).await {
            Some(received) => received,
            None => {
                // No message was queued before, so the peer sent this one recently.
                let received = receiving.await;
                if received.is_ok() && pooled.has_role(Role::Spare) {
                    inner.received_on_spare(peer, pooled);
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
            Err(RecvError::Closed(reason)) => {
                if has_dropped(&reason) {
                    inner.receive_failed(peer, RecvError::Closed(reason), 1);
                }
                return;
            }
            Err(error) => {
                inner.receive_failed(peer, error, 1);
                consume_budget().await;
            }
        }
    }
}

/// Returns whether the transport has dropped messages of a connection that ended for this reason.
fn has_dropped(reason: &CloseReason) -> bool {
    let CloseReason::Local { code, .. } = reason else { return false };
    matches!(Limit::of_code(*code), Some(Limit::Memory | Limit::MessageTimeout))
}

/// Flushes the sent messages until the connection ends.
async fn confirm<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    pooled: &Arc<PooledConnection<T::Connection>>,
) -> Infallible {
    let PooledConnection { connection, in_flight, limits, .. } = &**pooled;
    loop {
        let end = loop {
            let settles = in_flight.settle(inner.config.keep_sent);
            if in_flight.is_empty() {
                inner.close_if_unlisted(peer);
            }
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
                limits.unconfirmed.notify_waiters();
            }
            Err(SendError::Closed(_)) => return pending().await,
            Err(SendError::TimedOut { .. }) => inner.timed_out(peer, pooled).await,
            Err(error) => in_flight.lost(&DropError::Send(error)),
        }
    }
}

/// Closes the connection once another one is used and this one has been silent for long enough.
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
            biased;
            () = changed => continue,
            () = sleep(SILENCE_CHECK) => {}
        }
        if inner.take_dispensable(peer, pooled.id) {
            break;
        }
    }
    let close = pooled.connection.close(close_code::DUPLICATE, "another connection is used");
    let _ = timeout(CLOSE_TIMEOUT, close).await; // then dropping the future closes immediately
    pending().await
}
