//! The recorder of metrics and the subscriber to log events of this process, and what runs the tests.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use prometheus_parse::{Scrape, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static OBSERVER: OnceLock<PrometheusHandle> = OnceLock::new();
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// The fields of all spans. The id of a span is its index and one.
static SPANS: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// A lock for each transport.
static TESTS: Mutex<BTreeMap<&str, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(60);

thread_local! {
    /// The spans that the thread has entered, the innermost last.
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

/// Fields by name, with the message, the target, and the name and the fields of the span.
pub(crate) type Line = BTreeMap<&'static str, String>;

struct Log;

struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("net::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line::new();
        span.record(&mut Fields(&mut line));
        line.insert("span", span.metadata().name().to_owned());
        let mut spans = SPANS.lock().unwrap();
        spans.push(line);
        Id::from_u64(spans.len() as u64)
    }

    fn event(&self, event: &Event<'_>) {
        let span = ENTERED.with_borrow(|entered| entered.last().map(Id::into_u64));
        let mut line = match span {
            Some(id) => SPANS.lock().unwrap()[id as usize - 1].clone(),
            None => Line::new(),
        };
        line.insert("target", event.metadata().target().to_owned());
        event.record(&mut Fields(&mut line));
        LINES.lock().unwrap().push(line);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.clone()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }
}

/// Runs a test alone among those of this transport, since they count its events. Tests of pools and
/// of fallback are of the memory network. Its clock is virtual if `is_paused`.
pub(crate) fn test(transport: &'static str, is_paused: bool, test: impl Future<Output = ()>) {
    OBSERVER.get_or_init(|| {
        tracing::subscriber::set_global_default(Log).unwrap();
        drive_if_wanted();
        PrometheusBuilder::new().install_recorder().unwrap()
    });
    let lock = TESTS.lock().unwrap().entry(transport).or_default().clone();
    let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
    await_closed(transport);
    let mut runtime =
        if is_paused { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = runtime.enable_all().start_paused(is_paused).build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") });
}

/// Waits until the connections of earlier tests are closed: some threads outlive the runtime of a test.
fn await_closed(transport: &str) {
    let is_open = || values("net_connections_open", transport).get("").is_some_and(|it| *it > 0.0);
    let end = Instant::now() + HANG;
    while is_open() {
        assert!(Instant::now() < end, "connections of an earlier test stay open");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Makes msquic run inside a runtime, on a thread of its own, if the variable `MSQUIC_TRANSPORT_DRIVEN` is set.
fn drive_if_wanted() {
    if std::env::var_os("MSQUIC_TRANSPORT_DRIVEN").is_none() {
        return;
    }
    #[cfg(all(feature = "driver", target_os = "linux"))]
    {
        let driver = msquic_transport::ExecutionDriver::install().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(msquic_transport::drive(driver)));
    }
    #[cfg(not(all(feature = "driver", target_os = "linux")))]
    panic!("the feature `driver` is missing");
}

/// Waits until `observe` returns `expected`.
pub(crate) async fn expect<T: PartialEq + fmt::Debug>(expected: T, observe: impl Fn() -> T) {
    let wait = async {
        while observe() != expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(HANG / 4, wait).await.is_err() {
        assert_eq!(observe(), expected);
    }
}

/// Returns the events with this message and transport so far. Those of pools and of fallback have
/// the transport "".
pub(crate) fn events(message: &str, transport: &str) -> Vec<Line> {
    let lines = LINES.lock().unwrap();
    let of_it = |line: &&Line| {
        line.get("message").is_some_and(|it| it == message)
            && line.get("transport").map_or("", String::as_str) == transport
    };
    lines.iter().filter(of_it).cloned().collect()
}

/// Returns the counters and gauges of a transport with this name, by their other labels. Those of
/// pools and of fallback have the transport "".
pub(crate) fn values(name: &str, transport: &str) -> BTreeMap<String, f64> {
    let text = OBSERVER.get().unwrap().render();
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let of_it = scrape.samples.into_iter().filter(|sample| {
        sample.metric == name && sample.labels.get("transport").unwrap_or("") == transport
    });
    of_it
        .filter_map(|sample| {
            let labels = ["direction", "cause", "detail", "limit", "path", "change"];
            let labels = labels.into_iter().filter_map(|label| sample.labels.get(label));
            let labels: Vec<_> = labels.filter(|value| !value.is_empty()).collect();
            match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                    Some((labels.join(" "), value))
                }
                _ => None,
            }
        })
        .collect()
}

/// Returns the number of each counter of [`values`] by which it has grown since `before`, without those that
/// have not.
pub(crate) fn grown(
    name: &str,
    transport: &str,
    before: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let now = values(name, transport).into_iter();
    let grown = now.map(|(labels, value)| {
        let before = before.get(&labels).copied().unwrap_or(0.0);
        (labels, value - before)
    });
    grown.filter(|(_, growth)| *growth != 0.0).collect()
}
