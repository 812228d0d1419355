//! `Link`: the path from one host to another, with its latency, bandwidth and faults.

use fastrand::Rng;
use parking_lot::Mutex;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The properties of a path from one host to another. By default it has no delay, limit or faults.
///
/// A fault happens once per connection and direction, when the number of sent bytes, including
/// headers, passes a random position in the given range. The network's seed selects the position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkPlan {
    latency: Duration,
    jitter: Duration,
    bandwidth: Option<u64>,
    reset: Option<Range<u64>>,
    truncate: Option<Range<u64>>,
    stall: Option<(Range<u64>, Duration)>,
}

impl LinkPlan {
    /// Creates a plan without delay, limit or faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the latency of a byte. Default: zero.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Sets the maximum of the random extra delay of each message. Messages keep their order.
    /// Default: zero.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets the bandwidth in bytes per second, shared by all connections. Default: unlimited.
    ///
    /// # Panics
    ///
    /// If it is 0; [`MemoryNetwork::partition`](crate::memory::MemoryNetwork::partition) closes
    /// links.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "a link without any bandwidth is a partition");
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// Resets connections after that many bytes: both sides see
    /// [`CloseReason::Transport`](net_traits::CloseReason::Transport).
    #[must_use]
    pub fn reset_after(mut self, bytes: Range<u64>) -> Self {
        self.reset = Some(bytes);
        self
    }

    /// Truncates the message that passes that many bytes. Its receiver sees
    /// [`RecvError::Truncated`](net_traits::RecvError::Truncated), and the connection remains
    /// usable.
    #[must_use]
    pub fn truncate_after(mut self, bytes: Range<u64>) -> Self {
        self.truncate = Some(bytes);
        self
    }

    /// Stalls the connection for a while after that many bytes.
    #[must_use]
    pub fn stall_after(mut self, bytes: Range<u64>, duration: Duration) -> Self {
        self.stall = Some((bytes, duration));
        self
    }

    /// Selects the positions of the faults of one connection.
    pub(super) fn draw(&self, rng: &mut Rng) -> Faults {
        let mut position = |range: &Range<u64>| match range.is_empty() {
            true => range.start,
            false => rng.u64(range.clone()),
        };
        Faults {
            reset: self.reset.as_ref().map(&mut position),
            truncate: self.truncate.as_ref().map(&mut position),
            stall: self.stall.as_ref().map(|(range, duration)| (position(range), *duration)),
        }
    }
}

/// The positions of the faults in one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) reset: Option<u64>,
    pub(super) truncate: Option<u64>,
    pub(super) stall: Option<(u64, Duration)>,
}

/// The path from one host to another.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    plan: LinkPlan,
    /// When all data sent so far has left the host.
    free_at: Option<Instant>,
    /// Since when the link is blocked.
    blocked_since: Option<Instant>,
    /// From when to when it was blocked before.
    blocked: Vec<(Instant, Instant)>,
}

impl Link {
    pub(super) fn new(plan: LinkPlan, blocked_since: Option<Instant>) -> Self {
        let state = State { plan, free_at: None, blocked_since, blocked: Vec::new() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn plan(&self) -> LinkPlan {
        self.state.lock().plan.clone()
    }

    pub(super) fn set_plan(&self, plan: LinkPlan) {
        self.state.lock().plan = plan;
    }

    pub(super) fn block(&self, since: Instant) {
        self.state.lock().blocked_since.get_or_insert(since);
    }

    pub(super) fn unblock(&self) {
        {
            let mut state = self.state.lock();
            if let Some(since) = state.blocked_since.take() {
                state.blocked.push((since, Instant::now()));
            }
        }
        self.changed.notify_waiters();
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().blocked_since
    }

    /// Returns when data arrives that would arrive `at` this time on a link that is never blocked.
    /// `None` while the link is blocked.
    pub(super) fn arrives(&self, mut at: Instant) -> Option<Instant> {
        let state = self.state.lock();
        for (since, until) in &state.blocked {
            if (*since..*until).contains(&at) {
                at = *until;
            }
        }
        state.blocked_since.is_none_or(|since| at < since).then_some(at)
    }

    /// Returns the arrival times of the first and last of `bytes` sent `now`.
    pub(super) fn transmit(&self, now: Instant, bytes: u64, rng: &mut Rng) -> (Instant, Instant) {
        let state = &mut *self.state.lock();
        let plan = &state.plan;
        let begin = state.free_at.map_or(now, |free_at| free_at.max(now));
        let takes = plan.bandwidth.map_or(Duration::ZERO, |bandwidth| {
            let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bandwidth);
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        });
        let delay = plan.latency + plan.jitter.mul_f64(rng.f64());
        state.free_at = Some(begin + takes);
        (begin + delay, begin + takes + delay)
    }

    /// Returns the arrival time of a small packet sent `now`, if the link is not blocked.
    pub(super) fn arrival(&self, now: Instant) -> Instant {
        now + self.state.lock().plan.latency
    }

    /// Waits as long as a small packet takes to arrive, possibly forever.
    pub(super) async fn pass(&self) {
        self.open().await;
        let latency = self.state.lock().plan.latency;
        sleep(latency).await;
        self.open().await;
    }

    /// Waits until the link is not blocked.
    async fn open(&self) {
        loop {
            let changed = self.changed.notified();
            if self.blocked_since().is_none() {
                break;
            }
            changed.await;
        }
    }
}
