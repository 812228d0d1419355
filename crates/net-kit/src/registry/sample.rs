//! The task that samples the connections of a transport.

use super::task::Task;
use super::{AT_ONCE, Live, Member, Registry};
use crate::coop::yield_now;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// The period in which each connection is sampled once.
const PERIOD: Duration = Duration::from_secs(10);

/// The maximum number of slices into which the connections are divided. The task sleeps between
/// slices.
const SLICES: usize = 100;

impl<M: Member> Registry<M> {
    /// Starts the task that samples connections, unless it runs or no recorder or subscriber wants
    /// samples. It ends with the last connection.
    pub(super) fn watch_samples(self: &Arc<Self>) {
        if !self.telemetry.wants_samples() {
            return;
        }
        let registry = Arc::downgrade(self);
        let start = || Task::start(move || sample_all(registry.clone()));
        self.ensure(|tasks| &mut tasks.sampler, start);
    }

    async fn sample(&self, id: u64) {
        let member = self.state.lock().live.get(&id).and_then(Live::upgrade);
        let Some(member) = member else { return };
        let telemetry = &member.entry().telemetry;
        telemetry.publish();
        if !member.has_ended()
            && let Some(sample) = member.sample().await
        {
            telemetry.sampled(&sample);
        }
    }
}

/// Samples all connections once in each period, spread over the period.
async fn sample_all<M: Member>(registry: Weak<Registry<M>>) {
    let ids = || {
        let registry = registry.upgrade()?;
        let state = registry.state.lock();
        Some(state.live.keys().copied().collect::<Vec<_>>())
    };
    while let Some(ids) = ids() {
        let slices = ids.chunks(ids.len().div_ceil(SLICES).max(1));
        let pause = PERIOD / u32::try_from(slices.len().max(1)).unwrap_or(u32::MAX);
        if ids.is_empty() {
            sleep(pause).await; // the task is aborted with the last connection
        }
        for slice in slices {
            sleep(pause).await;
            for ids in slice.chunks(AT_ONCE) {
                let Some(registry) = registry.upgrade() else { return };
                for id in ids {
                    registry.sample(*id).await;
                }
                drop(registry);
                yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Connection, TURN, connect, peer, registry};
    use super::*;
    use crate::registry::Handle as Connected;
    use crate::telemetry::tests::Log;
    #[cfg(feature = "metrics")]
    use metrics_util::debugging::DebugValue;
    use std::collections::HashMap;
    use std::sync::atomic::Ordering;
    use tokio::runtime::Handle;

    fn samples(members: &[Connected<Connection>]) -> Vec<u64> {
        members.iter().map(|member| member.samples.load(Ordering::Relaxed)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_is_sampled_once_in_a_period_by_one_task() {
        let _log = Log::install();
        let registry = registry();
        let members: Vec<_> = (0..3).map(|_| connect(&registry, &peer(), 0, false)).collect();
        sleep(Duration::from_secs(21)).await;
        assert_eq!(samples(&members), [2, 2, 2]);
        members[0].abort(0, "");
        sleep(Duration::from_secs(20)).await;
        assert_eq!(samples(&members), [2, 4, 4], "a connection that has ended is not sampled");
        let alive = || Handle::current().metrics().num_alive_tasks();
        let before = alive();
        drop(members);
        tokio::task::yield_now().await;
        assert_eq!(alive(), before - 2, "the tasks that sample and that watch trust have ended");
        let later = [connect(&registry, &peer(), 0, false)];
        sleep(Duration::from_secs(15)).await;
        assert_eq!(samples(&later), [1]);
    }

    #[cfg(feature = "metrics")]
    #[tokio::test(start_paused = true)]
    async fn the_metrics_show_all_messages_at_a_sample() {
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let sent = || {
            let snapshot = snapshotter.snapshot().into_hashmap().into_iter();
            let mut sent =
                snapshot.filter(|(key, _)| key.key().name() == "net_messages_sent_total");
            sent.next().map(|(_, (_, _, value))| value)
        };
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let member = connect(&registry(), &peer(), 0, false);
        (0..3).for_each(|_| member.entry().sent(10));
        assert_eq!(sent(), Some(DebugValue::Counter(1)));
        sleep(Duration::from_secs(11)).await;
        assert_eq!(sent(), Some(DebugValue::Counter(2)), "since the look before");
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_are_sampled_a_few_at_a_time() {
        let _log = Log::install();
        let (registry, peer, count) = (registry(), peer(), 2000);
        let members: Vec<_> = (0..count).map(|_| connect(&registry, &peer, 0, false)).collect();
        let sampled = || samples(&members).iter().sum::<u64>();
        tokio::spawn(async {
            loop {
                TURN.set(TURN.get() + 1);
                yield_now().await;
            }
        });
        tokio::task::yield_now().await;
        for slice in 1..=100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
            assert_eq!(sampled(), slice * 20);
        }
        assert_eq!(samples(&members), vec![1; count]);
        let mut in_turn = HashMap::<_, usize>::new();
        for member in &members {
            *in_turn.entry(member.turn.load(Ordering::Relaxed)).or_default() += 1;
        }
        assert_eq!(in_turn.values().max(), Some(&AT_ONCE));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_subscriber_nothing_is_sampled() {
        let registry = registry();
        let members = [connect(&registry, &peer(), 0, false)];
        sleep(Duration::from_secs(60)).await;
        assert_eq!(samples(&members), [0]);
        assert!(registry.state.lock().tasks.sampler.is_none());
    }
}
