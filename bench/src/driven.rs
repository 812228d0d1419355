//! `--driven`: this transport with msquic inside the runtime, against quinn in the same runtime.

use crate::batched::Batched;
use crate::contender::Contender;
use crate::ours::Ours;
use crate::quinn_peer::Quinn;
use crate::streams::Writes;
use crate::{Options, compare, telemetry};
use anyhow::Result;
use msquic_transport::{ExecutionDriver, drive};
use tokio::runtime::Builder;

pub(crate) fn run(options: Options) -> Result<()> {
    let mut builder = if options.current_thread {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().build()?.block_on(async {
        tokio::spawn(drive(ExecutionDriver::install()?));
        // A task, because in a multi-threaded runtime the future of `block_on` does not run
        // on the runtime's own threads.
        tokio::spawn(measure(options)).await?
    })
}

async fn measure(options: Options) -> Result<()> {
    if options.telemetry {
        return telemetry::run(&options).await;
    }
    let ours: Box<dyn Contender> = match options.batched {
        true => Box::new(Batched::new().await?),
        false => Box::new(Ours::new().await?),
    };
    let quinn = Box::new(Quinn::new(Writes::Single).await?);
    compare(&options, vec![ours, quinn]).await
}
