//! `MsQuicNetConnection`: messages over one QUIC connection.

use crate::MsQuicTransportConfig;
use crate::certificate::resolve_bad_certificate;
use crate::frame_sink::FrameSink;
use crate::inbound::Inbound;
use crate::lane::{self, QueueError};
use crate::registration::RegistrationWrapper;
use crate::shared::Shared;
use crate::stream_pool::StreamPool;
use SendAckedError::{NotSent, Unknown};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use msquic_async::{Connection, ConnectionStatistics, Settings};
use net_kit::admission::Place;
use net_kit::alpn::without_version;
use net_kit::coop;
use net_kit::datagram::Counters;
use net_kit::facts::ConnectionFacts;
use net_kit::frame;
use net_kit::guard::OnDrop;
use net_kit::handshake::Handshake;
use net_kit::inbox::Inbox;
use net_kit::loss_reports::LossCursor;
use net_kit::receipts::{Control, Receipts};
use net_kit::registry::{Entry, Handle, Member, Registry};
use net_traits::{
    CloseOutcome, CloseReason, DatagramError, MessageStatistics, NetConnection, NetDatagrams,
    RecvError, SendAckedError, SendError,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::Span;

/// How many messages [`send_many`](NetConnection::send_many) queues for one unit of the task's
/// cooperative budget, and under one lock.
const AT_ONCE: usize = 64;

/// A connection of [`MsQuicTransport`](crate::MsQuicTransport).
#[derive(Clone)]
pub struct MsQuicNetConnection {
    pub(crate) shared: Handle<Shared>,
    losses: LossCursor,
}

/// State that all connections of a transport share.
#[derive(Clone, Debug)]
pub(crate) struct TransportCore {
    pub(crate) config: Arc<MsQuicTransportConfig>,
    pub(crate) registry: Arc<Registry<Shared>>,
    pub(crate) registration: Arc<RegistrationWrapper>,
}

impl MsQuicNetConnection {
    /// Wraps a connection after its handshake. Returns `None` if it has already ended and its
    /// properties are unknown. `place` is that of an accepted connection.
    pub(crate) fn new(
        inner: Connection,
        handshake: &Handshake,
        core: &TransportCore,
        revocations: u64,
        place: Option<Place>,
    ) -> Option<Self> {
        let negotiated = inner.get_negotiated_alpn()?;
        let (alpn, has_receipts) = without_version(&negotiated);
        let facts = ConnectionFacts::new(
            inner.get_local_addr().ok()?,
            inner.get_remote_addr().ok()?,
            handshake.local_identity,
            inner.peer_identity()?,
            Some(inner.get_remote_certificate()?),
            String::from_utf8(alpn.to_vec()).ok()?,
        )
        .with_receipts(has_receipts);
        let config = core.config.clone();
        let limit = config.max_received_message;
        let number = place.as_ref().map(Place::number);
        let shared = core.registry.register(facts, number, revocations, |entry: Entry<_>| {
            let queues = (config.receive_queue, config.datagram_queue);
            let inbound = Inbound::new(queues, entry.share(), has_receipts);
            Shared {
                stream_pool: StreamPool::new(&config, inbound.receipts()),
                datagrams: Counters::default(),
                inbound,
                sending_receipts: tokio::sync::Mutex::default(),
                entry,
                inner,
                config,
                closing: Mutex::default(),
                _registration: core.registration.clone(),
            }
        });
        let (inbound, at_end) = (shared.inbound.clone(), shared.inbound.clone());
        let (probes, member) = (inbound.probes().clone(), Arc::downgrade(Handle::member(&shared)));
        inbound.answer_with(move || Shared::answer_probes(member.clone(), probes.clone()));
        let datagrams = inbound.datagrams().clone();
        shared.inner.set_datagram_sink(move |datagram| datagrams.push(datagram));
        let make = move |stream| Box::new(FrameSink::new(stream, &inbound, limit)) as _;
        shared.inner.set_inbound_uni_sinks(make);
        let (telemetry, facts) = (shared.entry.telemetry().clone(), shared.entry.facts());
        if shared.inner.is_resumed() {
            telemetry.resumed();
        }
        let (remote_addr, local_hash) = (facts.remote_addr(), facts.local_hash());
        let weak = Arc::downgrade(Handle::member(&shared));
        // The place in the limits is occupied until the connection has ended, with or without
        // handles.
        shared.inner.on_shutdown(move |error| {
            let _place = place;
            telemetry.closed(&resolve_bad_certificate(&error, remote_addr, local_hash));
            at_end.end();
            if let Some(shared) = weak.upgrade() {
                shared.entry.undelivered(shared.stream_pool.unconfirmed());
            }
        });
        Some(Self::of(shared))
    }

    pub(crate) fn of(shared: Handle<Shared>) -> Self {
        let losses = shared.stream_pool.loss_reports.cursor();
        Self { shared, losses }
    }

    /// Returns measurements of the connection, such as the round-trip time.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn statistics(&self) -> Result<ConnectionStatistics, CloseReason> {
        match self.shared.inner.statistics().await {
            Ok(statistics) => Ok(statistics),
            Err(_) => Err(self.watch_close().await),
        }
    }

    /// Returns the settings that msquic uses for the connection, including its defaults.
    ///
    /// # Errors
    ///
    /// The reason why the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn quic_settings(&self) -> Result<Settings, CloseReason> {
        match self.shared.inner.settings().await {
            Ok(settings) => Ok(settings),
            Err(_) => Err(self.watch_close().await),
        }
    }

    /// Whether the handshake resumed the session of an earlier connection, see
    /// [`MsQuicTransportConfig::resumption`].
    pub fn is_resumed(&self) -> bool {
        self.shared.inner.is_resumed()
    }

    /// Returns how many messages and bytes were queued and received.
    pub fn message_statistics(&self) -> MessageStatistics {
        self.shared.entry.message_statistics()
    }

    /// Returns the span of this crate's events for the connection.
    ///
    /// It contains the first digits of the peer's identity. Use it to instrument tasks that serve
    /// the connection.
    pub fn span(&self) -> &Span {
        self.shared.entry.span()
    }

    /// Sends one message ahead of all queued messages and of the message in progress.
    ///
    /// Urgent messages use their own stream with a higher priority and keep their order among
    /// themselves. A peer with a full receive queue receives neither urgent nor other messages.
    /// Otherwise see [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Errors
    ///
    /// See [`send_bytes`](NetConnection::send_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future has queued the whole message or none of it.
    pub async fn send_urgent(&self, message: Bytes) -> Result<(), SendError> {
        self.queue(&[message], true).await
    }

    async fn queue(&self, parts: &[Bytes], is_urgent: bool) -> Result<(), SendError> {
        coop::spend().await;
        let Shared { stream_pool, inner, config, .. } = &*self.shared;
        let (size, header) = self.header(parts.iter().map(Bytes::len))?;
        match stream_pool.send(inner, &header, parts, is_urgent, || config.timeouts()).await {
            Ok(_) => {
                self.sent(size);
                Ok(())
            }
            Err(error) => Err(self.send_error(error).await),
        }
    }

    /// Returns the size of a message with its header.
    fn header(
        &self,
        sizes: impl Iterator<Item = usize>,
    ) -> Result<(usize, [u8; frame::HEADER]), SendError> {
        let (size, limit) = (sizes.sum(), self.shared.config.max_sent_message);
        let header = frame::header(size).filter(|_| size <= limit);
        header.map(|header| (size, header)).ok_or(SendError::TooLarge { size, limit })
    }

    /// Returns the first [`AT_ONCE`] of `messages` with their headers, up to one over the limit.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLarge`] of the first one.
    fn with_headers<'a>(
        &self,
        messages: &'a VecDeque<Bytes>,
    ) -> Result<Vec<([u8; frame::HEADER], &'a Bytes)>, SendError> {
        let mut framed = Vec::with_capacity(AT_ONCE.min(messages.len()));
        for message in messages.iter().take(AT_ONCE) {
            match self.header([message.len()].into_iter()) {
                Ok((_, header)) => framed.push((header, message)),
                Err(error) if framed.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(framed)
    }

    /// Sends the receipts for messages that were received.
    fn received<T>(&self, received: Result<T, RecvError>) -> Result<T, RecvError> {
        if received.is_ok() && self.shared.inbound.inbox().has_due() {
            self.spawn_receipts();
        }
        received
    }

    fn sent(&self, size: usize) {
        self.shared.entry.sent(size);
    }

    /// Spawns a task that opens the stream for `try_send`.
    fn prepare(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(lane) = self.shared.stream_pool.unprepared() else { return };
        let shared = Handle::member(&self.shared).clone(); // not a handle, which would keep it open
        let of_task = shared.clone();
        let prepared = OnDrop(move || of_task.stream_pool.ordinary(lane).prepared());
        runtime.spawn(async move {
            let _prepared = prepared; // also if the runtime is shut down
            let Shared { stream_pool, inner, config, .. } = &*shared;
            // The next send reports the error.
            let _ = stream_pool.ordinary(lane).open(inner, config.timeouts()).await;
        });
    }

    /// Spawns a task that sends the receipts for messages that were handed out, unless one is
    /// running.
    pub(crate) fn spawn_receipts(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shared = Handle::member(&self.shared).clone(); // not a handle, which would keep it open
        runtime.spawn(async move {
            while shared.inbound.inbox().has_due() {
                let Ok(_one) = shared.sending_receipts.try_lock() else { return };
                shared.send_due().await;
            }
        });
    }

    /// Sends a marked message and waits for its receipt.
    async fn queue_marked(
        &self,
        receipts: &Receipts,
        message: Bytes,
    ) -> Result<(), SendAckedError> {
        let Shared { stream_pool, inner, config, .. } = &*self.shared;
        let (size, header) = self.header([message.len()].into_iter()).map_err(NotSent)?;
        let mut expected = tokio::select! {
            biased;
            expected = receipts.expect() => expected,
            reason = self.watch_close() => return Err(NotSent(SendError::Closed(reason))),
            // The messages that take all places may be lost with it.
            stopped = stream_pool.stopped() => return Err(NotSent(self.send_error(stopped).await)),
        };
        let header = [&Control::Mark(expected.number()).encode()[..], &header].concat();
        let queued =
            stream_pool.send(inner, &header, &[message], false, || config.timeouts()).await;
        let stream = match queued {
            Ok(stream) => stream,
            Err(error) => return Err(NotSent(self.send_error(error).await)),
        };
        expected.set_stream(lane::number(&stream));
        expected.queued();
        self.sent(size);
        tokio::select! {
            biased;
            receipt = expected.receipt() => receipt,
            code = lane::stopped(&stream) => {
                expected.lost();
                Err(Unknown(SendError::Stopped { code }))
            }
            reason = self.watch_close() => Err(Unknown(SendError::Closed(reason))),
        }
    }

    pub(crate) async fn send_error(&self, error: QueueError) -> SendError {
        match error {
            // The peer's reason is complete only when the shutdown is complete.
            QueueError::Connection => SendError::Closed(self.watch_close().await),
            error => self.shared.send_error(error),
        }
    }
}

#[async_trait]
impl NetConnection for MsQuicNetConnection {
    fn local_addr(&self) -> SocketAddr {
        self.shared.inner.get_local_addr().unwrap_or(self.shared.entry.facts().local_addr())
    }

    fn remote_addr(&self) -> SocketAddr {
        self.shared.inner.get_remote_addr().unwrap_or(self.shared.entry.facts().remote_addr())
    }

    fn is_trusted(&self) -> bool {
        self.shared.entry.is_trusted()
    }

    net_kit::facts_getters!(except addresses shared.entry.facts());

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        self.queue(&[message], false).await
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        self.queue(parts, false).await
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let (size, header) = self.header([message.len()].into_iter())?;
        let Shared { stream_pool, inner, .. } = &*self.shared;
        match stream_pool.try_send(header, message) {
            Ok(()) => {
                self.sent(size);
                Ok(())
            }
            Err(error @ (QueueError::Connection | QueueError::WouldBlock)) => {
                if let Some(error) = inner.close_reason() {
                    return Err(SendError::Closed(self.shared.close_reason(&error)));
                }
                self.prepare();
                Err(self.shared.send_error(error))
            }
            Err(error) => Err(self.shared.send_error(error)),
        }
    }

    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        let Shared { stream_pool, entry, .. } = &*self.shared;
        while let Some(first) = messages.front() {
            coop::spend().await;
            let queued = stream_pool.try_send_many(&self.with_headers(messages)?);
            match queued {
                Ok(count) => {
                    let bytes = messages.drain(..count).map(|message| message.len()).sum();
                    entry.sent_many(count, bytes);
                }
                Err(QueueError::WouldBlock) => {
                    self.queue(std::slice::from_ref(first), false).await?;
                    messages.pop_front();
                }
                Err(error) => return Err(self.send_error(error).await),
            }
        }
        Ok(())
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        coop::spend().await;
        match self.shared.inbound.receipts() {
            Some(receipts) => self.queue_marked(receipts, message).await,
            None => Err(SendAckedError::Unsupported),
        }
    }

    async fn flush(&self) -> Result<(), SendError> {
        coop::spend().await;
        let Shared { stream_pool, inner, config, .. } = &*self.shared;
        if let Some(error) = inner.close_reason() {
            return Err(SendError::Closed(self.shared.close_reason(&error)));
        }
        let before = self.losses.position();
        let flushed = stream_pool.flush(inner, config.timeouts()).await;
        match flushed {
            Ok(()) => stream_pool.loss_reports.check(&self.losses, before),
            Err(error) => Err(self.send_error(error).await),
        }
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        coop::spend().await;
        let shared = &*self.shared;
        let received = shared.inbound.recv(shared.ended(), Inbox::pop).await;
        self.received(shared.entry.hand_out(received))
    }

    fn try_recv(&self) -> Result<Option<(Bytes, Duration)>, RecvError> {
        if !coop::try_spend() {
            return Ok(None);
        }
        let shared = &*self.shared;
        match shared.inbound.try_pop(Inbox::pop) {
            Some(received) => self.received(shared.entry.hand_out(received)).map(Some),
            None => self.recv().now_or_never().transpose(),
        }
    }

    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError> {
        if limit == 0 {
            return Ok(0);
        }
        coop::spend().await;
        let shared = &*self.shared;
        let pop = |inbox: &Inbox| inbox.pop_many(messages, limit);
        let received = shared.inbound.recv(shared.ended(), pop).await;
        self.received(shared.entry.hand_out_many(received, messages))
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        Member::close(&*self.shared, code, reason).await
    }

    fn abort(&self, code: u64, reason: &str) {
        Member::abort(&*self.shared, code, reason);
    }

    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        if self.shared.config.datagram_queue == 0 {
            return Err(DatagramError::Unsupported);
        }
        Ok(self)
    }

    async fn watch_close(&self) -> CloseReason {
        coop::spend().await;
        self.shared.ended().await
    }
}

impl fmt::Debug for MsQuicNetConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.entry.facts().debug("MsQuicNetConnection", f)
    }
}
