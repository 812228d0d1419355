//! `PooledConnection`: a connection of the pool, and what it is used for.

use super::in_flight::InFlight;
use super::quota::{Quota, Share};
use net_kit::guard::OnDrop;
use net_traits::NetConnection;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A connection that the peer ends within this time counts as a failure.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// How long an unused connection must be silent before the side that dialled it closes it, if that
/// side has the larger identity.
const SILENCE: Duration = Duration::from_secs(5);

/// How many times [`SILENCE`] the other sides wait. A side that did not dial the connection waits
/// longer, since its peer may have restarted and not know the connection. The times differ, so that
/// two sides that use different connections do not close both: the later side finds that its
/// connection is the only one left, and keeps it.
const OURS_SMALLER: u32 = 2;
const ACCEPTED_SMALLER: u32 = 4;
const ACCEPTED_LARGER: u32 = 8;

/// How often an unused connection is checked for silence.
pub(super) const SILENCE_CHECK: Duration = Duration::from_millis(2500);

/// How many connections a peer may have, including those that have ended and of which the
/// application has not received all messages.
const CONNECTIONS: usize = 16;

/// How long the close of a connection with a peer that is no longer listed may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection of the pool.
#[derive(Debug)]
pub(super) struct PooledConnection<C> {
    /// Its number in the pool.
    pub(super) id: u64,
    pub(super) connection: C,
    /// Whether this side dialled it.
    pub(super) is_ours: bool,
    /// Whether this side has the smaller identity.
    pub(super) is_smaller: bool,
    pub(super) since: Instant,
    pub(super) in_flight: InFlight,
    pub(super) limits: Arc<PeerLimits>,
    /// How often in a row the peer took no data for the time limit of the transport.
    pub(super) timed_out: AtomicU32,
    role: AtomicU8,
    pub(super) role_changed: Notify,
    activity: Mutex<Activity>,
    _share: Share,
}

/// What the connections of one peer share.
#[derive(Debug)]
pub(super) struct PeerLimits {
    /// Limits of queued messages and of the reports about them.
    pub(super) messages: Arc<Quota>,
    pub(super) bytes: Arc<Quota>,
    /// Limit of messages that were sent and are not known to be delivered, and of the reports about
    /// them.
    pub(super) unconfirmed: Arc<Quota>,
    connections: Arc<Quota>,
    /// How many connections in a row were replaced because they were stuck.
    pub(super) stuck: AtomicU32,
}

impl PeerLimits {
    pub(super) fn new(messages: usize, bytes: usize, unconfirmed: usize) -> Arc<Self> {
        Arc::new(Self {
            messages: Quota::new(messages),
            bytes: Quota::new(bytes),
            unconfirmed: Quota::new(unconfirmed),
            connections: Quota::new(CONNECTIONS),
            stuck: AtomicU32::new(0),
        })
    }

    /// Returns whether the peer has no queued, unconfirmed or reported messages, and no connections
    /// with messages that the application has not received.
    pub(super) fn are_unused(&self) -> bool {
        [&self.messages, &self.unconfirmed, &self.connections].iter().all(|it| it.is_unused())
    }
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// Messages are sent on it.
    Current,
    /// Another connection is used. The peer may still send on this one.
    Spare,
    /// It was removed from the state of the pool and must be closed.
    Displaced,
}

#[derive(Debug)]
struct Activity {
    last: Instant,
    /// Whether a received message waits for room in the inbox, and further ones may be unread.
    is_held: bool,
}

impl<C> PooledConnection<C> {
    /// Creates a connection of the pool. `None` if its peer has too many.
    pub(super) fn new(
        id: u64,
        connection: C,
        is_ours: bool,
        is_smaller: bool,
        limits: Arc<PeerLimits>,
    ) -> Option<Arc<Self>> {
        let now = Instant::now();
        let share = limits.connections.take(1)?;
        Some(Arc::new(Self {
            id,
            connection,
            is_ours,
            is_smaller,
            since: now,
            in_flight: InFlight::default(),
            limits,
            timed_out: AtomicU32::new(0),
            role: AtomicU8::new(Role::Current as u8),
            role_changed: Notify::new(),
            activity: Mutex::new(Activity { last: now, is_held: false }),
            _share: share,
        }))
    }

