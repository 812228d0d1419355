//! The events that the application of a pool has not received, and their receiver.
//!
//! No event is lost, and their number is bounded: an undelivered message keeps the [`Place`] that it
//! has held since it was queued, and changes are merged ([`PendingEvents`]).

use super::peer_event::{PeerEvent, Undelivered};
use super::pending_events::PendingEvents;
use super::quota::Place;
use net_kit::telemetry::PoolTelemetry;
use net_traits::WithCauses;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

/// The receiver of the events of a [`PeerPool`](crate::PeerPool), whose connections are of type `C`.
///
/// Receive the events, or drop this: an undelivered message counts against the limits of its peer
/// until its report is received. If all room is taken by reports, nothing more can be queued.
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
        consume_budget().await;
        loop {
            let mut changed = pin!(self.events.reports.changed.notified());
            changed.as_mut().enable();
            // In this order: an event that comes after the first line is received below.
            let is_over = self.events.is_over();
            if let Some(event) = self.events.next() {
                return Some(event);
            }
            if is_over {
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
    /// Messages that have been queued and are neither delivered nor reported.
    open: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct ReportState {
    queue: VecDeque<(Undelivered, Place)>,
    is_discarded: bool,
}

impl Reports {
    /// A message was queued.
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.telemetry.held();
    }

    /// A message needs no report.
    pub(super) fn end(&self) {
        self.telemetry.released();
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.changed.notify_one();
        }
    }

    /// Reports a message.
    pub(super) fn report(&self, undelivered: Undelivered, place: Place) {
        let error = &undelivered.error;
        self.telemetry.undelivered(&undelivered.peer, error.kind(), &WithCauses(error));
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
        self.open.fetch_sub(1, Ordering::SeqCst); // after it was queued, for `is_over`
        self.changed.notify_one();
    }

    pub(super) fn next(&self) -> Option<Undelivered> {
        let (undelivered, _place) = self.state.lock().queue.pop_front()?;
        Some(undelivered)
    }
}

/// What the application has not received yet.
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

    /// Returns what reports to operators. No lock may be held when it is called.
    pub(super) fn telemetry(&self) -> &PoolTelemetry {
        &self.reports.telemetry
    }

    /// Lets changes be made, see the module.
    pub(super) fn pending(&self) -> MutexGuard<'_, PendingEvents<C>> {
        self.pending.lock()
    }

    /// Wakes the application. No lock may be held.
    pub(super) fn wake(&self) {
        self.reports.changed.notify_one();
    }

    /// The pool was dropped.
    pub(super) fn close(&self) {
        self.pending.lock().is_closed = true;
        self.wake();
    }

    /// Whether no event will come any more.
    fn is_over(&self) -> bool {
        self.pending.lock().is_closed && self.reports.open.load(Ordering::SeqCst) == 0
    }

    fn next(&self) -> Option<PeerEvent<C>> {
        let event = self.pending.lock().next();
        event.or_else(|| self.reports.next().map(PeerEvent::Undelivered))
    }
}

impl<C> EventQueue<C> {
    /// Nothing is received any more.
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
