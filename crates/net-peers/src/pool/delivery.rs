//! The task that sends the queued messages of a peer.

use super::config::DropError;
use super::inner::{Inner, Purpose};
use super::outgoing::OutgoingMessage;
use super::peers::Peer;
use super::pooled_connection::close_unlisted;
use super::queue::Queue;
use super::quota::{MESSAGE_COST, Share};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetTransport, SendError, close_code,
};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep_until, timeout};

/// How long an empty message queue is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the queued messages of a peer, one after the other.
pub(super) async fn deliver<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    queue: Arc<Queue>,
) {
    loop {
        let Ok(outgoing) = timeout(IDLE_TIMEOUT, queue.pop()).await else {
            let idle = {
                let mut peers = inner.peers.lock();
                let Some(entry) = peers.same(peer, id) else { return };
                if !queue.is_idle() {
                    continue;
                }
                let idle = entry.sending.take();
                peers.prune(peer);
                idle
            };
            return drop(idle); // aborts this task, which ends here
        };
        if let Err((outgoing, error)) = send_with_retries(&inner, peer, id, outgoing).await {
            outgoing.undelivered(error.clone());
            // If the message is too large, the others are still sent. If the peer is unreachable,
            // all are reported.
            if !matches!(error, DropError::Send(SendError::TooLarge { .. })) {
                queue.drain().into_iter().for_each(|outgoing| outgoing.undelivered(error.clone()));
            }
        }
        if queue.done() {
            let unlisted = inner.peers.lock().same(peer, id).map(Peer::take_unlisted);
            unlisted.into_iter().flatten().for_each(close_unlisted);
        }
    }
}

async fn send_with_retries<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    mut outgoing: OutgoingMessage,
) -> Result<(), (OutgoingMessage, DropError)> {
    let Some(share) = room(inner, peer, id, outgoing.len()).await else {
        return Err((outgoing, DropError::Removed));
    };
    let (mut failed, mut final_in_a_row) = (0, 0);
    loop {
        let mut inserted = pin!(inner.inserted.notified());
        inserted.as_mut().enable();
        let (address, addresses, pause) = {
            let mut peers = inner.peers.lock();
            let Some(entry) = peers.same(peer, id) else {
                return Err((outgoing, DropError::Removed));
            };
            (entry.address_after(failed), entry.addresses().len(), entry.pause())
        };
        if let Some(until) = pause {
            tokio::select! {
                biased;
                () = sleep_until(until) => {}
                () = inserted => {} // possibly a connection with this peer
            }
            continue;
        }
        let connected = match address {
            Some(address) => inner.connection(peer, Purpose::Queue(id), address).await,
            None => match inner.connected(peer) {
                Some(pooled) => Ok(pooled),
                None => return Err((outgoing, DropError::NoAddress)),
            },
        };
        let error = match connected {
            Err(error) => {
                // Another known address may reach the peer.
                final_in_a_row = if is_final(&error) { final_in_a_row + 1 } else { 0 };
                let is_final = final_in_a_row >= addresses.max(1);
                let error = DropError::from(error);
                if is_final {
                    return Err((outgoing, error));
                }
                error
            }
            Ok(pooled) => {
                outgoing.offered();
                match pooled.connection.send_bytes(outgoing.message()).await {
                    Ok(()) => {
                        pooled.touch();
                        outgoing.taken(share);
                        pooled.in_flight.add(outgoing);
                        return Ok(());
                    }
                    Err(error) => {
                        outgoing.refused();
                        match &error {
                            SendError::TooLarge { .. } => return Err((outgoing, error.into())),
                            SendError::Closed(reason) => inner.ended(peer, &pooled, reason.clone()),
                            // Earlier messages of the stream may be lost with it.
                            SendError::Stopped { .. } | SendError::Transport(_) => {
                                pooled.in_flight.lost(&error.clone().into());
                            }
                            SendError::TimedOut { .. } => {
                                inner.timed_out(peer, &pooled).await;
                            }
                            _ => {}
                        }
                        if !may_retry(&error) {
                            return Err((outgoing, error.into()));
                        }
                        error.into()
                    }
                }
            }
        };
        failed += 1;
        if failed >= inner.config.max_attempts {
            return Err((outgoing, error));
        }
    }
}

/// Waits until the peer may have another unconfirmed message. `None` if the peer was removed.
async fn room<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    size: usize,
) -> Option<Share> {
    loop {
        let limits = inner.peers.lock().same(peer, id)?.limits.clone();
        let mut freed = pin!(limits.unconfirmed.freed());
        freed.as_mut().enable();
        if let Some(share) = limits.unconfirmed.take(size + MESSAGE_COST) {
            return Some(share);
        }
        // Flushed messages are kept only as long as there is room.
        let connections = inner.peers.lock().same(peer, id)?.connections();
        if !connections.iter().any(|pooled| pooled.in_flight.settle_oldest()) {
            freed.await;
        }
    }
}

/// Returns whether another attempt at the same address would fail until something is changed.
fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::InvalidInput(_) | ConnectError::Credential(_) => true,
        ConnectError::Rejected(rejection) => !rejection.is_retryable,
        ConnectError::Closed(reason) => is_final_end(reason),
        _ => false,
    }
}

/// Returns whether sending may succeed later or on another connection.
fn may_retry(error: &SendError) -> bool {
    match error {
        SendError::TooLarge { .. } => false,
        SendError::Closed(reason) => !is_final_end(reason),
        _ => true,
    }
}

/// Returns whether a connection that ended for this reason must not be replaced. A local close is
/// not such a reason, unless it was a revocation or a shutdown.
fn is_final_end(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Local { code, .. } => {
            [close_code::REVOKED, close_code::SHUTDOWN].contains(code)
        }
        CloseReason::Peer { code, .. } => *code == close_code::REVOKED,
        CloseReason::Rejected(rejection) => !rejection.is_retryable,
        _ => false,
    }
}
