//! Events that the application has not received yet, and their receiver.
//!
//! No report of a message is lost, and the number of events is bounded: an undelivered message
//! keeps the [`Place`] that it has held since it was queued, and changes of peers are merged
//! ([`PendingEvents`]).

use super::config::DropError;
use super::peer_event::{PeerEvent, Undelivered};
use super::pending_events::PendingEvents;
use super::quota::Place;
use net_kit::coop;
use net_kit::telemetry::PoolTelemetry;
use net_traits::{CertHash, WithCauses};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The receiver of the events of a [`PeerPool`](crate::PeerPool), whose connections are of type
/// `C`.
///
/// Receive the events or drop the receiver: an undelivered message counts against the limits of its
/// peer until its report is received. If reports use up a limit, no more messages can be queued.
pub struct PeerEvents<C> {
    events: Arc<EventQueue<C>>,
}

impl<C: Clone> PeerEvents<C> {
    pub(super) fn new(events: Arc<EventQueue<C>>) -> Self {
        Self { events }
    }

    /// Waits for the next event.
    ///
    /// Returns `None` once the pool was dropped and every event was received.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped future loses no event.
    pub async fn recv(&mut self) -> Option<PeerEvent<C>> {
        coop::spend().await;
        loop {
            let mut changed = pin!(self.events.reports.changed.notified());
            changed.as_mut().enable();
            // Check first: an event that is added after this line is received below.
            let has_ended = self.events.has_ended();
            if let Some(event) = self.events.next() {
                return Some(event);
            }
            if has_ended {
                return None;
            }
            changed.await;
        }
    }

    /// Returns the next event if there is one.
    pub fn try_recv(&mut self) -> Option<PeerEvent<C>> {
        self.events.next()
    }
}

impl<C> Drop for PeerEvents<C> {
    fn drop(&mut self) {
        self.events.discard();
    }
}

impl<C> fmt::Debug for PeerEvents<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEvents").finish_non_exhaustive()
    }
}

/// The reports of undelivered messages.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) telemetry: PoolTelemetry,
    state: Mutex<ReportState>,
    /// How many messages were queued and are neither delivered nor reported.
    open: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct ReportState {
    queue: VecDeque<(Undelivered, Option<Place>)>,
    is_discarded: bool,
}

impl Reports {
    /// Records that a message was queued.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.telemetry.held();
    }

    /// Records that a message needs no report.
    pub(super) fn end(&self) {
        self.telemetry.released();
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.changed.notify_one();
        }
    }

    /// Reports an undelivered message.
    pub(super) fn report(&self, undelivered: Undelivered, place: Place) {
        self.count(&undelivered.peer, &undelivered.error);
        self.push(undelivered, Some(place));
    }

    /// Counts a message that is reported, once.
    pub(super) fn count(&self, peer: &CertHash, error: &DropError) {
        self.telemetry.undelivered(peer, error.kind(), &WithCauses(error));
    }

    /// Reports a message whose report was for a broadcast, where it was counted, and was not received. Its
    /// payload is shared.
    pub(super) fn report_late(&self, undelivered: Undelivered) {
        self.begin();
        self.push(undelivered, None);
    }

    fn push(&self, undelivered: Undelivered, place: Option<Place>) {
        self.telemetry.released();
        let discarded = {
            let mut state = self.state.lock();
            if state.is_discarded {
                Some((undelivered, place))
            } else {
                state.queue.push_back((undelivered, place));
                None
            }
        };
        drop(discarded);
        self.open.fetch_sub(1, Ordering::SeqCst); // after the report is queued, see `has_ended`
        self.changed.notify_one();
    }

    pub(super) fn next(&self) -> Option<Undelivered> {
        let (undelivered, _place) = self.state.lock().queue.pop_front()?;
        Some(undelivered)
    }
}

/// The events that the application has not received yet.
#[derive(Debug)]
pub(super) struct EventQueue<C> {
    pub(super) reports: Arc<Reports>,
    pending: Mutex<PendingEvents<C>>,
}

impl<C: Clone> EventQueue<C> {
    pub(super) fn new() -> Arc<Self> {
        let reports = Reports { telemetry: PoolTelemetry::new(), ..Reports::default() };
        Arc::new(Self { reports: Arc::new(reports), pending: Mutex::new(PendingEvents::new()) })
    }

    /// Returns the telemetry of the pool. Call its methods without holding a lock.
    pub(super) fn telemetry(&self) -> &PoolTelemetry {
        &self.reports.telemetry
    }

    /// Locks the merged changes, to record others; see [`PendingEvents`].
    pub(super) fn pending(&self) -> MutexGuard<'_, PendingEvents<C>> {
        self.pending.lock()
    }

    /// Wakes the application. Call it without holding a lock.
    pub(super) fn wake(&self) {
        self.reports.changed.notify_one();
    }

    /// Records that the pool was dropped.
    pub(super) fn close(&self) {
        self.pending.lock().is_closed = true;
        self.wake();
    }

    /// Returns whether no more events can occur.
    fn has_ended(&self) -> bool {
        self.pending.lock().is_closed && self.reports.open.load(Ordering::SeqCst) == 0
    }

    fn next(&self) -> Option<PeerEvent<C>> {
        let event = self.pending.lock().next();
        event.or_else(|| self.reports.next().map(PeerEvent::Undelivered))
    }
}

impl<C> EventQueue<C> {
    /// Drops the events, and those that follow.
    fn discard(&self) {
        let reports = {
            let mut state = self.reports.state.lock();
            state.is_discarded = true;
            std::mem::take(&mut state.queue)
        };
        drop(reports);
        let pending = {
            let mut pending = self.pending.lock();
            pending.discard()
        };
        drop(pending);
    }
}