    /// Returns whether the side with the smaller identity dialled it.
    pub(super) fn is_preferred(&self) -> bool {
        self.is_ours == self.is_smaller
    }

    pub(super) fn has_role(&self, role: Role) -> bool {
        self.role.load(Ordering::SeqCst) == role as u8
    }

    /// Sets the role, with the state of the pool locked. Call
    /// [`notify_role_changed`](Self::notify_role_changed) after unlocking.
    pub(super) fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::SeqCst);
    }

    /// Wakes the task of the connection after a change of its role.
    pub(super) fn notify_role_changed(&self) {
        self.role_changed.notify_one();
    }

    pub(super) fn touch(&self) {
        self.activity.lock().last = Instant::now();
    }

    /// Records whether a received message waits for room in the inbox.
    pub(super) fn hold(&self, is_held: bool) {
        *self.activity.lock() = Activity { last: Instant::now(), is_held };
    }

    /// Returns for how long nothing was received or sent; `None` while a received message waits for
    /// room.
    fn idle(&self) -> Option<Duration> {
        let activity = self.activity.lock();
        (!activity.is_held).then(|| activity.last.elapsed())
    }

    /// Returns whether this connection can be closed, since `current` is used. The peer may use
    /// this one and be about to close `current`, which then has been silent for a while, but not
    /// for long.
    ///
    /// Nothing may be in flight, so that the close takes no longer than a round trip. What the peer sends meanwhile
    /// may be lost, and a peer that sends on this connection keeps it for a while only.
    pub(super) fn is_dispensable(&self, current: &Self) -> bool {
        let silence = self.max_silence();
        let other = current.idle().unwrap_or_default();
        self.in_flight.is_empty()
            && self.idle().is_some_and(|idle| idle >= silence)
            && (other < SILENCE_CHECK || other >= silence)
    }

    fn max_silence(&self) -> Duration {
        match (self.is_ours, self.is_smaller) {
            (true, false) => SILENCE,
            (true, true) => OURS_SMALLER * SILENCE,
            (false, true) => ACCEPTED_SMALLER * SILENCE,
            (false, false) => ACCEPTED_LARGER * SILENCE,
        }
    }
}

/// Closes a connection with a peer that is no longer listed, in the background; at once without a runtime.
pub(super) fn close_unlisted<C: NetConnection>(pooled: Arc<PooledConnection<C>>) {
    const REASON: &str = "no longer listed";
    let connection = pooled.clone();
    let abort = OnDrop(move || connection.connection.abort(0, REASON)); // does nothing after the close
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        let _abort = abort; // a runtime that ends drops this before the first poll
        let _ = timeout(CLOSE_TIMEOUT, pooled.connection.close(0, REASON)).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::event_queue::EventQueue;
    use crate::pool::outgoing::OutgoingMessage;
    use crate::pool::quota::{OfPeer, Place, Quota};
    use net_traits::CertHash;

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_messages_in_flight_is_not_dispensable() {
        let pooled =
            |id| PooledConnection::new(id, (), true, true, PeerLimits::new(1, 1, 1)).unwrap();
        let (spare, current) = (pooled(1), pooled(2));
        tokio::time::sleep(2 * spare.max_silence()).await;
        assert!(spare.is_dispensable(&current));
        let (events, room) = (EventQueue::<()>::new(), Quota::new(2));
        let of_peer = OfPeer::Unconfirmed { _bytes: room.take(1).unwrap() };
        let place = Place { of_peer, _of_pool: (room.take(1).unwrap(), None) };
        let peer = CertHash::from_bytes([1; 32]);
        let mut outgoing =
            OutgoingMessage::new(peer, "message".into(), place, None, &events.reports);
        outgoing.offered();
        spare.in_flight.add(outgoing);
        assert!(!spare.is_dispensable(&current), "it is not flushed");
        spare.in_flight.flushed(spare.in_flight.sent().await);
        assert!(!spare.is_dispensable(&current), "it may have to be reported");
        spare.in_flight.settle(Duration::ZERO);
        assert!(spare.is_dispensable(&current));
    }
}
