//! `BrokenConnection`: a connection that violates the contract of its [`Fault`].

use super::batch;
use super::context::Context;
use super::guards::{CountIfDropped, Counting, HalfOnDrop, on_drop};
use super::{CODE_LIMIT, FEW, Fault, QUEUE, polled};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use net_traits::{
    Cause, CertificateDer, CloseOutcome, CloseReason, DatagramError, NetConnection, NetDatagrams,
    PeerIdentity, RecvError, SendAckedError, SendError,
};
use net_traits_test::Limits;
use net_traits_test::memory::{MemoryConnection, MemoryQuestion};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;
use tokio::runtime::{Handle, Id};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

#[derive(Debug)]
pub(crate) struct BrokenConnection(pub(super) Arc<Shared>);

/// What the handles of a broken connection share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inner: MemoryConnection,
    pub(super) fault: Fault,
    pub(super) limits: Limits,
    pub(super) context: Weak<Context>,
    pub(super) remote_identity: String,
    pub(super) peer: PeerIdentity,
    pub(super) runtime: Id,
    pub(super) is_cloned: AtomicBool,
    pub(super) closings: AtomicUsize,
    pub(super) sends: AtomicUsize,
    pub(super) sending: AtomicUsize,
    pub(super) receiving: AtomicUsize,
    pub(super) received: AtomicUsize,
    pub(super) dropped_recvs: AtomicUsize,
    pub(super) dropped_flushes: AtomicUsize,
    /// Messages that were received after the end, or that are lost with it.
    pub(super) late: AtomicUsize,
    pub(super) watching: AtomicUsize,
    pub(super) wakers: Mutex<Vec<Waker>>,
    pub(super) held_back: Mutex<Option<Bytes>>,
    pub(super) aborted: Notify,
    pub(super) queue: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    pub(super) room: Arc<Semaphore>,
    /// What had arrived before a revocation.
    pub(super) arrived: Mutex<VecDeque<Bytes>>,
    pub(super) asked: Mutex<VecDeque<MemoryQuestion>>,
}

impl Shared {
    pub(super) fn new(inner: MemoryConnection, context: &Arc<Context>) -> Self {
        let fault = context.fault;
        let mut peer = inner.peer_identity().clone();
        if fault == Fault::EndorsersAreForgotten {
            peer.endorsers.clear();
        }
        if fault == Fault::EndOfTrustIsNotReported {
            peer.trusted_until = None;
        }
        let remote_identity = match fault {
            Fault::RemoteIdentityIsTheLocalOne => inner.local_identity(),
            _ => inner.remote_identity(),
        };
        let (queue, mut queued) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
        if fault == Fault::QueueCountsMessages {
            let inner = inner.clone();
            tokio::spawn(async move {
                while let Some((message, _place)) = queued.recv().await {
                    while let Err(SendError::TimedOut { .. }) =
                        inner.send_bytes(message.clone()).await
                    {}
                }
            });
        }
        Self {
            fault,
            limits: context.limits.clone(),
            context: Arc::downgrade(context),
            remote_identity: remote_identity.to_owned(),
            peer,
            inner,
            runtime: Handle::current().id(),
            is_cloned: AtomicBool::default(),
            closings: AtomicUsize::default(),
            sends: AtomicUsize::default(),
            sending: AtomicUsize::default(),
            receiving: AtomicUsize::default(),
            received: AtomicUsize::default(),
            dropped_recvs: AtomicUsize::default(),
            dropped_flushes: AtomicUsize::default(),
            late: AtomicUsize::default(),
            watching: AtomicUsize::default(),
            wakers: Mutex::default(),
            held_back: Mutex::default(),
            aborted: Notify::new(),
            queue,
            room: Arc::new(Semaphore::new(QUEUE)),
            arrived: Mutex::default(),
            asked: Mutex::default(),
        }
    }
}

