//! `Shared`: the state that the handles of a connection share, and its methods for the registry.

use crate::MsQuicTransportConfig;
use crate::certificate::resolve_bad_certificate;
use crate::inbound::Inbound;
use crate::lane::QueueError;
use crate::linger_thread;
use crate::probes::Probes;
use crate::registration::RegistrationWrapper;
use crate::stream_pool::StreamPool;
use msquic_async::{Connection, ConnectionError, StreamType};
use net_kit::coop;
use net_kit::datagram::Counters;
use net_kit::guard::OnDrop;
use net_kit::memory_budget::Share;
use net_kit::quic;
use net_kit::receipts::Control;
use net_kit::registry::{Entry, Lingering, Member};
use net_kit::telemetry::Sample;
use net_traits::{CloseOutcome, CloseReason, SendError};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

pub(crate) struct Shared {
    pub(crate) entry: Entry<Self>,
    /// Dropped before the connection, which owns its streams.
    pub(crate) stream_pool: StreamPool,
    pub(crate) inbound: Arc<Inbound>,
    /// Held while receipts are sent.
    pub(crate) sending_receipts: tokio::sync::Mutex<()>,
    pub(crate) datagrams: Counters,
    pub(crate) inner: Connection,
    pub(crate) config: Arc<MsQuicTransportConfig>,
    /// Code and reason of the local close, once it has begun.
    pub(crate) closing: Mutex<Option<CloseReason>>,
    /// The registration is closed when the transport and all its connections are dropped.
    pub(crate) _registration: Arc<RegistrationWrapper>,
}

impl Shared {
    pub(crate) fn share(&self) -> &Arc<Share> {
        self.entry.share()
    }

    pub(crate) fn close_reason(&self, error: &ConnectionError) -> CloseReason {
        let facts = self.entry.facts();
        resolve_bad_certificate(error, facts.remote_addr(), facts.local_hash())
    }

    pub(crate) fn send_error(&self, error: QueueError) -> SendError {
        match error {
            QueueError::WouldBlock => SendError::WouldBlock,
            QueueError::TimedOut(after) => SendError::TimedOut { after },
            QueueError::Stopped(code) => SendError::Stopped { code },
            QueueError::Connection | QueueError::Closed => SendError::Closed(self.closing()),
            QueueError::Other(what) => SendError::Transport(what),
        }
    }

    /// Gives a peer of an older version time to read what it has acknowledged.
    async fn let_older_peer_read(&self) {
        let Self { inner, config, .. } = self;
        let is_older = self.inbound.receipts().is_none()
            && !inner.peer_allows_streams(StreamType::Bidirectional);
        let rtt = async { inner.statistics().await.map(|it| it.rtt).unwrap_or_default() };
        let (delay, ended) = (config.older_peer_delay, inner.watch_shutdown());
        let read = quic::let_older_peer_read(is_older, delay, rtt, ended);
        // The delay may be longer than an operation may take.
        let _ = config.timeouts().wait(read).await;
    }

    /// Sends the receipts for messages that were handed out.
    pub(crate) async fn send_due(&self) {
        let Shared { stream_pool, inbound, inner, config, .. } = self;
        loop {
            let numbers = inbound.inbox().take_due();
            if numbers.is_empty() {
                return;
            }
            for (index, number) in numbers.iter().enumerate() {
                // If it fails, the peer does not know whether the message was taken.
                let record = Control::Receipt { number: *number, is_taken: true }.encode();
                let sent = stream_pool.send_records(inner, &record, || config.timeouts()).await;
                if let Err(QueueError::TimedOut(_) | QueueError::Stopped(_)) = sent {
                    return inbound.inbox().postpone_due(&numbers[index..]);
                }
            }
        }
    }

