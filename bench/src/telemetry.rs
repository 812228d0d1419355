//! The cost of telemetry: this transport with a recorder of metrics against one without.

use crate::ours::Ours;
use crate::{Options, compare};
use anyhow::Result;
use metrics_exporter_prometheus::PrometheusBuilder;

pub(crate) async fn run(options: &Options) -> Result<()> {
    // A transport looks its counters up when it is created, so these two have no recorder.
    let without = Ours::named("without").await?;
    let again = Ours::named("without, again").await?;
    let _recorder = PrometheusBuilder::new().install_recorder()?;
    let with = Ours::named("with metrics").await?;
    compare(options, vec![Box::new(with), Box::new(without), Box::new(again)]).await
}