impl Clone for BrokenConnection {
    fn clone(&self) -> Self {
        self.0.is_cloned.store(true, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

#[async_trait]
impl NetConnection for BrokenConnection {
    fn datagrams(&self) -> Result<&dyn NetDatagrams, DatagramError> {
        let is_supported = self.0.fault != Fault::DatagramsAreUnsupported;
        if is_supported { Ok(self) } else { Err(DatagramError::Unsupported) }
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.inner.local_addr()
    }

    fn remote_addr(&self) -> SocketAddr {
        let mut address = self.0.inner.remote_addr();
        if self.0.fault == Fault::RemoteAddressIsWrong {
            address.set_port(1);
        }
        address
    }

    fn local_identity(&self) -> &str {
        self.0.inner.local_identity()
    }

    fn remote_identity(&self) -> &str {
        &self.0.remote_identity
    }

    fn is_trusted(&self) -> bool {
        self.0.inner.is_trusted()
    }

    fn peer_identity(&self) -> &PeerIdentity {
        &self.0.peer
    }

    fn remote_certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.inner.remote_certificate()
    }

    fn alpn_negotiated(&self) -> &str {
        match self.0.fault {
            Fault::ProtocolIsTheWrongOne => "conformance/1",
            _ => self.0.inner.alpn_negotiated(),
        }
    }

    async fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.send_bytes(Bytes::copy_from_slice(message)).await
    }

    async fn send_bytes(&self, message: Bytes) -> Result<(), SendError> {
        let Shared { inner, fault, limits, .. } = &*self.0;
        let size = message.len();
        let (_counting, sending) = Counting::new(&self.0.sending);
        let nth = self.0.sends.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::LossesOfEndsAreNotCounted if size == 200_000 => {
                self.0.late.fetch_add(1, Ordering::SeqCst);
                inner.send_bytes(message).await
            }
            Fault::TimedOutClosesForgetLosses if nth == 0 && self.0.has_short_operations() => {
                Ok(())
            }
            Fault::OnlyAsciiArrives => {
                let ascii = |byte: &u8| if byte.is_ascii() { *byte } else { b'?' };
                inner.send_bytes(message.iter().map(ascii).collect()).await
            }
            Fault::EmptyMessagesAreSkipped if size == 0 => Ok(()),
            Fault::SendingNeverPauses => unconstrained(inner.send_bytes(message)).await,
            Fault::TheLimitIsOneTooLow if size == limits.max_message_size => {
                Err(SendError::TooLarge { size, limit: size - 1 })
            }
            Fault::TooLargeCloses if size > limits.max_message_size => {
                inner.close(0, "").await;
                inner.send_bytes(message).await
            }
            Fault::TwoMessagesAreSwapped if nth == 100 => {
                *self.0.held_back.lock() = Some(message);
                Ok(())
            }
            Fault::TwoMessagesAreSwapped if nth == 101 => {
                inner.send_bytes(message).await?;
                let held_back = self.0.held_back.lock().take();
                inner.send_bytes(held_back.unwrap_or_default()).await
            }
            // Held back until the next message, for which `drop` does not wait.
            Fault::DropsDiscard if nth == 9 && size == 10_000 => {
                *self.0.held_back.lock() = Some(message);
                Ok(())
            }
            Fault::DropsDiscard => {
                let held_back = self.0.held_back.lock().take();
                if let Some(held_back) = held_back {
                    inner.send_bytes(held_back).await?;
                }
                inner.send_bytes(message).await
            }
            Fault::ConcurrentMessagesAreTorn if sending > 1 && size > 1000 => {
                inner.send_bytes(message.slice(..size / 2)).await?;
                inner.send_bytes(message.slice(size / 2..)).await
            }
            Fault::DroppedSendsLeaveHalves => {
                let mut half = HalfOnDrop(&self.0, message.clone(), false);
                let result = inner.send_bytes(message).await;
                half.2 = true;
                result
            }
            Fault::QueueCountsMessages if size <= limits.max_message_size && self.0.lingers() => {
                self.0.queue(message).await
            }
            Fault::TheSecondCloseCounts if self.0.closings.load(Ordering::SeqCst) > 1 => {
                let reason = "second".to_owned();
                Err(SendError::Closed(CloseReason::Local { code: 2, reason }))
            }
            Fault::SendTimeoutIsNotReported => match inner.send_bytes(message).await {
                Err(SendError::TimedOut { .. }) if !self.0.is_patient() => {
                    Err(SendError::TimedOut { after: Duration::MAX })
                }
                result => result,
            },
            _ => inner.send_bytes(message).await,
        }
    }

    async fn send_parts(&self, parts: &[Bytes]) -> Result<(), SendError> {
        let size: usize = parts.iter().map(Bytes::len).sum();
        if self.0.fault == Fault::PartsAreMessages && size <= self.0.limits.max_message_size {
            for part in parts {
                self.send_bytes(part.clone()).await?;
            }
            return Ok(());
        }
        let send = self.send_bytes(parts.concat().into());
        match self.0.fault {
            Fault::SendPartsKeepsNoWaker => polled::without_waker(send).await,
            _ => send.await,
        }
    }

