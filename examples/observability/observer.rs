//! The recorder of metrics and the subscriber to log events of this process. Both record the
//! transport's name.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use prometheus_parse::{Scrape, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static OBSERVER: OnceLock<PrometheusHandle> = OnceLock::new();
static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Fields by name, with the message.
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

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::new();
        event.record(&mut Fields(&mut line));
        LINES.lock().unwrap().push(line);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Installs both, once. Has to be called before a transport is created.
pub(crate) fn install() {
    OBSERVER.get_or_init(|| {
        tracing::subscriber::set_global_default(Log).unwrap();
        PrometheusBuilder::new().install_recorder().unwrap()
    });
}

/// Returns the events with this message and transport so far.
pub(crate) fn events(message: &str, transport: &str) -> Vec<Line> {
    let lines = LINES.lock().unwrap();
    let has = |line: &Line, field, value: &str| line.get(field).is_some_and(|it| it == value);
    let of_it = |line: &&Line| has(line, "message", message) && has(line, "transport", transport);
    lines.iter().filter(of_it).cloned().collect()
}

/// Returns the counters and gauges of a transport with this name, by their other labels.
pub(crate) fn values(name: &str, transport: &str) -> BTreeMap<String, f64> {
    let text = OBSERVER.get().unwrap().render();
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let of_it = scrape.samples.into_iter().filter(|sample| {
        sample.metric == name && sample.labels.get("transport") == Some(transport)
    });
    of_it
        .filter_map(|sample| {
            let labels = ["direction", "cause", "detail", "limit"];
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
