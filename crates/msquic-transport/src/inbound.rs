//! `Inbound`: the received messages and datagrams of a connection.
//!
//! Each unidirectional stream of the peer gets a sink when it starts, see
//! [`FrameSink`](crate::frame_sink::FrameSink). All sinks feed one [`Inbox`]. When it is full, they
//! accept no data and their streams pause. A reader that makes room resumes them.

use crate::delivery::Delivery;
use crate::probes::Probes;
use msquic_async::SinkStream;
use net_kit::datagram::Queue;
use net_kit::inbox::Inbox;
use net_kit::memory_budget::Share;
use net_kit::receipts::{Control, Receipts};
use net_traits::{CloseReason, RecvError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

pub(crate) struct Inbound {
    inbox: Inbox,
    datagrams: Arc<Queue>,
    delivery: Delivery,
    /// The streams whose sinks may add messages, by ID.
    streams: Mutex<BTreeMap<u64, SinkStream>>,
    /// `None` if the peer's version has no receipts.
    receipts: Option<Arc<Receipts>>,
    probes: Arc<Probes>,
    /// Starts a task that answers the probes.
    answer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Inbound {
    /// Creates an inbox of `receive_queue` bytes without streams, and a queue of datagrams of
    /// `datagram_queue` bytes.
    pub(crate) fn new(
        (receive_queue, datagram_queue): (usize, usize),
        share: &Arc<Share>,
        has_receipts: bool,
    ) -> Arc<Self> {
        let inbox = Inbox::charged(receive_queue, share.clone());
        let datagrams = Arc::new(Queue::new(datagram_queue, share));
        let receipts = has_receipts.then(Arc::default);
        let (delivery, streams, probes, answer) = Default::default();
        Arc::new(Self { inbox, datagrams, delivery, streams, receipts, probes, answer })
    }

    /// Sets the function that starts a task to answer the [probes](Self::probes), without waiting.
    pub(crate) fn answer_with(&self, answer: impl Fn() + Send + Sync + 'static) {
        let _ = self.answer.set(Box::new(answer)); // it is set once
    }

    /// Handles a control record of the peer that is not a mark, on msquic's thread.
    pub(crate) fn on_control(&self, record: Control) {
        match record {
            Control::Receipt { number, is_taken } => {
                self.receipts.iter().for_each(|receipts| receipts.on_receipt(number, is_taken));
            }
            Control::Probe(number) => {
                // Otherwise messages before the probe may have been discarded.
                if !self.inbox.is_discarding() && self.probes.add(number) {
                    self.answer.get().into_iter().for_each(|answer| answer());
                }
            }
            Control::Mark(_) | Control::Confirmation(_) => {}
        }
    }

    pub(crate) fn probes(&self) -> &Arc<Probes> {
        &self.probes
    }

    /// Returns the marked messages, unless the peer's version has no receipts.
    pub(crate) fn receipts(&self) -> Option<&Arc<Receipts>> {
        self.receipts.as_ref()
    }

    /// Adds a stream whose sink adds messages until it is [removed](Self::remove).
    pub(crate) fn add(&self, stream: SinkStream) {
        self.streams.lock().insert(stream.id(), stream);
    }

    pub(crate) fn remove(&self, stream: &SinkStream) {
        let is_last = {
            let mut streams = self.streams.lock();
            streams.remove(&stream.id());
            streams.is_empty()
        };
        if is_last {
            self.inbox.wake_all(); // no message can arrive if the connection has ended
            self.deliver();
        }
    }

    /// Returns whether there are streams whose sinks may add messages.
    fn has_streams(&self) -> bool {
        !self.streams.lock().is_empty()
    }

    /// Returns the delivery to a handler.
    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Passes what has arrived to the handler, if there is one.
    #[inline]
    pub(crate) fn deliver(&self) {
        self.delivery.run(|| self.has_streams());
    }

    /// Does the same for at most `limit` messages. Returns whether it stopped there, so that the caller
    /// has to call it again.
    pub(crate) fn deliver_part(&self, limit: usize) -> bool {
        self.delivery.run_part(limit, || self.has_streams())
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) fn datagrams(&self) -> &Arc<Queue> {
        &self.datagrams
    }

    /// Drops all messages, also those in progress, and all datagrams, after the share was
    /// [ended](net_kit::memory_budget::Share::end).
    pub(crate) fn clear(&self) {
        self.inbox.clear();
        self.datagrams.clear();
        self.resume(); // paused sinks then drop their data
    }

    /// Passes the rest to the handler, if there is one, now that the connection has ended.
    pub(crate) fn end(&self) {
        self.delivery.end();
        self.deliver_rest();
    }

    /// Passes what has arrived to the handler, if there is one, and if the connection has ended also what
    /// waited for room or memory. Call it after a handler was set, too.
    pub(crate) fn deliver_rest(&self) {
        if self.delivery.is_inline() && self.delivery.has_ended() {
            self.drop_undelivered();
            self.take_rest();
        }
        self.deliver();
    }

    /// Calls the handler no more. What it does not get is dropped once the connection has ended: nothing else takes
    /// it, and streams that wait for room would never end.
    pub(crate) fn stop_delivery(&self) {
        self.delivery.stop();
        self.drop_undelivered();
    }

    fn drop_undelivered(&self) {
        if self.delivery.is_inline() && self.delivery.has_ended() && self.delivery.is_stopped() {
            self.inbox.clear();
            self.resume();
        }
    }

    /// Decodes what the streams hold that waited for room or memory, after the connection has ended.
    fn take_rest(&self) {
        self.inbox.share().lift_limits();
        self.resume();
    }

    /// Waits for what `pop` takes from the inbox; with a handler, for the end. `over` resolves once the connection
    /// has ended and no stream can start.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future takes no message.
    pub(crate) async fn recv<T>(
        &self,
        over: impl Future<Output = CloseReason>,
        mut pop: impl FnMut(&Inbox) -> Option<(Result<T, RecvError>, bool)>,
    ) -> Result<T, RecvError> {
        let mut over = pin!(over);
        let reason = loop {
            let arrived = self.inbox.arrived();
            if self.delivery.is_inline() {
                break over.await; // nothing that arrives wakes this task
            }
            if let Some(received) = self.pop(&mut pop) {
                return received;
            }
            tokio::select! {
                biased;
                () = arrived => {}
                reason = &mut over => break reason,
            }
        };
        let pop = |inbox: &Inbox| if self.delivery.is_inline() { None } else { pop(inbox) };
        // Streams that paused have messages left, and another reader may be adding some.
        self.take_rest();
        let end = || self.streams.lock().is_empty().then(|| reason.clone());
        let (received, resume) = self.inbox.recv_with(end, pop).await;
        if resume {
            self.resume();
        }
        received
    }

    /// Takes what has arrived, as [`recv`](Self::recv).
    pub(crate) fn try_pop<T>(&self, pop: impl FnOnce(&Inbox) -> Option<(T, bool)>) -> Option<T> {
        if self.delivery.is_inline() { None } else { self.pop(pop) }
    }

    /// Calls `pop`, and resumes paused streams if it made room.
    pub(crate) fn pop<T>(&self, pop: impl FnOnce(&Inbox) -> Option<(T, bool)>) -> Option<T> {
        let (received, resume) = pop(&self.inbox)?;
        if resume {
            self.resume();
        }
        Some(received)
    }

    /// Offers data to the sinks again after the inbox has room.
    fn resume(&self) {
        let streams: Vec<_> = self.streams.lock().values().cloned().collect();
        streams.iter().for_each(SinkStream::resume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame_sink::FrameSink;
    use msquic_async::{ReceiveEnd, ReceiveSink};
    use net_kit::frame::header;
    use net_kit::inbox::ENTRY_COST;
    use std::future::{pending, ready};

    fn sink(inbound: &Arc<Inbound>, id: u64) -> FrameSink {
        FrameSink::new(SinkStream::ended(id), inbound, 100)
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        [&header(message.len()).unwrap()[..], message].concat()
    }

    #[tokio::test]
    async fn messages_that_sinks_have_left_come_before_the_end() {
        let inbound = Inbound::new((1000, 0), &Share::unlimited().into(), true);
        let mut sink = sink(&inbound, 2);
        let recv = async || inbound.recv(ready(CloseReason::TimedOut), Inbox::pop).await;
        let late = async {
            tokio::task::yield_now().await;
            sink.receive(&frame(b"late"));
            tokio::task::yield_now().await;
            sink.end(ReceiveEnd::Finished);
            drop(sink);
        };
        let receive = async {
            assert_eq!(recv().await.unwrap().0, "late");
            assert_eq!(recv().await, Err(RecvError::Closed(CloseReason::TimedOut)));
        };
        tokio::join!(receive, late);
        assert_eq!(Arc::strong_count(&inbound), 1);
    }

    #[test]
    fn the_errors_of_streams_without_messages_stay_within_the_limit() {
        const FIT: usize = 10;
        let inbound = Inbound::new((FIT * ENTRY_COST, 0), &Share::unlimited().into(), true);
        let mut taken = 0;
        for id in 0..1000 {
            let mut sink = sink(&inbound, id);
            taken += sink.receive(b"\0");
            sink.end(ReceiveEnd::Finished);
        }
        assert_eq!(taken, FIT, "a full inbox accepts nothing");
        let entries = std::iter::from_fn(|| inbound.inbox.pop());
        assert_eq!(entries.filter(|(entry, _)| entry.is_err()).count(), FIT);
        assert!(inbound.streams.lock().is_empty());
    }

    #[tokio::test]
    async fn a_dropped_recv_takes_no_message() {
        let inbound = Inbound::new((1000, 0), &Share::unlimited().into(), true);
        let mut sink = sink(&inbound, 2);
        tokio::select! {
            biased;
            _ = inbound.recv(pending(), Inbox::pop) => unreachable!("there is no message"),
            taken = async { sink.receive(&frame(b"kept")) } => assert_eq!(taken, 8),
        }
        assert_eq!(inbound.recv(pending(), Inbox::pop).await.unwrap().0, "kept");
    }
}