    fn try_send(&self, message: Bytes) -> Result<(), SendError> {
        let is_long = self.0.is_patient();
        if self.0.fault == Fault::CloseForgetsWhatWasLost
            && is_long
            && self.0.sends.fetch_add(1, Ordering::SeqCst) == 0
        {
            return Ok(());
        }
        match self.0.inner.try_send(message) {
            Err(SendError::WouldBlock) if self.0.fault == Fault::TrySendForgets && !is_long => {
                Ok(())
            }
            Ok(()) => {
                if let Some(context) = self.0.context.upgrade() {
                    context.tried.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            }
            result => result,
        }
    }

    async fn send_many(&self, messages: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        batch::send_many(&self.0, messages).await
    }

    fn try_recv(&self) -> Result<Option<(Bytes, Duration)>, RecvError> {
        batch::try_recv(&self.0)
    }

    async fn recv_many(
        &self,
        messages: &mut Vec<(Bytes, Duration)>,
        limit: usize,
    ) -> Result<usize, RecvError> {
        batch::recv_many(&self.0, messages, limit).await
    }

    async fn send_acked(&self, message: Bytes) -> Result<(), SendAckedError> {
        let Shared { inner, fault, room, .. } = &*self.0;
        if *fault == Fault::QueueCountsMessages {
            let all = u32::try_from(QUEUE).expect("it is small");
            drop(room.acquire_many(all).await); // the messages before are sent
        }
        if *fault == Fault::QueuedIsTaken && message == "acked" {
            return inner.send_bytes(message).await.map_err(SendAckedError::NotSent);
        }
        let acked = inner.send_acked(message);
        let acked = match fault {
            Fault::SendAckedNeverPauses => unconstrained(acked).await,
            _ => acked.await,
        };
        match acked {
            Err(SendAckedError::Unknown(_)) if *fault == Fault::UnknownIsTaken => Ok(()),
            result => result,
        }
    }

    async fn flush(&self) -> Result<(), SendError> {
        self.0.flush().await
    }

    async fn recv(&self) -> Result<(Bytes, Duration), RecvError> {
        let Shared { inner, fault, .. } = &*self.0;
        let (_counting, receiving) = Counting::new(&self.0.receiving);
        let busy =
            || RecvError::Closed(CloseReason::Transport(Cause::new("another task receives")));
        let result = match fault {
            Fault::HalfDuplex => {
                while self.0.sending.load(Ordering::SeqCst) > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                inner.recv().await
            }
            Fault::ReceivingNeedsItsRuntime
                if Handle::current().id() != self.0.runtime && self.0.lingers() =>
            {
                std::future::pending().await
            }
            Fault::OneReceiverOnly if receiving > 1 => Err(busy()),
            Fault::ReceivingNeverPauses => unconstrained(inner.recv()).await,
            Fault::RecvLosesMessages => {
                let result = inner.recv().await;
                yield_now().await;
                result
            }
            Fault::RecvKeepsItsFirstWaker => polled::with_its_first_waker(inner.recv()).await,
            Fault::DroppedRecvsEndOthers => {
                polled::until_another_is_dropped(&self.0.dropped_recvs, inner.recv()).await
            }
            Fault::RecvLosesBytes => {
                let mut dropped = CountIfDropped(&self.0.dropped_recvs, false);
                let result = inner.recv().await;
                dropped.1 = true;
                let cut = self.0.dropped_recvs.swap(0, Ordering::SeqCst) > 0;
                result.map(|(message, elapsed)| match message.len() {
                    1..10 if cut => (message.slice(1..), elapsed),
                    _ => (message, elapsed),
                })
            }
            Fault::TooLargeIsTheEnd => inner.recv().await.map_err(|error| match error {
                RecvError::TooLarge { .. } => busy(),
                error => error,
            }),
            Fault::TruncatedIsSkipped => loop {
                match inner.recv().await {
                    Err(RecvError::Truncated { .. }) => {}
                    result => break result,
                }
            },
            Fault::SilenceIsTruncated if self.0.received.load(Ordering::SeqCst) > 0 => {
                let silence = Duration::from_millis(100);
                let received = timeout(silence, inner.recv()).await;
                received.unwrap_or(Err(RecvError::Truncated { received: 0, announced: 4 }))
            }
            Fault::TheEndOvertakes => tokio::select! {
                biased;
                reason = inner.watch_close() => match &reason {
                    CloseReason::Peer { reason: text, .. } if text == "all said" => {
                        Err(RecvError::Closed(reason))
                    }
                    _ => inner.recv().await,
                },
                result = inner.recv() => result,
            },
            Fault::LossesAreNotCounted => loop {
                match inner.recv().await {
                    Ok((message, _)) if message.len() == 200_000 => {}
                    received => return received,
                }
            },
            Fault::OnlyAFewAreKept => match inner.watch_close().now_or_never() {
                Some(reason) if self.0.late.fetch_add(1, Ordering::SeqCst) >= FEW => {
                    Err(RecvError::Closed(reason))
                }
                _ => inner.recv().await,
            },
            Fault::EachCloseHasDelivered if self.0.closings.load(Ordering::SeqCst) > 0 => {
                Err(RecvError::Closed(inner.watch_close().await))
            }
            Fault::PendingRecvForgetsWhy => match inner.recv().now_or_never() {
                Some(result) => result,
                None => inner.recv().await.map_err(|error| match error {
                    RecvError::Closed(_) => RecvError::Closed(CloseReason::TimedOut),
                    error => error,
                }),
            },
            Fault::ViolationsAreForgiven => match inner.recv().await {
                Ok((message, _)) if message.len() > self.0.limits.max_message_size => {
                    let (size, limit) = (message.len() as u64, self.0.limits.max_message_size);
                    Err(RecvError::TooLarge { size, limit })
                }
                received => received,
            },
            Fault::RevokedMessagesAreHandedOut => match self.0.next_that_arrived() {
                Some(message) => Ok(message),
                None => inner.recv().await,
            },
            _ => inner.recv().await,
        };
        self.0.received.fetch_add(1, Ordering::SeqCst);
        result
    }

    async fn close(&self, code: u64, reason: &str) -> CloseOutcome {
        let Shared { inner, fault, .. } = &*self.0;
        let is_again = self.0.closings.fetch_add(1, Ordering::SeqCst) > 0;
        match fault {
            Fault::CodesAreBytes if code < CODE_LIMIT => inner.close(code & 0xff, reason).await,
            Fault::CodesWrapAround => inner.close(code % (CODE_LIMIT + 1), reason).await,
            Fault::ReasonsAreCutEarly => {
                let reason: String = reason.chars().take(200).collect();
                inner.close(code, &reason).await
            }
            Fault::AbortLeavesCloseWaiting if reason == "in order" => std::future::pending().await,
            Fault::AbortHurriesAClose if reason == "in order" => {
                self.0.aborted.notified().await;
                inner.close(code, reason).await
            }
            Fault::RevocationsWaitForAClose if reason == "slowly" => {
                CloseOutcome::AlreadyClosed(inner.watch_close().await)
            }
            Fault::ClosingTwiceHangs if is_again && reason == "second" => {
                std::future::pending().await
            }
            Fault::QueueCountsMessages => {
                let close = on_drop(|| {
                    let _ = inner.close(code, reason).now_or_never();
                });
                let all = u32::try_from(QUEUE).expect("it is small");
                let written = self.0.room.acquire_many(all); // take all slots of waiters
                let _ = timeout(self.0.limits.operation_timeout, written).await;
                std::mem::forget(close);
                inner.close(code, reason).await
            }
            Fault::DroppedClosesAreForgotten => {
                yield_now().await; // a future that is dropped here closes nothing
                inner.close(code, reason).await
            }
            Fault::CloseNeverPauses => unconstrained(inner.close(code, reason)).await,
            Fault::TheSecondCloseIsTheFirst => match inner.close(code, reason).await {
                CloseOutcome::AlreadyClosed(_) => CloseOutcome::Delivered,
                outcome => outcome,
            },
            _ => inner.close(code, reason).await,
        }
    }

    fn abort(&self, code: u64, reason: &str) {
        let forgets = self.0.fault == Fault::AbortForgetsTheCode && reason == "enough";
        let code = if forgets { 0 } else { code };
        let is_closing = self.0.closings.load(Ordering::SeqCst) > 0;
        if self.0.fault == Fault::AbortHurriesAClose && is_closing && reason == "now" {
            return self.0.aborted.notify_one();
        }
        self.0.inner.abort(code, reason);
    }

    async fn watch_close(&self) -> CloseReason {
        let Shared { inner, fault, wakers, .. } = &*self.0;
        let (_counting, watching) = Counting::new(&self.0.watching);
        match fault {
            Fault::TenWatchers if watching > 10 => std::future::pending().await,
            Fault::WatchCloseNeverPauses => unconstrained(inner.watch_close()).await,
            Fault::WakersPileUp => {
                let mut watch = inner.watch_close();
                std::future::poll_fn(|cx| {
                    wakers.lock().push(cx.waker().clone());
                    watch.as_mut().poll(cx)
                })
                .await
            }
            _ => inner.watch_close().await,
        }
    }
}