    /// Starts a task that answers the probes of the peer, until this side closes. Drops no connection on
    /// this thread, which may be one of msquic's.
    pub(crate) fn answer_probes(connection: Weak<Self>, probes: Arc<Probes>) {
        let ended = OnDrop(move || probes.task_ended()); // also if there is no thread
        linger_thread::run(async move {
            let _ended = ended;
            let Some(shared) = connection.upgrade() else { return };
            let Self { stream_pool, inbound, inner, config, closing, .. } = &*shared;
            while let Some(answers) = inbound.probes().take() {
                let is_closing = closing.lock().is_some();
                // If it fails, the flush of the peer times out.
                let sent = stream_pool.send_records(inner, &answers, || config.timeouts());
                if is_closing || sent.await.is_err() {
                    return;
                }
            }
        });
    }

    /// Sends the receipts that are [due](Self::send_due), and waits until the peer has acknowledged
    /// them.
    pub(crate) async fn finish_receipts(&self) {
        let Shared { stream_pool, inner, config, sending_receipts, .. } = self;
        let _one = sending_receipts.lock().await;
        self.send_due().await;
        stream_pool.flush_receipts(inner, config.timeouts()).await;
    }

    pub(crate) async fn ended(&self) -> CloseReason {
        self.close_reason(&self.inner.watch_shutdown().await)
    }

    /// Returns the error for sending once this side has begun to close.
    pub(crate) fn closing(&self) -> CloseReason {
        if let Some(error) = self.inner.close_reason() {
            return self.close_reason(&error);
        }
        let closing = self.closing.lock().clone();
        closing.unwrap_or(CloseReason::Local { code: 0, reason: String::new() })
    }
}

impl Member for Shared {
    fn entry(&self) -> &Entry<Self> {
        &self.entry
    }

    fn has_ended(&self) -> bool {
        self.inner.close_reason().is_some()
    }

    fn abort(&self, code: u64, reason: &str) {
        self.inbound.stop_delivery();
        self.inner.shutdown(code, reason);
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        let Self { stream_pool, inner, config, closing, .. } = self;
        let local = || CloseReason::Local { code, reason: reason.to_owned() };
        closing.lock().get_or_insert_with(local); // first, since the next line wakes senders
        let closed = stream_pool.close().filter(|_| inner.close_reason().is_none());
        let Some(closed) = closed else {
            coop::spend().await;
            return CloseOutcome::AlreadyClosed(self.ended().await);
        };
        self.inbound.stop_delivery();
        self.entry.telemetry().closing(code, reason);
        *closing.lock() = Some(local()); // another call may have been between the two
        {
            let _shutdown = OnDrop(|| inner.shutdown(code, reason)); // also when it is cancelled
            let receipts = config.timeouts().wait(self.finish_receipts());
            let (has_delivered, _) = tokio::join!(closed.drain(inner, config.timeouts()), receipts);
            if has_delivered {
                self.let_older_peer_read().await;
            }
        }
        inner.watch_shutdown().await;
        // Not before: a `send` beside this call may have queued a message until the end.
        let (messages, bytes) = stream_pool.unconfirmed();
        self.entry.undelivered((messages, bytes));
        CloseOutcome::from_unconfirmed(messages, bytes, CloseOutcome::Acknowledged)
    }

    fn linger(&self, lingering: Lingering<Self>) {
        self.inbound.clear(); // nothing can receive it any more
        linger_thread::run(lingering.run(self.config.linger));
    }

    fn unconfirmed(&self) -> (u64, u64) {
        self.stream_pool.unconfirmed()
    }

    async fn handled(&self) {
        self.inbound.delivery().idle().await;
    }

    fn discard(&self) {
        self.inbound.clear();
    }

    async fn sample(&self) -> Option<Sample> {
        let measured = self.inner.statistics().await.ok()?;
        Some(Sample {
            rtt: Some(measured.rtt),
            packets_sent: measured.sent_packets,
            packets_lost: measured.lost_packets,
            queued: self.stream_pool.pending_bytes(),
        })
    }

    fn unread(&self) -> Option<usize> {
        self.inner.unread_stream_bytes().and_then(|bytes| usize::try_from(bytes).ok())
    }
}

#[cfg(test)]
mod tests;
