//! `Link`: the way from one host to another, how fast it is and when it fails.

use fastrand::Rng;
use parking_lot::Mutex;
use std::ops::Range;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How the way from one host to another behaves. A new one has no delay, no limit and no faults.
///
/// Faults happen once per connection and direction, where the number of sent bytes, headers included, passes a
/// random place in the given range; the network's seed decides where.
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
    /// No delay, no limit, no faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a byte is on its way. Default: zero.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// How much longer, at random, each message may take. Messages still keep their order. Default: zero.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// How many bytes per second fit, of all connections together. Default: any number.
    ///
    /// # Panics
    ///
    /// If it is 0; [`MemoryNetwork::partition`](crate::memory::MemoryNetwork::partition) closes links.
    #[must_use]
    pub fn bandwidth(mut self, bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "a link without any bandwidth is a partition");
        self.bandwidth = Some(bytes_per_second);
        self
    }

    /// Connections break after that many bytes: both sides see
    /// [`CloseReason::Transport`](net_traits::CloseReason::Transport).
    #[must_use]
    pub fn reset_after(mut self, bytes: Range<u64>) -> Self {
        self.reset = Some(bytes);
        self
    }

    /// The message that passes that many bytes is cut there: its receiver sees
    /// [`RecvError::Truncated`](net_traits::RecvError::Truncated), and the connection goes on.
    #[must_use]
    pub fn truncate_after(mut self, bytes: Range<u64>) -> Self {
        self.truncate = Some(bytes);
        self
    }

    /// The connection delivers nothing for a while after that many bytes.
    #[must_use]
    pub fn stall_after(mut self, bytes: Range<u64>, duration: Duration) -> Self {
        self.stall = Some((bytes, duration));
        self
    }

    /// Where the faults of one connection happen.
    pub(super) fn draw(&self, rng: &mut Rng) -> Faults {
        let mut place = |range: &Range<u64>| match range.is_empty() {
            true => range.start,
            false => rng.u64(range.clone()),
        };
        Faults {
            reset: self.reset.as_ref().map(&mut place),
            truncate: self.truncate.as_ref().map(&mut place),
            stall: self.stall.as_ref().map(|(range, duration)| (place(range), *duration)),
        }
    }
}

/// Behind which byte of a connection's direction what happens.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) reset: Option<u64>,
    pub(super) truncate: Option<u64>,
    pub(super) stall: Option<(u64, Duration)>,
}

/// The way from one host to another.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    plan: LinkPlan,
    /// When what was sent so far has left.
    free_at: Option<Instant>,
    /// Since when nothing passes.
    blocked_since: Option<Instant>,
}

impl Link {
    pub(super) fn new(plan: LinkPlan, blocked_since: Option<Instant>) -> Self {
        let state = State { plan, free_at: None, blocked_since };
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
        self.state.lock().blocked_since = None;
        self.changed.notify_waiters();
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().blocked_since
    }

    /// When the first and the last byte arrive of `bytes` that leave `now`.
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

    /// When something small that leaves `now` arrives, if the link is not blocked.
    pub(super) fn arrival(&self, now: Instant) -> Instant {
        now + self.state.lock().plan.latency
    }

    /// Takes as long as something small needs to get to the other side, which may be for ever.
    pub(super) async fn pass(&self) {
        self.open().await;
        let latency = self.state.lock().plan.latency;
        sleep(latency).await;
        self.open().await;
    }

    /// Waits until it is not blocked.
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
