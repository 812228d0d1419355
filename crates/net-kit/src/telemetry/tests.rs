//! The vocabulary is what is emitted.

use super::{
    ConnectionTelemetry, EVENTS, FallbackPath, FallbackTelemetry, Origin, PoolTelemetry, Sample,
    Telemetry,
};
use crate::facts::ConnectionFacts;
use crate::rate_limit::LINES;
use net_traits::{
    CertHash, CloseReason, ConnectError, Limit, NetCredential, RecvError, TrustPolicy,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Metadata, Subscriber};

const REMOTE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Records target, level, message and fields of what is emitted, and how often.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<BTreeMap<Line, usize>>>);

type Line = (String, String, String, Vec<String>);

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Log {
    /// Records what this thread emits. All events are emitted once before, because an event that
    /// another thread emits first may be disabled for this thread.
    pub(crate) fn install() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        emit_all();
        tracing::callsite::rebuild_interest_cache();
        log.0.lock().clear();
        (log, guard)
    }

    fn add(&self, metadata: &Metadata<'_>, message: &str) {
        let fields = metadata.fields().iter().map(|field| field.name().to_owned());
        let fields = fields.filter(|name| name != "message").collect();
        let (target, level) = (metadata.target().to_owned(), metadata.level().to_string());
        *self.0.lock().entry((target, level, message.to_owned(), fields)).or_default() += 1;
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("net::")
    }

    /// `sometimes`, because other threads have no subscriber.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.add(span.metadata(), span.metadata().name());
        Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        self.add(event.metadata(), &message.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn connection(telemetry: &Telemetry) -> ConnectionTelemetry {
    connection_of(telemetry, &NetCredential::self_signed(TrustPolicy::Any).unwrap())
}

fn connection_of(telemetry: &Telemetry, credential: &NetCredential) -> ConnectionTelemetry {
    let hash = credential.identity();
    let peer = TrustPolicy::Any.verify(credential.certificate_chain().first()).unwrap();
    let facts = ConnectionFacts::new(REMOTE, REMOTE, hash, peer, None, "test/1".to_owned());
    ConnectionTelemetry::opened(telemetry.clone(), &facts, Origin::Accepted)
}

/// Emits each event and metric once.
fn emit_all() {
    let telemetry = Telemetry::new("test");
    telemetry.wants_samples();
    telemetry.refused(REMOTE, Limit::PerIp);
    telemetry.without_protocol(1);
    telemetry.kept(101);
    telemetry.cannot_accept(&std::io::Error::other("too many open files"));
    drop(telemetry.attempt(None, Origin::Dialled));
    let attempt = telemetry.attempt(REMOTE, Origin::Accepted);
    futures_util::FutureExt::now_or_never(attempt.watch(async { Ok(()) })).unwrap().unwrap();
    let connection = connection(&telemetry);
    connection.resumed();
    connection.revoked();
    connection.undelivered(2, 30);
    connection.sent(1, 100);
    connection.received(1, 20);
    connection.message_refused();
    let rtt = Some(Duration::from_millis(3));
    connection.sampled(&Sample { rtt, packets_sent: 7, packets_lost: 1, queued: 100 });
    connection.closing(7, "done");
    connection.closed(&CloseReason::TimedOut);
    let (peer, pool) = (CertHash::from_bytes([7; 32]), PoolTelemetry::new());
    pool.connected(&peer);
    pool.replaced(&peer, None);
    pool.stuck(&peer);
    pool.lost(&peer, &CloseReason::TimedOut);
    pool.dialled(REMOTE, Err(&ConnectError::Refused(REMOTE)));
    pool.held();
    pool.undelivered(&peer, "lost", &"it is lost");
    pool.released();
    pool.receive_failed(&peer, &RecvError::TooLarge { size: 2, limit: 1 }, 1);
    FallbackTelemetry::new().dialled(REMOTE, FallbackPath::Neither, None, None);
}

#[test]
fn each_event_that_is_emitted_is_in_the_table() {
    let (log, _guard) = Log::install();
    emit_all();
    let emitted = std::mem::take(&mut *log.0.lock());
    let to_line = |event: &super::Event| {
        let fields = event.fields.iter().map(|&field| field.to_owned()).collect();
        (event.target.to_owned(), event.level.to_owned(), event.message.to_owned(), fields)
    };
    assert_eq!(emitted.into_keys().collect::<BTreeSet<_>>(), EVENTS.iter().map(to_line).collect());
}

#[tokio::test(start_paused = true)]
async fn peers_that_repeat_themselves_cause_few_lines() {
    let (log, _guard) = Log::install();
    let (telemetry, pool) = (Telemetry::new("test"), PoolTelemetry::new());
    let (reason, peer) = (CloseReason::TimedOut, CertHash::from_bytes([7; 32]));
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let connect_many = || {
        for _ in 0..1_000 {
            telemetry.refused(REMOTE, Limit::PerIp);
            drop(telemetry.attempt(REMOTE, Origin::Accepted));
            let connection = connection_of(&telemetry, &credential);
            connection.resumed();
            connection.revoked();
            connection.undelivered(2, 30);
            connection.message_refused();
            connection.closing(7, "done");
            connection.closed(&reason);
            pool.connected(&peer);
            pool.replaced(&peer, Some(&reason));
            pool.stuck(&peer);
            pool.lost(&peer, &reason);
        }
    };
    for second in 1..=3 {
        connect_many();
        let mut lines = log.0.lock().clone();
        lines.retain(|(_, _, message, _), _| message != "connection"); // the span
        assert_eq!(lines.len(), 13);
        let expected = second * LINES as usize;
        assert!(lines.values().all(|&count| count == expected), "{lines:?}");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(telemetry.rate_limits.closed.take(), Some(1_000 - u64::from(LINES)));
}

#[cfg(feature = "metrics")]
mod metrics {
    use super::*;
    use crate::admission::{Admission, ConnectionLimits, STALLED};
    use crate::telemetry::{Attempt, METRICS};
    use ::metrics::{
        Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
        SharedString, Unit, with_local_recorder,
    };
    use metrics_util::MetricKind as Kind;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use net_traits::{Rejection, TrustError, close_code};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn each_metric_that_is_emitted_is_in_the_table() {
        let recorder = DebuggingRecorder::new();
        with_local_recorder(&recorder, emit_all);
        let emitted: BTreeSet<_> = recorder
            .snapshotter()
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, unit, description, _)| {
                let labels: Vec<_> = key.key().labels().map(|it| it.key().to_owned()).collect();
                let kind = match key.kind() {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                let unit = unit.as_ref().map_or("", Unit::as_str).to_owned();
                let text = description.map(SharedString::into_owned).unwrap_or_default();
                (key.key().name().to_owned(), kind.to_owned(), unit, labels, text)
            })
            .collect();
        let table = METRICS.iter().map(|metric| {
            let labels = metric.labels.iter().map(|&label| label.to_owned()).collect();
            let (kind, unit) = (metric.kind.to_string(), metric.unit.to_string());
            (metric.name.to_owned(), kind, unit, labels, metric.description.to_owned())
        });
        assert_eq!(emitted, table.collect());
    }

    fn values(run: impl FnOnce()) -> BTreeMap<String, f64> {
        let recorder = DebuggingRecorder::new();
        with_local_recorder(&recorder, run);
        let snapshot = recorder.snapshotter().snapshot().into_vec().into_iter();
        let value = |value| match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(values) => values.len() as f64,
        };
        snapshot
            .map(|(key, _, _, it)| {
                let labels: Vec<_> = key.key().labels().map(|label| label.value()).collect();
                (format!("{} {}", key.key().name(), labels.join(" ")), value(it))
            })
            .collect()
    }

    #[test]
    fn an_attempt_has_one_outcome() {
        let rejected = |cause| Rejection::by_policy(REMOTE, cause).into();
        let hash = NetCredential::self_signed(TrustPolicy::Any).unwrap().identity();
        let by_peer = Rejection::by_alert(REMOTE, hash, 48).unwrap();
        let errors = [
            (ConnectError::Refused(REMOTE), "refused "),
            (rejected(TrustError::UntrustedIdentity(hash)), "rejected_by_us untrusted_identity"),
            (rejected(TrustError::NoCertificate), "rejected_by_us no_certificate"),
            (by_peer.into(), "rejected_by_peer unknown_ca"),
            (ConnectError::Closed(CloseReason::TimedOut), "closed timed_out"),
        ];
        for (error, expected) in errors {
            let fail = |attempt: Attempt| {
                let watch = attempt.watch(async { Err::<(), _>(error.clone()) });
                futures_util::FutureExt::now_or_never(watch).unwrap().unwrap_err();
            };
            let values = values(|| fail(Telemetry::new("test").attempt(REMOTE, Origin::Dialled)));
            let failed: Vec<_> =
                values.iter().filter(|(name, _)| name.contains("_failed_")).collect();
            let name = format!("net_handshakes_failed_total test out {expected}");
            assert_eq!(failed, [(&name, &1.0)], "{error}");
        }
    }

    #[test]
    fn an_attempt_that_reached_a_limit_is_counted_as_a_refusal_only() {
        let after = Duration::from_secs(10);
        for (limit, error) in [
            (Limit::HandshakeTimeout, ConnectError::TimedOut { remote_addr: REMOTE, after }),
            (
                Limit::Handshakes,
                ConnectError::Closed(crate::admission::close_reason(Limit::Handshakes)),
            ),
        ] {
            let values = values(|| {
                let telemetry = Telemetry::new("test");
                telemetry.refused(REMOTE, limit);
                let attempt = telemetry.attempt(REMOTE, Origin::Accepted);
                let watch = attempt.watch(async { Err::<(), _>(error.clone()) });
                futures_util::FutureExt::now_or_never(watch).unwrap().unwrap_err();
            });
            assert_eq!(values[&format!("net_connections_refused_total test {limit:?}")], 1.0);
            assert!(!values.keys().any(|name| name.contains("_failed_")), "{values:?}");
        }
        let values = values(|| {
            let attempt = Telemetry::new("test").attempt(REMOTE, Origin::Dialled);
            let error = ConnectError::TimedOut { remote_addr: REMOTE, after };
            let watch = attempt.watch(async { Err::<(), _>(error) });
            futures_util::FutureExt::now_or_never(watch).unwrap().unwrap_err();
        });
        assert_eq!(values["net_handshakes_failed_total test out timed_out "], 1.0);
    }

    #[test]
    fn an_attempt_that_was_evicted_is_told_as_a_refusal_alone() {
        let limits = ConnectionLimits {
            connections: 9,
            per_ip: 9,
            per_identity: 9,
            handshakes: 1,
            handshakes_per_ip: 9,
        };
        type End = fn(Attempt);
        let ends: [End; 2] = [drop, Attempt::refused];
        for end in ends {
            let mut time = tokio::runtime::Builder::new_current_thread();
            let time = time.enable_time().start_paused(true).build().unwrap();
            let values = values(|| {
                let _time = time.enter();
                let admission = Arc::new(Admission::new(limits, Telemetry::new("test")));
                let evicted = admission.admit(REMOTE).unwrap();
                let attempt = evicted.attempt();
                time.block_on(tokio::time::advance(STALLED));
                let _place = admission.admit(REMOTE).unwrap();
                drop(evicted);
                end(attempt);
            });
            assert_eq!(values["net_connections_refused_total test Handshakes"], 1.0);
            assert!(!values.keys().any(|name| name.contains("_failed_")), "{values:?}");
        }
    }

    #[test]
    fn a_connection_ends_once_even_if_it_is_only_dropped() {
        let local = |code| CloseReason::Local { code, reason: String::new() };
        for (reason, cause) in [
            (Some(local(7)), "local"),
            (Some(local(close_code::SHUTDOWN)), "shutdown"),
            (Some(local(close_code::TOO_MANY_PER_IP)), "limit"),
            (Some(local(close_code::TOO_MUCH_MEMORY)), "limit"),
            (Some(local(close_code::MESSAGE_TIMEOUT)), "limit"),
            (None, "abandoned"),
        ] {
            let values = values(|| {
                let connection = connection(&Telemetry::new("test"));
                if let Some(reason) = &reason {
                    connection.closed(reason);
                    connection.closed(&CloseReason::TimedOut);
                }
            });
            assert_eq!(values["net_connections_open test"], 0.0);
            assert_eq!(values[&format!("net_connections_closed_total test {cause}")], 1.0);
            assert_eq!(values[&format!("net_connection_seconds test {cause}")], 1.0);
            assert_eq!(values.keys().filter(|name| name.contains("closed")).count(), 1);
        }
    }

    #[test]
    fn packets_are_counted_since_the_previous_sample() {
        let values = values(|| {
            let connection = connection(&Telemetry::new("test"));
            for (packets_sent, packets_lost) in [(10, 2), (30, 1), (30, 4)] {
                connection.sampled(&Sample { packets_sent, packets_lost, ..Sample::default() });
            }
        });
        assert_eq!(values["net_packets_sent_total test"], 30.0);
        assert_eq!(values["net_packets_lost_total test"], 4.0);
        assert_eq!(values["net_rtt_seconds test"], 0.0, "it is not known");
        assert_eq!(values["net_send_queue_bytes test"], 3.0);
    }

    #[test]
    fn samples_are_wanted_with_a_recorder() {
        assert!(!Telemetry::new("test").wants_samples());
        let recorder = DebuggingRecorder::new();
        assert!(with_local_recorder(&recorder, || Telemetry::new("test").wants_samples()));
    }

    /// A recorder that counts how often its counters and histograms are called.
    #[derive(Default)]
    struct Calls(Arc<AtomicU64>);

    struct Call(Arc<AtomicU64>);

    impl CounterFn for Call {
        fn increment(&self, _: u64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for Call {
        fn record(&self, _: f64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Recorder for Calls {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Call(self.0.clone()).into())
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Call(self.0.clone()).into())
        }
    }

    #[test]
    fn a_recorder_is_called_for_one_of_64_messages() {
        let calls = Calls::default();
        with_local_recorder(&calls, || {
            let connection = connection(&Telemetry::new("test"));
            calls.0.store(0, Ordering::Relaxed);
            for _ in 0..640 {
                connection.sent(1, 10);
                connection.received(1, 10);
            }
            // Four counters, and the size of a message, in each direction.
            assert_eq!(calls.0.load(Ordering::Relaxed), 2 * 10 * 5);
        });
    }

    #[test]
    fn messages_after_the_end_are_in_the_metrics_too() {
        let values = values(|| {
            let connection = connection(&Telemetry::new("test"));
            (0..3).for_each(|_| connection.received(1, 10));
            connection.closed(&CloseReason::TimedOut);
            (0..3).for_each(|_| connection.received(1, 10));
        });
        assert_eq!(values["net_messages_received_total test"], 6.0);
        assert_eq!(values["net_bytes_received_total test"], 60.0);
    }

    #[test]
    fn the_size_of_every_64th_message_is_recorded() {
        let values = values(|| {
            let connection = connection(&Telemetry::new("test"));
            (0..129).for_each(|_| connection.sent(1, 10));
        });
        assert_eq!(values["net_messages_sent_total test"], 129.0);
        assert_eq!(values["net_bytes_sent_total test"], 1290.0);
        assert_eq!(values["net_message_bytes test out"], 3.0);
    }
}
