//! The task that sends the queued messages of a peer.

use super::broadcast::{Outgoing, Receipt};
use super::config::{DropError, PeerEvent};
use super::inner::{Found, Inner};
use bytes::Bytes;
use net_traits::{CertHash, CloseReason, NetConnection, NetTransport, SendError, close_code};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

/// How long an empty message queue is kept.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// Sends the queued messages of a peer, one after the other.
pub(super) async fn deliver<T: NetTransport>(
    inner: Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    mut messages: mpsc::Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
) {
    loop {
        let outgoing = match timeout(QUEUE_PATIENCE, messages.recv()).await {
            Ok(Some(outgoing)) => outgoing,
            Ok(None) => return, // the peer was removed, or the pool was dropped
            Err(_) => {
                let mut peers = inner.peers.lock();
                if messages.is_empty() {
                    let queue = peers.same(peer, id).and_then(|entry| entry.queue.take());
                    peers.tidy(peer);
                    drop(peers);
                    return drop(queue); // this task's own, which ends here
                }
                continue;
            }
        };
        let Outgoing { message, receipt } = outgoing;
        let size = message.len();
        let sent = send_insistently(&inner, peer, id, message).await;
        bytes.fetch_sub(size, Ordering::SeqCst);
        let Err(error) = sent else {
            if let Some(receipt) = receipt {
                receipt.sent();
            }
            continue;
        };
        let is_reported =
            |receipt: Option<Receipt>| receipt.is_some_and(|it| it.unsent(error.clone()));
        let mut dropped = usize::from(!is_reported(receipt));
        // A message that is too long is dropped alone; if the peer is unreachable, all are dropped.
        if !matches!(error, DropError::Send(SendError::TooLarge { .. })) {
            while let Ok(Outgoing { message, receipt }) = messages.try_recv() {
                bytes.fetch_sub(message.len(), Ordering::SeqCst);
                dropped += usize::from(!is_reported(receipt));
            }
        }
        if dropped > 0 {
            inner.tell(PeerEvent::Dropped { peer, messages: dropped, error });
        }
    }
}

async fn send_insistently<T: NetTransport>(
    inner: &Arc<Inner<T>>,
    peer: CertHash,
    id: u64,
    message: Bytes,
) -> Result<(), DropError> {
    let mut failed = 0;
    loop {
        let mut inserted = pin!(inner.inserted.notified());
        inserted.as_mut().enable();
        let (address, pause) = {
            let mut peers = inner.peers.lock();
            let entry = peers.same(peer, id).ok_or(DropError::Removed)?;
            (entry.address(), entry.pause())
        };
        if let Some(until) = pause {
            tokio::select! {
                () = sleep_until(until) => {}
                () = inserted => {} // possibly of this peer
            }
            continue;
        }
        let connected = match address {
            Some(address) => inner.connection(peer, Some(id), address).await,
            None => inner.connected(peer).map(Ok).ok_or(DropError::NoAddress)?,
        };
        let (is_retryable, error) = match connected {
            Err(error) => (error.is_retryable(), DropError::from(error)),
            Ok(Found { id, connection }) => match connection.send_bytes(message.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ SendError::TooLarge { .. }) => return Err(error.into()),
                Err(error) => {
                    if let SendError::Closed(reason) = &error {
                        inner.ended(peer, id, reason.clone());
                    }
                    (may_go_elsewhere(&error), error.into())
                }
            },
        };
        failed += 1;
        if !is_retryable || failed >= inner.config.max_attempts {
            return Err(error);
        }
    }
}

/// Whether sending may succeed on another connection. A local close says nothing about the peer,
/// unless it was a revocation or a shutdown.
fn may_go_elsewhere(error: &SendError) -> bool {
    match error {
        SendError::Closed(CloseReason::Local { code, .. }) => {
            ![close_code::REVOKED, close_code::SHUTDOWN].contains(code)
        }
        error => error.is_retryable(),
    }
}
